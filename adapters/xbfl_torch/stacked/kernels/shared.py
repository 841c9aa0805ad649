"""Products with one weight that all participants share, both factors parted into float16."""

from __future__ import annotations

import torch
import triton
import triton.language as tl

from xbfl_torch.stacked.kernels.launching import launch
from xbfl_torch.stacked.kernels.parted import halves, power_of

_PARTS = 2
"""Parts of the inner axis of a product."""

_ROWS = 64
"""Examples of a block."""

_SIDE = 64
"""Outputs of a block."""

_INNER = 32
"""Inner length of a block."""


def product(left: torch.Tensor, weight: torch.Tensor, largest: torch.Tensor) -> torch.Tensor:
    """``left [rows, in] @ weight [out, in].T``, of every part of the inner axis by itself: ``[parts, rows, out]``.

    ``largest [out]`` are the largest magnitudes of the weight's rows; the weight may be a turned one.
    """
    (rows, ins), outs = left.shape, len(weight)
    share = triton.cdiv(triton.cdiv(ins, _PARTS), _INNER) * _INNER
    parted, scales = left.new_empty(2, rows, ins, dtype=torch.float16), left.new_empty(rows)
    block = min(triton.next_power_of_2(ins), 4096)
    launch(_part_row, (rows,), left, parted, scales, rows, ins, block, num_warps=8)
    parts = left.new_empty(_PARTS, rows, outs)
    grid = (triton.cdiv(rows, _ROWS), triton.cdiv(outs, _SIDE), _PARTS)
    launch(
        _product, grid, parted, scales, weight, largest, parts, rows, ins, outs, *weight.stride(), share,
        ins % _INNER == 0 and outs % _SIDE == 0, _ROWS, _SIDE, _INNER, num_warps=4, num_stages=4,
    )  # fmt: skip
    return parts


@triton.jit(do_not_specialize=["rows"])
def _part_row(value, parted, scales, rows, width, BLOCK: tl.constexpr):
    row = tl.program_id(0).to(tl.int64)
    i = tl.arange(0, BLOCK)
    largest = tl.zeros([BLOCK], tl.float32)
    for start in range(0, width, BLOCK):
        found = tl.load(value + row * width + start + i, start + i < width, 0.0)
        largest = tl.maximum(largest, tl.abs(found))
    factor, back = power_of(tl.max(largest, 0))
    tl.store(scales + row, back)
    for start in range(0, width, BLOCK):
        found = tl.load(value + row * width + start + i, start + i < width, 0.0)
        high, low = halves(found * factor)
        tl.store(parted + row * width + start + i, high, start + i < width)
        tl.store(parted + (rows + row) * width + start + i, low, start + i < width)


@triton.jit(do_not_specialize=["rows"])
def _product(
    parted, scales, weight, largest, parts, rows, ins, outs, wo, wi, SHARE: tl.constexpr, EVEN: tl.constexpr,
    ROWS: tl.constexpr, SIDE: tl.constexpr, INNER: tl.constexpr,
):  # fmt: skip
    part = tl.program_id(2).to(tl.int64)
    m = (tl.program_id(0) * ROWS + tl.arange(0, ROWS)).to(tl.int64)
    n = (tl.program_id(1) * SIDE + tl.arange(0, SIDE)).to(tl.int64)
    i = tl.arange(0, INNER)
    # The weight is the left factor, which matrix units also take from registers: it may lie either way, and is parted there.
    one, two = weight + n[:, None] * wo + i[None, :] * wi, parted + m[None, :] * ins + i[:, None]
    factor, back = power_of(tl.load(largest + n, n < outs, 0.0))
    apart = tl.cast(rows, tl.int64) * ins
    total = tl.zeros([SIDE, ROWS], tl.float32)
    first = tl.program_id(2) * SHARE
    for start in range(first, tl.minimum(first + SHARE, ins), INNER):
        at = one + tl.cast(start, tl.int64) * wi
        if EVEN:
            near = tl.load(at)
            kept = (m < rows)[None, :]
        else:
            inside = start + i < ins
            near = tl.load(at, (n < outs)[:, None] & inside[None, :], 0.0)
            kept = (m < rows)[None, :] & inside[:, None]
        other, rest = tl.load(two + start, kept, 0.0), tl.load(two + apart + start, kept, 0.0)
        high, low = halves(near * factor[:, None])
        found = tl.dot(low, other)
        found = tl.dot(high, rest, found)
        total += tl.dot(high, other, found)
    total = total * back[:, None] * tl.load(scales + m, m < rows, 0.0)[None, :]
    place = parts + part * rows * outs + m[None, :] * outs + n[:, None]
    tl.store(place, total, (m < rows)[None, :] & (n < outs)[:, None])
