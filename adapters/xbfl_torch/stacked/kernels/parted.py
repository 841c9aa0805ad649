"""Float32 numbers parted into two of float16, 11 significant bits each, and the product of two matrices of them by matrix units.

Float16 lacks range, so numbers are multiplied by powers of two before. The rows of one product are examples of several participants, some of whom may have
far larger inputs, or gradients, than others. So columns are scaled by the largest number of each, which goes out of the sums; what is left of a row's
magnitude goes from the right matrix to the left one, where it says how much the row adds; and a row that adds nothing has no part in any scale.
Last, each block is brought to 2**14 to 2**15, and what is less than 2**-17 of that loses bits below 2**-39 of it. Sums of a block are multiplied
back, and added up, outside of the matrix units, which round towards zero.
"""

from __future__ import annotations

import torch
import triton
import triton.language as tl

from xbfl_torch.stacked.kernels.launching import launch

_INNER = 64
"""Rows of a block."""

_SIDE = 128
"""Columns of a block."""

_CHUNK = 64
"""Columns whose higher parts lie side by side, and behind them the lower ones."""

_SPLITS = 8
"""Parts of the rows that look for the largest of a column."""

LEAST = 2048
"""Rows from which this is as exact as a product of float32, whose sums are one chain, and several times as fast."""


def takes(left: int, right: int) -> bool:
    """Whether matrices of so many columns can be parted, and their product is large enough."""
    return not (left % _CHUNK or right % _CHUNK) and left * right >= 1 << 20


def add_product(
    result: torch.Tensor, left: torch.Tensor, right: torch.Tensor, weights: torch.Tensor, good: torch.Tensor
) -> None:
    """Add ``left.T @ right`` to ``result [columns of left, columns of right]``, of the rows that are ``good``, times ``weights [rows]``.

    ``left`` and ``right`` are parted in the memory they lie in: nothing reads them afterwards.
    """
    used, outs, ins = len(weights), left.shape[1], right.shape[1]
    adds = _largest_of_rows(left, good, weights, None)
    of_right = _largest_of_columns(right, adds, None, None)
    rows = _largest_of_rows(right, adds, None, of_right)
    of_left = _largest_of_columns(left, adds, weights, rows)
    left_scales = _part(left, adds, weights, rows, of_left)
    right_scales = _part(right, adds, None, rows, of_right)
    grid = (triton.cdiv(outs, _SIDE) * triton.cdiv(ins, _SIDE),)
    launch(
        _add_product, grid, left, right, left_scales, right_scales, of_left, of_right, result, used, outs, ins,
        outs % _SIDE == 0, ins % _SIDE == 0, _SIDE, _INNER, _CHUNK, num_warps=8, num_stages=3,
    )  # fmt: skip


def _largest_of_rows(
    value: torch.Tensor, stays: torch.Tensor, weights: torch.Tensor | None, columns: torch.Tensor | None
) -> torch.Tensor:
    """Largest magnitude of each row, ``[rows in use]``: times its weight, and with each column scaled; zero where a row does not stay."""
    used, width = len(stays), value.shape[1]
    result = value.new_empty(used)
    launch(
        _rows, (used,), value, stays, stays if weights is None else weights, stays if columns is None else columns, result,
        width, weights is not None, columns is not None, 1024, num_warps=4,
    )  # fmt: skip
    return result


def _largest_of_columns(
    value: torch.Tensor, stays: torch.Tensor, weights: torch.Tensor | None, rows: torch.Tensor | None
) -> torch.Tensor:
    """Largest magnitude of each column, of the rows that stay; times their weights and what is left of their magnitude."""
    used, width = len(stays), value.shape[1]
    result = value.new_zeros(width)
    launch(
        _columns, (triton.cdiv(width, _CHUNK), _SPLITS), value, stays, stays if weights is None else weights,
        stays if rows is None else rows, result, used, width, triton.cdiv(triton.cdiv(used, _SPLITS), _INNER) * _INNER,
        weights is not None, _INNER, _CHUNK, num_warps=4,
    )  # fmt: skip
    return result


def _part(
    value: torch.Tensor,
    stays: torch.Tensor,
    weights: torch.Tensor | None,
    rows: torch.Tensor,
    columns: torch.Tensor,
) -> torch.Tensor:
    """Part some rows in place; returns what each block is to be multiplied by, ``[blocks of rows, blocks of columns]``."""
    used, width = len(stays), value.shape[1]
    grid = (triton.cdiv(width, _SIDE), triton.cdiv(used, _INNER))
    scales = value.new_empty(*grid[::-1])
    launch(
        _part_block, grid, value, stays, stays if weights is None else weights, rows, columns, scales, used, width,
        weights is not None, _SIDE, _INNER, _CHUNK, num_warps=8,
    )  # fmt: skip
    return scales


@triton.jit
def power_of(largest):
    """Two numbers whose product is one: what brings ``largest`` to 2**14 to 2**15, and what brings it back."""
    bits = tl.minimum(268 - ((largest.to(tl.int32, bitcast=True) >> 23) & 255), 253)
    return (bits << 23).to(tl.float32, bitcast=True), ((254 - bits) << 23).to(tl.float32, bitcast=True)


@triton.jit
def halves(value):
    """A higher and a lower part."""
    high = value.to(tl.float16)
    return high, (value - high.to(tl.float32)).to(tl.float16)


@triton.jit
def _rows(
    value, stays, weights, columns, result, width, WEIGHTED: tl.constexpr, SCALED: tl.constexpr, BLOCK: tl.constexpr
):  # fmt: skip
    k = tl.program_id(0).to(tl.int64)
    if tl.load(stays + k) == 0:
        tl.store(result + k, 0.0)
        return
    largest = tl.zeros([BLOCK], tl.float32)
    for start in range(0, width, BLOCK):
        i = start + tl.arange(0, BLOCK)
        found = tl.load(value + k * width + i, i < width, 0.0)
        if SCALED:
            found *= power_of(tl.load(columns + i, i < width, 0.0))[0]
        largest = tl.maximum(largest, tl.abs(found))
    whole = tl.max(largest, 0)
    if WEIGHTED:
        whole *= tl.abs(tl.load(weights + k))
    tl.store(result + k, whole)


@triton.jit(do_not_specialize=["used", "share"])
def _columns(
    value, stays, weights, rows, result, used, width, share, WEIGHTED: tl.constexpr, INNER: tl.constexpr, CHUNK: tl.constexpr
):  # fmt: skip
    i = tl.program_id(0) * CHUNK + tl.arange(0, CHUNK)
    first = tl.program_id(1) * share
    largest = tl.zeros([INNER, CHUNK], tl.float32)
    for start in range(first, tl.minimum(first + share, used), INNER):
        k = start + tl.arange(0, INNER)
        stay = tl.load(stays + k, k < used, 0) != 0
        place = value + k.to(tl.int64)[:, None] * width + i[None, :]
        found = tl.abs(tl.load(place, stay[:, None] & (i < width)[None, :], 0.0))
        if WEIGHTED:
            found *= (tl.abs(tl.load(weights + k, stay, 0.0)) * power_of(tl.load(rows + k, stay, 0.0))[1])[
                :, None
            ]
        largest = tl.maximum(largest, found)
    # Of numbers that are not negative, bits have the same order; which program is first does not matter.
    whole = tl.max(largest, 0).to(tl.int32, bitcast=True)
    tl.atomic_max(result.to(tl.pointer_type(tl.int32)) + i, whole, i < width)


@triton.jit(do_not_specialize=["used"])
def _part_block(
    value, stays, weights, rows, columns, scales, used, width,
    WEIGHTED: tl.constexpr, SIDE: tl.constexpr, INNER: tl.constexpr, CHUNK: tl.constexpr,
):  # fmt: skip
    k, i = tl.program_id(1) * INNER + tl.arange(0, INNER), tl.program_id(0) * SIDE + tl.arange(0, SIDE)
    stay = tl.load(stays + k, k < used, 0) != 0
    place = value + k.to(tl.int64)[:, None] * width + i[None, :]
    found = tl.load(place, stay[:, None] & (i < width)[None, :], 0.0)
    less, more = power_of(tl.load(rows + k, stay, 0.0))
    column = power_of(tl.load(columns + i, i < width, 0.0))[0]
    if WEIGHTED:
        found = found * (tl.load(weights + k, stay, 0.0) * more)[:, None] * column[None, :]
    else:
        found = found * column[None, :] * less[:, None]
    factor, back = power_of(tl.max(tl.max(tl.abs(found), 1), 0))
    tl.store(scales + tl.program_id(1) * tl.num_programs(0) + tl.program_id(0), back)
    high, low = halves(found * factor)
    # All has been read before anything is written.
    tl.debug_barrier()
    at = value.to(tl.pointer_type(tl.float16)) + _halves_at(k, i, width, CHUNK)
    inside = (k < used)[:, None] & (i < width)[None, :]
    tl.store(at, high, inside)
    tl.store(at + CHUNK, low, inside)


@triton.jit
def _halves_at(k, i, width, CHUNK: tl.constexpr):
    """Where the higher parts of column ``i`` of rows ``k`` lie, in numbers of float16."""
    return k.to(tl.int64)[:, None] * (2 * width) + (i // CHUNK * (2 * CHUNK) + i % CHUNK)[None, :]


@triton.jit(do_not_specialize=["used"])
def _add_product(
    left, right, left_scales, right_scales, of_left, of_right, result, used, outs, ins, EVEN_OUTS: tl.constexpr, EVEN_INS: tl.constexpr,
    SIDE: tl.constexpr, INNER: tl.constexpr, CHUNK: tl.constexpr,
):  # fmt: skip
    high = tl.cdiv(outs, SIDE)
    m, n = tl.program_id(0) % high, tl.program_id(0) // high
    # The last tiles may have half of the columns; they come last, when others are still at work.
    if EVEN_INS or n * SIDE + SIDE <= ins:
        _add_tile(
            left, right, left_scales, right_scales, of_left, of_right, result, used, outs, ins, m, n, EVEN_OUTS, SIDE, SIDE, INNER, CHUNK,
        )  # fmt: skip
    else:
        _add_tile(
            left, right, left_scales, right_scales, of_left, of_right, result, used, outs, ins, m, n, EVEN_OUTS, SIDE, CHUNK, INNER, CHUNK,
        )  # fmt: skip


@triton.jit
def _add_tile(
    left, right, left_scales, right_scales, of_left, of_right, result, used, outs, ins, m, n,
    EVEN: tl.constexpr, SIDE: tl.constexpr, WIDE: tl.constexpr, INNER: tl.constexpr, CHUNK: tl.constexpr,
):  # fmt: skip
    o, i, k = m * SIDE + tl.arange(0, SIDE), n * SIDE + tl.arange(0, WIDE), tl.arange(0, INNER)
    one = left.to(tl.pointer_type(tl.float16)) + _halves_at(k, o, outs, CHUNK)
    two = right.to(tl.pointer_type(tl.float16)) + _halves_at(k, i, ins, CHUNK)
    left_scales, right_scales = left_scales + m, right_scales + n
    total = tl.zeros([SIDE, WIDE], tl.float32)
    for start in range(0, used, INNER):
        near, far = tl.load(left_scales), tl.load(right_scales)
        inside = (start + k < used)[:, None]
        kept = inside if EVEN else inside & (o < outs)[None, :]
        high, low = tl.load(one, kept, 0.0), tl.load(one + CHUNK, kept, 0.0)
        other, rest = tl.load(two, inside, 0.0), tl.load(two + CHUNK, inside, 0.0)
        part = tl.dot(tl.trans(low), other)
        part = tl.dot(tl.trans(high), rest, part)
        part = tl.dot(tl.trans(high), other, part)
        total += part * near * far
        one += tl.cast(outs, tl.int64) * (2 * INNER)
        two += tl.cast(ins, tl.int64) * (2 * INNER)
        left_scales += tl.cdiv(outs, SIDE)
        right_scales += tl.cdiv(ins, SIDE)
    place = result + o.to(tl.int64)[:, None] * ins + i[None, :]
    good = (o < outs)[:, None]
    total *= power_of(tl.load(of_left + o, o < outs, 0.0))[1][:, None]
    total *= power_of(tl.load(of_right + i))[1][None, :]
    tl.store(place, tl.load(place, good, 0.0) + total, good)
