"""The inner loops of the running mean: one pass over memory, no temporary of the model's size."""

from __future__ import annotations

import functools
import os
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import numpy as np
from numpy.typing import NDArray

Array = NDArray[Any]

BLOCK = 1 << 16
"""Values per block: the scratch space stays in the processor's cache."""

_PART = 1 << 21
_THREADS = int(os.environ.get("OMP_NUM_THREADS", "0")) or os.cpu_count() or 1

try:
    from scipy.linalg import blas
except ModuleNotFoundError:  # NumPy is slower, and always there
    _AXPYS: dict[str, Callable[..., Any]] = {}
else:
    _AXPYS = {"f": blas.saxpy, "d": blas.daxpy}


def add_scaled(total: Array, value: Array, scale: float) -> None:
    """``total += value * scale`` in place, for flat arrays of one dtype.

    BLAS's ``axpy`` if SciPy is there: it runs at the speed of memory with all threads; else NumPy in blocks.
    """
    axpy = _AXPYS.get(total.dtype.char) if total.dtype == value.dtype else None
    if axpy is not None and total.size:
        axpy(value, total, total.size, scale)
        return
    scratch = np.empty(min(BLOCK, total.size), total.dtype)
    for start in range(0, total.size, BLOCK):
        part = slice(start, start + BLOCK)
        block = scratch[: total[part].size]
        np.multiply(value[part], scale, out=block, dtype=total.dtype)
        np.add(total[part], block, out=total[part])


def add_scaled_difference(total: Array, value: Array, base: Array, scale: float) -> None:
    """``total += (value - base) * scale`` in place, for flat arrays."""
    scratch = np.empty(min(BLOCK, total.size), total.dtype)
    for start in range(0, total.size, BLOCK):
        part = slice(start, start + BLOCK)
        block = scratch[: total[part].size]
        np.subtract(value[part], base[part], out=block, dtype=total.dtype)
        np.multiply(block, scale, out=block)
        np.add(total[part], block, out=total[part])


def is_finite(array: Array) -> bool:
    """Whether no value is NaN or infinite: one pass, which only a sum that overflows makes two."""
    flat = array.reshape(-1)
    parts = [flat[start : start + _PART] for start in range(0, flat.size, _PART)]
    if len(parts) == 1 or _THREADS == 1:
        return all(map(_part_is_finite, parts))
    return all(_pool().map(_part_is_finite, parts))


def _part_is_finite(part: Array) -> bool:
    with np.errstate(over="ignore", invalid="ignore"):
        if np.isfinite(np.add.reduce(part)):
            return True
        low, high = part.min(), part.max()
    return bool(np.isfinite(low) and np.isfinite(high))


@functools.cache
def _pool() -> ThreadPoolExecutor:
    return ThreadPoolExecutor(_THREADS, "xbfl-mean")
