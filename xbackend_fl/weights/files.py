"""Canonical weights on disk: safetensors with the fingerprint and a digest of the content in the header."""

from __future__ import annotations

import json
import os
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from numpy.typing import NDArray
from safetensors import SafetensorError, safe_open
from safetensors.numpy import save

from xbackend_fl.canonical import Kind
from xbackend_fl.errors import FileError, SchemaError
from xbackend_fl.weights.container import Weights, digest


def write_tensors(path: Path, arrays: Mapping[str, NDArray[Any]], metadata: Mapping[str, str]) -> None:
    """Write arrays and metadata, with a digest of the arrays; the file appears whole or not at all."""
    header = {**metadata, "digest": digest(arrays)}
    partial = path.with_name(path.name + ".partial")
    with partial.open("wb") as file:
        file.write(save(dict(arrays), header))
        file.flush()
        os.fsync(file.fileno())
    partial.replace(path)


def read_tensors(path: Path) -> tuple[dict[str, NDArray[Any]], dict[str, str]]:
    """Read what :func:`write_tensors` wrote.

    Raises:
        FileError: The file is missing, is not safetensors, or its content does not match its digest.
    """
    if not path.is_file():
        raise FileError(f"no such file: {path}")
    try:
        with safe_open(path, framework="numpy") as file:
            metadata = file.metadata() or {}
            arrays = {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118  not a mapping
    except (SafetensorError, OSError) as error:
        raise FileError(f"{path} is corrupt: {error}") from error
    if "digest" in metadata and metadata["digest"] != digest(arrays):
        raise FileError(
            f"{path} is corrupt: its content does not match the digest in its header",
            hint="use an earlier checkpoint of the run",
        )
    return arrays, metadata


def save_weights(path: Path, weights: Weights) -> None:
    """Write ``weights`` as canonical safetensors."""
    kinds = json.dumps({name: str(kind) for name, kind in weights.kinds.items()})
    write_tensors(path, weights, {"fingerprint": weights.fingerprint, "kinds": kinds})


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
    kinds = {name: Kind(kind) for name, kind in json.loads(metadata["kinds"]).items()}
    return Weights({name: arrays[name] for name in kinds}, metadata["fingerprint"], kinds)
