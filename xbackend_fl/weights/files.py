"""Canonical weights on disk: safetensors with the fingerprint and a digest of the content in the header."""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from xbackend_fl.canonical import Kind
from xbackend_fl.canonical.dtypes import rounded, widened
from xbackend_fl.errors import FileError, FormatRefused, SchemaError, shortened
from xbackend_fl.formats.kinds import safetensors
from xbackend_fl.weights import store
from xbackend_fl.weights.container import Weights, digest
from xbackend_fl.weights.store import save

OWN = frozenset({"fingerprint", "kinds", "digest"})
"""Of the metadata: what :func:`save_weights` writes there."""


def write_tensors(
    path: Path, arrays: Mapping[str, NDArray[Any]], metadata: Mapping[str, str], known: str = ""
) -> str:
    """Write arrays and metadata, with a digest of the arrays, which is returned; the file appears whole or not at all.

    Args:
        path: The file.
        arrays: Arrays by name.
        metadata: Text by key.
        known: The digest, where somebody has it.
    """
    header = {**metadata, "digest": known or digest(arrays)}
    save(path, arrays, header, format=safetensors.NAME, overwrite=True, verify=False)
    return header["digest"]


def read_tensors(path: Path) -> tuple[dict[str, NDArray[Any]], dict[str, str]]:
    """Read what :func:`write_tensors` wrote.

    Raises:
        FileError: The file is missing, is not safetensors, or its content does not match its digest.
    """
    try:
        archive = store.open_weights(path, safetensors.NAME)
    except FormatRefused as error:
        raise FileError(f"{path} is corrupt: {error.reason}") from error
    arrays = {name: np.array(array) for name, array in archive.items()}
    if "digest" in archive.metadata and archive.metadata["digest"] != digest(arrays):
        raise FileError(
            f"{path} is corrupt: its content does not match the digest in its header",
            hint="it was damaged after it was written: put back a copy",
        )
    return arrays, dict(archive.metadata)


def save_weights(
    path: Path,
    weights: Weights,
    storage: Mapping[str, str] | None = None,
    known: str = "",
    further: Mapping[str, str] | None = None,
) -> str:
    """Write ``weights`` as canonical safetensors; returns the digest of what was written.

    Args:
        path: The new file.
        weights: The weights.
        storage: NumPy dtype name of half precision by the name of a parameter whose numbers it can hold; :func:`load_weights` widens them.
        known: That digest, where somebody has it.
        further: More metadata, of other keys than those that this writes.
    """
    kinds = json.dumps({name: str(kind) for name, kind in weights.kinds.items()})
    held = {name: rounded(array, (storage or {}).get(name, "float32")) for name, array in weights.items()}
    metadata = {**(further or {}), "fingerprint": weights.fingerprint, "kinds": kinds}
    return write_tensors(path, held, metadata, known)


def load_weights(path: Path, fingerprint: str | None = None) -> Weights:
    """Read canonical weights.

    Args:
        path: A file written by :func:`save_weights`.
        fingerprint: Refuse weights of any other schema.

    Raises:
        FileError: The file is missing or corrupt.
        SchemaError: The weights belong to another schema.
    """
    arrays, metadata = read_tensors(path)
    if "fingerprint" not in metadata or "kinds" not in metadata:
        raise SchemaError(f"{path} holds tensors, but not canonical weights: its header has no fingerprint")
    if fingerprint is not None and metadata["fingerprint"] != fingerprint:
        raise SchemaError(
            f"{path}: expected weights of schema {fingerprint[:12]}, received {metadata['fingerprint'][:12]}"
        )
    try:
        kinds = {name: Kind(kind) for name, kind in json.loads(metadata["kinds"]).items()}
        return Weights({name: widened(arrays[name]) for name in kinds}, metadata["fingerprint"], kinds)
    except (KeyError, ValueError, TypeError, AttributeError, RecursionError) as error:
        raise FileError(
            f"{path} is corrupt: its header does not fit its tensors ({shortened(error)})"
        ) from error
