"""How a silo's update travels: as it is, or as a smaller difference to the weights that it started from.

========  ==========================  ==================================================================
kind      bytes a value               what is sent of every floating-point parameter
========  ==========================  ==================================================================
float32   4                           the weights, bit for bit
bfloat16  2                           the difference, 8 significant bits
float16   2                           the difference, 11 significant bits; at most 65,504
int8      1 and 4 for 1,024 values    the difference in blocks of 1,024, in 1/127 of each block's largest
top-k     8 times ``share``           the largest differences and their places
========  ==========================  ==================================================================

What an encoding leaves out is added to the next difference (error feedback: Karimireddy et al. 2019, arXiv:1901.09847). Integers and frozen
parameters always travel as they are.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Literal, TypeAlias, final

import ml_dtypes
import numpy as np
from numpy.typing import NDArray

from xbackend_fl.canonical import Kind
from xbackend_fl.errors import UpdateRefused
from xbackend_fl.federation.protocol.vectors import shared
from xbackend_fl.weights import Weights

Array = NDArray[Any]
Encoding: TypeAlias = Literal["float32", "bfloat16", "float16", "int8", "top-k"]

_BLOCK = 1024
_LEVELS = 127
_SHORT: Mapping[str, np.dtype[Any]] = {
    "bfloat16": np.dtype(ml_dtypes.bfloat16),
    "float16": np.dtype(np.float16),
}
_VALUES, _SCALES, _PLACES = "values/", "scales/", "places/"


@final
@dataclass(frozen=True)
class Payload:
    """An encoding of updates.

    Attributes:
        kind: Which.
        share: top-k: part of every parameter's values that is sent.
    """

    kind: Encoding = "float32"
    share: float = 0.01


def encode(
    update: Weights, base: Weights, payload: Payload, residual: Mapping[str, Array]
) -> tuple[dict[str, Array], dict[str, Array]]:
    """An update as arrays to send.

    Args:
        update: Weights after training.
        base: Weights before.
        payload: How.
        residual: What earlier encodings left out, by parameter; empty at first.

    Returns:
        Arrays by name, none of a local or frozen parameter; and what this encoding left out.

    Raises:
        UpdateRefused: A value does not fit the encoding.
    """
    if payload.kind == "float32":
        return shared(update), {}
    arrays: dict[str, Array] = {}
    left: dict[str, Array] = {}
    for name, array in shared(update).items():
        if not _shrinks(base, name):
            arrays[name] = array
            continue
        wanted = (array - base[name]).reshape(-1).astype(np.float32, copy=False)
        if name in residual:
            wanted = wanted + residual[name]
        parts = _parts(name, wanted, payload)
        sent = _difference(name, parts, wanted.size, payload)
        if not np.isfinite(sent).all() and np.isfinite(wanted).all():
            raise UpdateRefused(f"parameter {name!r} changed by more than {payload.kind} can hold")
        arrays |= parts
        left[name] = wanted - sent
    return arrays, left


def decode(
    arrays: Mapping[str, Array], base: Weights, payload: Payload, variances: frozenset[str] = frozenset()
) -> Weights:
    """The weights that received arrays stand for; local and frozen parameters are those of the base.

    Args:
        arrays: What came.
        base: Weights that differences are to.
        payload: How they were encoded.
        variances: Parameters of which no value is negative: what rounding, or what was left out before, takes below zero becomes zero.

    Raises:
        UpdateRefused: A name, shape, dtype, scale or place is not what the encoding says.
    """
    sent = shared(base)
    whole = {n for n in sent if payload.kind == "float32" or not _shrinks(base, n)}
    expected = {name: (base[name].shape, base[name].dtype) for name in whole}
    for name in sent.keys() - whole:
        expected |= _expected(name, base[name].size, payload)
    _check(arrays, expected)
    found = {name: array for name, array in base.items() if name not in sent}
    # What is too large becomes infinite, and whoever merges refuses it by name.
    with np.errstate(over="ignore", invalid="ignore"):
        for name in sent:
            if name in whole:
                found[name] = arrays[name]
                continue
            difference = _difference(name, arrays, base[name].size, payload)
            found[name] = base[name] + difference.reshape(base[name].shape).astype(
                base[name].dtype, copy=False
            )
            if name in variances:
                found[name] = np.maximum(found[name], 0)
    return base.like(found)


def _shrinks(base: Weights, name: str) -> bool:
    return base[name].dtype.kind == "f" and base.kinds[name] is not Kind.FROZEN and base[name].size > 0


def _parts(name: str, wanted: Array, payload: Payload) -> dict[str, Array]:
    match payload.kind:
        case "int8":
            blocks = np.zeros((math.ceil(wanted.size / _BLOCK), _BLOCK), np.float32)
            blocks.reshape(-1)[: wanted.size] = wanted
            scales = np.abs(blocks).max(axis=1) / _LEVELS
            steps = np.where(scales > 0, scales, 1)[:, None]
            # A NaN has no integer; its block's scale carries it to the server, which refuses it by name.
            values = np.nan_to_num(np.rint(blocks / steps)).astype(np.int8)
            return {_VALUES + name: values.reshape(-1)[: wanted.size], _SCALES + name: scales}
        case "top-k":
            count = _kept(wanted.size, payload)
            places = np.sort(np.argpartition(np.abs(wanted), wanted.size - count)[-count:])
            return {_PLACES + name: places.astype(np.uint32), _VALUES + name: wanted[places]}
        case _:
            with np.errstate(over="ignore"):
                return {_VALUES + name: wanted.astype(_SHORT[payload.kind])}


def _expected(name: str, size: int, payload: Payload) -> dict[str, tuple[tuple[int, ...], np.dtype[Any]]]:
    single = np.dtype(np.float32)
    match payload.kind:
        case "int8":
            scales = (math.ceil(size / _BLOCK),)
            return {_VALUES + name: ((size,), np.dtype(np.int8)), _SCALES + name: (scales, single)}
        case "top-k":
            count = (_kept(size, payload),)
            return {_PLACES + name: (count, np.dtype(np.uint32)), _VALUES + name: (count, single)}
        case _:
            return {_VALUES + name: ((size,), _SHORT[payload.kind])}


def _check(
    arrays: Mapping[str, Array], expected: Mapping[str, tuple[tuple[int, ...], np.dtype[Any]]]
) -> None:
    if arrays.keys() != expected.keys():
        wrong = sorted(arrays.keys() ^ expected.keys())[:5]
        raise UpdateRefused(f"the update's parameters differ from the schema's: {', '.join(wrong)}")
    for name, array in arrays.items():
        shape, dtype = expected[name]
        if (array.shape, array.dtype) != (shape, dtype):
            raise UpdateRefused(
                f"parameter {name!r}: expected {dtype} {list(shape)}, received {array.dtype} {list(array.shape)}"
            )


def _difference(name: str, arrays: Mapping[str, Array], size: int, payload: Payload) -> Array:
    """The difference that arrays of the right shapes stand for, ``[size]``, float32."""
    values = arrays[_VALUES + name]
    match payload.kind:
        case "int8":
            scales = arrays[_SCALES + name]
            if (scales < 0).any():
                raise UpdateRefused(f"parameter {name!r}: a scale is negative")
            steps: Array = np.repeat(scales, _BLOCK)[:size]
            return values.astype(np.float32) * steps
        case "top-k":
            places = arrays[_PLACES + name]
            if places[-1] >= size or (places[1:] <= places[:-1]).any():
                raise UpdateRefused(f"parameter {name!r}: the places do not increase below {size}")
            difference = np.zeros(size, np.float32)
            difference[places] = values
            return difference
        case _:
            return values.astype(np.float32)


def _kept(size: int, payload: Payload) -> int:
    return max(1, math.ceil(size * payload.share))
