"""The inner loops of the running mean on a GPU, in CUDA by CuPy: four values a thread, several updates in one pass."""

from __future__ import annotations

import functools
from collections.abc import Sequence
from typing import Any, final

import cupy
import numpy as np
from numpy.typing import NDArray

Array = NDArray[Any]

_MAX = 4
"""Updates of one pass."""

_LANES = 4
"""Values that a thread reads with one instruction."""

_THREADS = 256
_MAX_BLOCKS = 1 << 20

_WITHIN = """
struct alignas(4 * sizeof(VALUE)) Values { VALUE at[4]; };

extern "C" __global__ void within(const VALUE* values, int* bad, VALUE limit, long long size) {
    const long long step = (long long)gridDim.x * blockDim.x;
    const long long first = (long long)blockIdx.x * blockDim.x + threadIdx.x;
    const long long vectors = WIDE ? size / 4 : 0;
    bool found = false;
    for (long long at = first; at < vectors; at += step) {
        const Values read = reinterpret_cast<const Values*>(values)[at];
        #pragma unroll
        for (int i = 0; i < 4; ++i) found |= !(fabs(read.at[i]) <= limit);
    }
    for (long long at = 4 * vectors + first; at < size; at += step) found |= !(fabs(values[at]) <= limit);
    if (found) *bad = 1;
}
"""

_ADD = """
struct alignas(4 * sizeof(SUM)) Sums { SUM at[4]; };
struct alignas(4 * sizeof(VALUE)) Values { VALUE at[4]; };

__device__ __forceinline__ SUM added(SUM sum, VALUE value, VALUE base, SCALE scale) {
#if FIXED
    // No fused operation rounds differently from the processor: each product is a power of two's.
    const double change = rint((double)value * 4294967296.0) - rint((double)base * 4294967296.0);
    return sum + (SUM)change * scale;
#else
    return ADD(sum, MUL(SUB((SUM)value, (SUM)base), scale));
#endif
}

extern "C" __global__ void add(const SUM* sums, SUM* result, POINTERS SCALES LOOKS long long size) {
    const VALUE* const values[COUNT] = {NAMES};
    const VALUE* const base = BASE;
    const SCALE scales[COUNT] = {FACTORS};
    const long long step = (long long)gridDim.x * blockDim.x;
    const long long first = (long long)blockIdx.x * blockDim.x + threadIdx.x;
    const long long vectors = WIDE ? size / 4 : 0;
#if LOOK
    bool found = false;
#endif
    for (long long at = first; at < vectors; at += step) {
        Values read[COUNT];
        #pragma unroll
        for (int k = 0; k < COUNT; ++k) read[k] = reinterpret_cast<const Values*>(values[k])[at];
        Values origin = {};
        if (base) origin = reinterpret_cast<const Values*>(base)[at];
        Sums sum = reinterpret_cast<const Sums*>(sums)[at];
        #pragma unroll
        for (int k = 0; k < COUNT; ++k) {
            #pragma unroll
            for (int i = 0; i < 4; ++i) sum.at[i] = added(sum.at[i], read[k].at[i], origin.at[i], scales[k]);
        }
        reinterpret_cast<Sums*>(result)[at] = sum;
#if LOOK
        #pragma unroll
        for (int k = 0; k < COUNT; ++k) {
            #pragma unroll
            for (int i = 0; i < 4; ++i) found |= !(fabs(read[k].at[i]) <= largest && read[k].at[i] >= smallest);
        }
#endif
    }
    for (long long at = 4 * vectors + first; at < size; at += step) {
        SUM sum = sums[at];
        #pragma unroll
        for (int k = 0; k < COUNT; ++k) {
            sum = added(sum, values[k][at], base ? base[at] : (VALUE)0, scales[k]);
#if LOOK
            found |= !(fabs(values[k][at]) <= largest && values[k][at] >= smallest);
#endif
        }
        result[at] = sum;
    }
#if LOOK
    if (found) *bad = 1;
#endif
}
"""

_TYPES = {"f": "float", "d": "double", "q": "long long", "l": "long long"}


def add_scaled(
    total: Array, values: Sequence[Array], scales: Sequence[int], base: Array | None = None
) -> None:
    """``total += scale * (value - base)`` in place, for flat CuPy arrays; rounds after each operation, as NumPy does."""
    _add(total, values, [total.dtype.type(scale) for scale in scales], base)


def add_fixed(
    total: Array, values: Sequence[Array], scales: Sequence[int], base: Array | None = None
) -> None:
    """The same in fixed point of ``2**-32``, for a total of 64-bit integers: the bits of the processor's."""
    _add(total, values, [total.dtype.type(scale) for scale in scales], base)


def is_within(array: Array, limit: float) -> bool:
    """Whether no value of a CuPy array is NaN or larger than ``limit`` in magnitude: one pass, without a temporary."""
    flat = _readable(array.reshape(-1))
    bad = cupy.zeros(1, cupy.int32)
    kernel = _within_kernel(flat.dtype.char, wide=_aligned([flat]))
    _launch(kernel, flat.size, (flat, bad, flat.dtype.type(limit)))
    return not int(bad[0])


@final
class Trial:
    """Additions that count once it is known that no value was out of bounds: sums are written beside what they were.

    The look costs no pass of its own, and the host waits once for all arrays: the kernels write what they find into the host's memory.
    """

    def __init__(self) -> None:
        self._pinned = cupy.cuda.alloc_pinned_memory(4)
        self._bad = np.frombuffer(self._pinned, np.int32, 1)
        self._bad[0] = 0

    def add_scaled(
        self,
        total: Array,
        result: Array,
        values: Sequence[Array],
        scales: Sequence[int],
        base: Array | None,
        bounds: tuple[float, float],
    ) -> None:
        """``result = total + scale * (value - base)`` for flat arrays, with the bits of :func:`add_scaled`.

        Args:
            total: The sums, which stay.
            result: The new sums.
            values: What is added.
            scales: How often each is.
            base: What is taken off each; ``None`` for nothing.
            bounds: Least value, and largest magnitude.
        """
        look = (self._pinned.ptr, *bounds)
        _add(total, values, [total.dtype.type(scale) for scale in scales], base, result, look)

    def good(self) -> bool:
        """Whether all values that were added so far are within their bounds; waits for the device."""
        cupy.cuda.get_current_stream().synchronize()
        return not self._bad[0]


def _add(
    total: Array,
    values: Sequence[Array],
    scales: Sequence[Any],
    base: Array | None,
    result: Array | None = None,
    look: tuple[int, float, float] | None = None,
) -> None:
    for start in range(0, len(values), _MAX):
        part = [_readable(value) for value in values[start : start + _MAX]]
        origin = [] if base is None else [_readable(base)]
        out = total if result is None else result
        kernel = _add_kernel(
            total.dtype.char,
            part[0].dtype.char,
            len(part),
            base=bool(origin),
            wide=_aligned([total, out, *part, *origin]),
            look=look is not None,
        )
        bounds = () if look is None else (np.uint64(look[0]), *map(part[0].dtype.type, look[1:]))
        _launch(kernel, total.size, (total, out, *part, *origin, *scales[start : start + _MAX], *bounds))
        total = out


def _launch(kernel: Any, size: int, arguments: tuple[Any, ...]) -> None:
    if size:
        blocks = min(-(-size // (_LANES * _THREADS)), _MAX_BLOCKS)
        kernel((blocks,), (_THREADS,), (*arguments, cupy.int64(size)))


def _readable(array: Array) -> Array:
    """As the kernels read it: half precision as float32."""
    return array if array.dtype.char in "fd" else array.astype("f")


def _aligned(arrays: Sequence[Any]) -> bool:
    return all(array.data.ptr % (_LANES * array.itemsize) == 0 for array in arrays)


@functools.cache
def _within_kernel(value: str, *, wide: bool) -> Any:
    options = (f"-DVALUE={_TYPES[value]}", f"-DWIDE={int(wide)}")
    return cupy.RawKernel(_WITHIN, "within", options=options)


@functools.cache
def _add_kernel(sums: str, value: str, count: int, *, base: bool, wide: bool, look: bool) -> Any:
    """A kernel for these dtypes and so many updates; CuPy compiles it once per device."""
    fixed, single = sums not in "fd", sums == "f"
    names = {
        "SUM": _TYPES[sums],
        "SCALE": _TYPES[sums],
        "VALUE": _TYPES[value],
        "COUNT": str(count),
        "WIDE": str(int(wide)),
        "FIXED": str(int(fixed)),
        "LOOK": str(int(look)),
        "LOOKS": "int* bad, VALUE smallest, VALUE largest," if look else "",
        "ADD": "__fadd_rn" if single else "__dadd_rn",
        "SUB": "__fsub_rn" if single else "__dsub_rn",
        "MUL": "__fmul_rn" if single else "__dmul_rn",
        "POINTERS": " ".join(f"const VALUE* v{k}," for k in range(count))
        + ("const VALUE* origin," if base else ""),
        "BASE": "origin" if base else "nullptr",
        "SCALES": " ".join(f"SCALE s{k}," for k in range(count)),
        "NAMES": ", ".join(f"v{k}" for k in range(count)),
        "FACTORS": ", ".join(f"s{k}" for k in range(count)),
    }
    options = tuple(f"-D{name}={text}" for name, text in names.items())
    return cupy.RawKernel(_ADD, "add", options=options)
