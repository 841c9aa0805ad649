"""Weights, and what an algorithm sends beside them, as the arrays of one message. Local parameters are in none, and frozen ones in those that bind models.

Weights go under their own names, other vectors under ``vectors/<vector>/<parameter>``; vectors travel as they are, whatever the payload.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Any

import numpy as np
from numpy.typing import NDArray

from xbackend_fl.canonical import Kind, Schema
from xbackend_fl.errors import UpdateRefused
from xbackend_fl.weights import Weights
from xbackend_fl.weights.container import digest

Arrays = Mapping[str, NDArray[Any]]
_PREFIX, _FROZEN = "vectors/", "frozen/"


def shared(weights: Weights) -> dict[str, NDArray[Any]]:
    """Weights as they are sent: without local parameters, and without frozen ones, which every silo has."""
    return {
        name: array for name, array in weights.items() if weights.kinds[name] not in {Kind.LOCAL, Kind.FROZEN}
    }


def frozen_arrays(weights: Weights) -> dict[str, NDArray[Any]]:
    """The frozen parameters as they are sent, once."""
    return {_FROZEN + name: array for name, array in weights.items() if weights.kinds[name] is Kind.FROZEN}


def split_frozen(arrays: Arrays) -> tuple[dict[str, NDArray[Any]], dict[str, NDArray[Any]]]:
    """The arrays of a message, and the frozen parameters among them."""
    frozen = {n.removeprefix(_FROZEN): array for n, array in arrays.items() if n.startswith(_FROZEN)}
    return {name: array for name, array in arrays.items() if not name.startswith(_FROZEN)}, frozen


def digest_of(frozen: Arrays) -> str:
    """SHA-256 (hex) of frozen parameters, as :func:`frozen_arrays` gives them; empty if there are none."""
    return digest(frozen) if frozen else ""


def packed(vectors: Mapping[str, Weights]) -> dict[str, NDArray[Any]]:
    """Vectors as arrays of a message."""
    return {
        f"{_PREFIX}{vector}/{name}": array
        for vector, weights in vectors.items()
        for name, array in weights.items()
    }


def split(arrays: Arrays) -> tuple[dict[str, NDArray[Any]], dict[str, NDArray[Any]]]:
    """The arrays of a message: those of the weights, and those of vectors."""
    beside = {name: array for name, array in arrays.items() if name.startswith(_PREFIX)}
    return {name: array for name, array in arrays.items() if name not in beside}, beside


def unpacked(arrays: Arrays, vectors: Iterable[str], like: Weights) -> dict[str, Weights]:
    """Vectors of a message, each over the trainable parameters of ``like``.

    Args:
        arrays: From :func:`split`.
        vectors: Names of those that there must be.
        like: The weights beside which they were sent.

    Raises:
        UpdateRefused: A vector or a parameter is missing or too many, or has another shape or dtype.
    """
    names = [name for name in like if like.kinds[name] is Kind.TRAINABLE]
    wanted = {f"{_PREFIX}{vector}/{name}": (vector, name) for vector in vectors for name in names}
    if arrays.keys() != wanted.keys():
        wrong = sorted(arrays.keys() ^ wanted.keys())[:5]
        raise UpdateRefused(f"the vectors beside the weights differ from the algorithm's: {', '.join(wrong)}")
    found: dict[str, dict[str, NDArray[Any]]] = {}
    for key, (vector, name) in wanted.items():
        array, expected = arrays[key], like[name]
        if (array.shape, array.dtype) != (expected.shape, expected.dtype):
            raise UpdateRefused(
                f"{vector} of {name!r}: expected {expected.dtype} {list(expected.shape)}, received {array.dtype} {list(array.shape)}"
            )
        found.setdefault(vector, {})[name] = array
    return {vector: Weights(values, like.fingerprint) for vector, values in found.items()}


def received(schema: Schema, arrays: Arrays, kinds: Mapping[str, Kind], frozen: Arrays) -> Weights:
    """Weights of a message; local parameters, which did not travel, are zero.

    Args:
        schema: The schema.
        arrays: What came.
        kinds: What every parameter is in the course.
        frozen: Parameters that came before.

    Raises:
        SchemaError: They do not fit the schema.
    """
    missing = {
        name: np.zeros(schema.by_name[name].shape, schema.by_name[name].dtype)
        for name, kind in kinds.items()
        if kind is Kind.LOCAL and name not in arrays
    }
    return Weights.from_schema(schema, {**missing, **frozen, **arrays}).with_kinds(kinds)
