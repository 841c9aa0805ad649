"""Short random summaries of tensors: small enough to publish, faithful enough to tell two tensors apart.

A count sketch (Charikar, Chen & Farach-Colton 2002): every element gets a random sign and is added into one of
a few buckets. It is linear, so the sketch of a difference is the difference of the sketches, and the norm of
a sketch is the norm of the tensor up to a factor close to one.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from functools import lru_cache
from typing import Any

import numpy as np
from numpy.typing import NDArray

Array = NDArray[Any]

BUCKETS = 64
"""Numbers per sketch; the norm is right within about 18 % (one standard deviation, √(2 / 64))."""


COLUMN = 4
"""Numbers per slice in :func:`columns`."""


_AT_ONCE = BUCKETS << 10
"""Elements that are summed up at once: few enough to stay in the processor's cache."""


def sketch(array: Array) -> Array:
    """The sketch of a tensor: float64 ``[64]``, or the tensor itself if it has no more elements."""
    flat = np.ravel(array)
    return _folded(flat.size, lambda part: flat[part].astype(np.float64))


def sketch_of_change(start: Array, after: Array) -> Array:
    """The sketch of ``after - start``, taken in float64; an infinite value that stays is none that changed."""
    one, two = np.ravel(start), np.ravel(after)

    def change(part: slice) -> Array:
        before, behind = one[part], two[part]
        found: Array = np.zeros(before.shape)
        np.subtract(behind, before, out=found, where=behind != before, dtype=np.float64)
        return found

    return _folded(one.size, change)


def _folded(size: int, of: Callable[[slice], Array]) -> Array:
    """The sketch of a vector that is handed over part by part, float64."""
    if size <= BUCKETS:
        return of(slice(None))
    signs, total = _signs(size), np.zeros(BUCKETS)
    for start in range(0, size, _AT_ONCE):
        part = slice(start, start + _AT_ONCE)
        signed = of(part)
        signed *= signs[part]
        whole = len(signed) // BUCKETS * BUCKETS
        total += signed[:whole].reshape(-1, BUCKETS).sum(axis=0)
        total[: len(signed) - whole] += signed[whole:]
    return total


def columns(array: Array, axis: int) -> Array:
    """A sketch of every slice of a tensor along ``axis``: float32 ``[4, length]``."""
    rows = np.moveaxis(array, axis, -1).reshape(-1, array.shape[axis])
    weights = np.random.Generator(np.random.Philox(key=[len(rows), 8])).standard_normal((COLUMN, len(rows)))
    made: Array = (weights @ rows.astype(np.float64)).astype(np.float32)
    return made


def sketches(arrays: Mapping[str, Array]) -> dict[str, Array]:
    """The sketch of every tensor."""
    return {name: sketch(array) for name, array in arrays.items()}


@lru_cache(maxsize=64)
def _signs(size: int) -> Array:
    bits = np.random.Generator(np.random.Philox(key=[size, 4])).integers(0, 256, -(-size // 8), np.uint8)
    return (np.unpackbits(bits, count=size).astype(np.int8) * 2 - 1).astype(np.int8)
