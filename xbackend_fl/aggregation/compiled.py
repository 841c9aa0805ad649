"""The inner loops of the running mean on a processor, compiled by Numba: one pass each, without scratch space.

Every operation rounds by itself, none is contracted to a fused multiply-add, so that bits are those of NumPy.
"""

from __future__ import annotations

import functools
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numba
import numpy as np
from filelock import FileLock
from numba import types
from numpy.typing import NDArray

if numba.config.DISABLE_JIT:
    raise ImportError("Numba is told to compile nothing (NUMBA_DISABLE_JIT)")

Array = NDArray[Any]
Loop = Callable[..., Any]

_PATIENCE_S = 60.0
"""How long a process waits for another that compiles the same loop, before it does so for itself alone."""

_CHUNK = 1 << 10
"""Values that stay in the processor's first cache between two loops over them."""

_NARROW = float(1 << 17)
"""Magnitude of values, times their scale, below which differences in units of fixed point are less than ``2**51``."""

_SHIFT = 1.5 * 2.0**52
"""Added to an integer below ``2**51`` that a float64 holds, leaves that integer in the low bits: no processor before AVX-512 converts several at once."""

_SHIFT_BITS = np.float64(_SHIFT).view(np.int64)
_ONE = float(1 << 32)

_TYPES = {
    "f": types.float32,
    "d": types.float64,
    "l": types.int64,
    "q": types.int64,
    "I": types.uint32,
    "L": types.uint64,
}
_BITS = {"f": ("I", 0x7FFFFFFF), "d": ("L", 0x7FFFFFFFFFFFFFFF)}
"""By dtype: unsigned integers of its size, and all bits of one but the sign's."""


def fit(*arrays: Array) -> bool:
    """Whether the loops can read arrays: flat, contiguous, of float32 or float64 as this machine writes them."""
    return all(a.dtype.char in "fd" and a.dtype.isnative and a.flags.c_contiguous for a in arrays)


def reach(values: Array) -> float:
    """The largest magnitude; NaN if a value is."""
    kind, mask = _BITS[values.dtype.char]
    bits = np.dtype(kind).type
    return float(bits(_reaching(kind)(values.view(bits), bits(mask))).view(values.dtype))


def add_scaled(total: Array, value: Array, scale: int, base: Array | None) -> None:
    """``total += scale * (value - base)``."""
    _loop(_add_scaled, total, value, base)(total, value, total.dtype.type(scale), base)


def add_into(total: Array, value: Array, scale: int, base: Array) -> float:
    """``value = total + scale * (value - base)``, all of float32, and the largest magnitude that ``value`` held."""
    kind, mask = _BITS["f"]
    loop = _compiled_into()
    found = loop(total, value, np.float32(scale), base, np.dtype(kind).type(mask))
    return float(np.uint32(found).view(np.float32))


def add_fixed(total: Array, value: Array, scale: int, base: Array | None) -> None:
    """The same in fixed point of ``2**-32``, for a total of 64-bit integers. No value is too large for it."""
    _loop(_add_fixed, total, value, base)(total, value, np.int64(scale), base)


def _loop(function: Loop, total: Array, value: Array, base: Array | None) -> Loop:
    return _adding(function, total.dtype.char, value.dtype.char, "" if base is None else base.dtype.char)


@functools.cache
def _adding(function: Loop, total: str, value: str, base: str) -> Loop:
    return _compiled(function, *_signature(total, value, base))


def _signature(total: str, value: str, base: str) -> tuple[Any, ...]:
    kind = _TYPES[total]
    return kind[::1], _read(value), kind, _read(base) if base else types.none


@functools.cache
def _compiled_into() -> Loop:
    return _compiled(_add_into, _read("f"), _TYPES["f"][::1], _TYPES["f"], _read("f"), _TYPES[_BITS["f"][0]])


@functools.cache
def _reaching(bits: str) -> Loop:
    return _compiled(_reach, _read(bits), _TYPES[bits])


def _reach(values: Any, mask: Any) -> Any:
    # Without their signs, magnitudes are in the order of their bits, and NaN is above infinity. One stream alone does not keep the memory busy.
    quarter = values.size // 4
    kind = values.dtype.type  # of two integers Numba makes one of 64 bits
    a = b = c = d = kind(0)
    for i in range(quarter):
        a = max(a, kind(values[i] & mask))
        b = max(b, kind(values[quarter + i] & mask))
        c = max(c, kind(values[2 * quarter + i] & mask))
        d = max(d, kind(values[3 * quarter + i] & mask))
    for i in range(4 * quarter, values.size):
        a = max(a, kind(values[i] & mask))
    return max(a, b, c, d)


def _add_scaled(total: Any, value: Any, scale: Any, base: Any) -> None:
    kind = total.dtype.type
    for i in range(total.size):
        if base is None:
            total[i] += scale * kind(value[i])
        else:
            total[i] += scale * (kind(value[i]) - kind(base[i]))


def _add_into(total: Any, value: Any, scale: Any, base: Any, mask: Any) -> Any:
    found = np.uint32(0)
    for i in range(value.size):
        one = value[i]
        found = max(found, np.uint32(np.float32(one).view(np.uint32) & mask))
        value[i] = total[i] + scale * (one - base[i])
    return found


def _add_fixed(total: Any, value: Any, scale: Any, base: Any) -> None:
    times = np.float64(scale)
    narrow = np.float32(_NARROW / times)
    for start in range(0, total.size, _CHUNK):
        sums, new = total[start : start + _CHUNK], value[start : start + _CHUNK]
        old = new if base is None else base[start : start + _CHUNK]
        wide = False
        for i in range(sums.size):
            wide |= abs(new[i]) >= narrow
            if base is not None:
                wide |= abs(old[i]) >= narrow
        for i in range(sums.size if wide else 0):
            change = np.rint(np.float64(new[i]) * _ONE)
            if base is not None:
                change -= np.rint(np.float64(old[i]) * _ONE)
            sums[i] += scale * np.int64(change)
        for i in range(0 if wide else sums.size):
            change = np.float64(new[i]) * _ONE + _SHIFT
            change -= _SHIFT if base is None else np.float64(old[i]) * _ONE + _SHIFT
            sums[i] += np.float64(change * times + _SHIFT).view(np.int64) - _SHIFT_BITS


def _read(kind: str) -> Any:
    """An array that is only read, and may lie anywhere in memory."""
    return types.Array(_TYPES[kind], 1, "C", readonly=True, aligned=False)


def _compiled(function: Loop, *signature: Any) -> Loop:
    """A loop for these types: compiled once a machine where a folder can be written, and else once a process."""
    try:
        loop = _dispatcher(function, cache=True)
        with FileLock(Path(loop.stats.cache_path) / "xbackend-fl.lock", timeout=_PATIENCE_S):
            loop.compile(signature)
    except Exception:  # noqa: BLE001  whatever is wrong with what is kept, the loop does not need it
        loop = _dispatcher(function, cache=False)
        loop.compile(signature)
    loop.disable_compile()
    compiled: Loop = loop
    return compiled


def _dispatcher(function: Loop, *, cache: bool) -> Any:
    return numba.njit(nogil=True, error_model="numpy", fastmath=False, cache=cache)(function)
