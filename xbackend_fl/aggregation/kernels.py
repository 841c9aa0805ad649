"""The inner loops of the running mean: one pass over memory, no temporary of the model's size."""

from __future__ import annotations

import functools
import itertools
import operator
import os
from collections.abc import Callable, Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from types import ModuleType
from typing import Any, TypeVar

import numpy as np
from numpy.lib.array_utils import byte_bounds
from numpy.typing import NDArray

Array = NDArray[Any]
Result = TypeVar("Result")

BLOCK = 1 << 18
"""Values per block: the scratch space stays in the processor's cache, and threads seldom wait for Python between two blocks."""

ONE = 1 << 32
"""Fixed point: an exact sum counts units of ``2**-32``."""

_STRIP = 1 << 18
"""Values of the total that BLAS adds several updates to before it goes on. Less makes its threads wait for each other."""

_SEVERAL = 1 << 15
"""Values of the total that a compiled loop adds several updates to before it goes on: they stay in a core's own cache."""

MANY = 1 << 25
"""Values of a model from which compiled loops are worth half a second and 100 MiB for what compiles them."""

_PART = 1 << 21
"""Values of which a thread takes the next part."""

_ROW = 1 << 12
"""Values whose squares are added up: BLAS leaves so few to the thread that asks."""


def _asked() -> int:
    """The threads that ``OMP_NUM_THREADS`` asks for, of whose levels the first one counts; 0 if it asks for none."""
    first = os.environ.get("OMP_NUM_THREADS", "").split(",")[0].strip()
    return int(first) if first.isdecimal() else 0


_THREADS = _asked() or os.cpu_count() or 1


@functools.cache
def _blas(name: str) -> Mapping[str, Callable[..., Any]]:
    """A routine of BLAS for each dtype it has, by the dtype's character; none without SciPy, whose import takes a quarter of a second."""
    try:
        from scipy.linalg import blas  # noqa: PLC0415  who only reads a course or a file needs no sums
    except ModuleNotFoundError:  # NumPy is slower, and always there
        return {}
    return {"f": getattr(blas, f"s{name}"), "d": getattr(blas, f"d{name}")}


@functools.cache
def _compiled() -> ModuleType | None:
    try:
        from xbackend_fl.aggregation import compiled  # noqa: PLC0415  a heavy import that small models do without
    except Exception:  # noqa: BLE001  no Numba, one for other versions of NumPy, or settings that it refuses: the same bits, more slowly
        return None
    return compiled


def _loops(arrays: Sequence[Array | None], *, many: bool) -> ModuleType | None:
    """Compiled loops, where they are worth it, are there, and read such arrays."""
    loops = _compiled() if many else None
    return loops if loops is not None and loops.fit(*(a for a in arrays if a is not None)) else None


def add_scaled(
    total: Array,
    values: Sequence[Array],
    scales: Sequence[int],
    base: Array | None = None,
    *,
    many: bool = False,
) -> None:
    """``total += scale * (value - base)`` for each value in turn, in place, for flat arrays.

    A block of the total stays in the cache until all values are added: ``k`` values read it and write it once instead of ``k``
    times. The bits are those of one value after the other, and the same whether there are ``many`` values in the model: then
    compiled loops add them, if Numba is installed.
    """
    if on_device(total):
        from xbackend_fl.aggregation import device_kernels  # noqa: PLC0415  CuPy is there if an array of its is

        device_kernels.add_scaled(total, values, scales, base)
        return
    same = all(value.dtype == total.dtype for value in values)
    axpy = _blas("axpy").get(total.dtype.char) if base is None and same else None
    if axpy is not None:
        strip = _STRIP if len(values) > 1 else max(1, total.size)
        for start in range(0, total.size, strip):
            sums = total[start : start + strip]
            for value, scale in zip(values, scales, strict=True):
                axpy(value[start : start + strip], sums, sums.size, scale)
        return
    loops = _loops([*values, base], many=many)
    if loops is not None:
        _add_by(loops.add_scaled, total, values, scales, base)
        return

    def run(start: int, stop: int) -> None:
        scratch = np.empty(min(BLOCK, stop - start), total.dtype)
        for part in _blocks(start, stop):
            block = scratch[: part.stop - part.start]
            for value, scale in zip(values, scales, strict=True):
                if base is None:
                    np.multiply(value[part], scale, out=block, dtype=total.dtype)
                else:
                    np.subtract(value[part], base[part], out=block, dtype=total.dtype)
                    np.multiply(block, scale, out=block)
                np.add(total[part], block, out=total[part])

    _by_threads(run, total.size)


def add_fixed(
    total: Array,
    values: Sequence[Array],
    scales: Sequence[int],
    base: Array | None = None,
    *,
    many: bool = False,
) -> None:
    """As :func:`add_scaled`, in units of fixed point, for a total of 64-bit integers.

    Each part of a difference is rounded by itself, so that the order of additions does not matter.
    """
    if on_device(total):
        from xbackend_fl.aggregation import device_kernels  # noqa: PLC0415  CuPy is there if an array of its is

        device_kernels.add_fixed(total, values, scales, base)
        return
    loops = _loops([*values, base], many=many)
    if loops is not None:
        _add_by(loops.add_fixed, total, values, scales, base)
        return

    def run(start: int, stop: int) -> None:
        for part in _blocks(start, stop):
            origin = 0 if base is None else np.rint(base[part].astype(np.float64) * ONE)
            for value, scale in zip(values, scales, strict=True):
                block = (np.rint(value[part].astype(np.float64) * ONE) - origin).astype(np.int64)
                block *= scale
                total[part] += block

    _by_threads(run, total.size)


def _add_by(
    loop: Callable[[Array, Array, int, Array | None], None],
    total: Array,
    values: Sequence[Array],
    scales: Sequence[int],
    base: Array | None,
) -> None:
    """Add values by a compiled loop, by all threads."""

    def run(start: int, stop: int) -> None:
        for part in _blocks(start, stop, _SEVERAL if len(values) > 1 else _PART):
            for value, scale in zip(values, scales, strict=True):
                loop(total[part], value[part], scale, None if base is None else base[part])

    _by_threads(run, total.size)


def add_into(total: Array, value: Array, scale: int, base: Array) -> float | None:
    """``value = total + scale * (value - base)`` for flat arrays of float32, with the bits of :func:`add_scaled`.

    Returns:
        The largest magnitude that ``value`` held, NaN if one was; ``None`` if nothing was done, since Numba is missing or arrays are of another kind.
    """
    loops = _loops([total, value, base], many=True)
    single = all(array.dtype.char == "f" for array in (total, value, base))
    if loops is None or not (single and value.flags.writeable and value.flags.aligned):
        return None

    def run(start: int, stop: int) -> float:
        return float(loops.add_into(total[start:stop], value[start:stop], scale, base[start:stop]))

    return float(np.max(_by_threads(run, total.size), initial=0.0))


def apart(arrays: Sequence[Array]) -> bool:
    """Whether no two arrays have memory in common."""
    bounds = sorted(byte_bounds(array) for array in arrays if array.size)
    return all(before[1] <= after[0] for before, after in itertools.pairwise(bounds))


def divided(totals: Sequence[Array], divisor: float, base: Array | None, dtype: np.dtype[Any]) -> Array:
    """``(totals[0] + totals[1] + …) / divisor + base`` in ``dtype``, rounded after each operation: one pass, by all threads if it is long."""
    if any(on_device(total) or not total.flags.c_contiguous for total in totals):
        mean = functools.reduce(operator.add, totals) / divisor
        if base is not None:
            mean += base
        return mean.astype(dtype, copy=False)
    result = np.empty(totals[0].shape, dtype)
    sums, out = [total.reshape(-1) for total in totals], result.reshape(-1)
    origin = None if base is None else np.ascontiguousarray(base).reshape(-1)

    def run(start: int, stop: int) -> None:
        for part in _blocks(start, stop):
            block = functools.reduce(operator.add, [flat[part] for flat in sums]) / divisor
            if origin is not None:
                block += origin[part]
            out[part] = block

    _by_threads(run, out.size)
    return result


def on_device(array: Array) -> bool:
    """Whether an array is CuPy's: on a GPU."""
    return not isinstance(array, np.ndarray)


def is_finite(array: Array) -> bool:
    """Whether no value is NaN or infinite."""
    return is_within(array, float(np.finfo(array.dtype).max))


def is_within(array: Array, limit: float, *, many: bool = False) -> bool:
    """Whether no value is NaN or larger than ``limit`` in magnitude: one pass, which only a large sum of squares makes two."""
    if on_device(array):
        from xbackend_fl.aggregation import device_kernels  # noqa: PLC0415  CuPy is there if an array of its is

        return device_kernels.is_within(array, limit)
    flat = array.reshape(-1)
    if _loops([flat], many=many) is None and flat.dtype.char in "fd":
        # Nothing squared is larger than the sum of all squares, which is infinite or NaN where a value is.
        ceiling = min(limit * limit, float(np.finfo(flat.dtype).max))
        if all(_by_threads(lambda start, stop: _squares(flat[start:stop]) <= ceiling, flat.size)):
            return True
    return reach(flat, many=many) <= limit


def reach(array: Array, *, many: bool = False) -> float:
    """The largest magnitude; NaN if a value is."""
    if on_device(array):
        return max(abs(float(array.min())), abs(float(array.max())))
    flat = array.reshape(-1)
    loops = _loops([flat], many=many)

    def run(start: int, stop: int) -> float:
        if loops is not None:
            return float(loops.reach(flat[start:stop]))
        found = [0.0]
        with np.errstate(invalid="ignore"):
            for part in _blocks(start, stop):
                found += [abs(float(flat[part].min())), abs(float(flat[part].max()))]
        return float(np.max(found))

    return float(np.max(_by_threads(run, flat.size), initial=0.0))


def _squares(part: Array) -> float:
    """The largest sum of squares of a row of values, by a loop that no thread leaves for Python."""
    whole = part.size // _ROW * _ROW
    rows, rest = part[:whole].reshape(-1, _ROW), part[whole:]
    with np.errstate(over="ignore", invalid="ignore", under="ignore"):
        return float(np.max([np.vecdot(rows, rows).max(initial=0.0), np.vecdot(rest, rest)]))


def _blocks(start: int, stop: int, size: int = 0) -> Iterator[slice]:
    size = size or BLOCK
    for first in range(start, stop, size):
        yield slice(first, min(first + size, stop))


def _by_threads(run: Callable[[int, int], Result], size: int) -> list[Result]:
    """``run(start, stop)`` for parts of so many values, by all threads if there are several."""
    parts = [(start, min(start + _PART, size)) for start in range(0, size, _PART)]
    if len(parts) < 2 or _THREADS == 1:
        return [run(*part) for part in parts]
    return list(_pool().map(lambda part: run(*part), parts))


@functools.cache
def _pool() -> ThreadPoolExecutor:
    return ThreadPoolExecutor(_THREADS, "xbfl-mean")


# A process that is forked has the pool, and none of its threads.
if hasattr(os, "register_at_fork"):
    os.register_at_fork(after_in_child=_pool.cache_clear)
