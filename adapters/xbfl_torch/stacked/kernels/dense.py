"""Products with what each participant added to a weight: ``[batch, in] @ columns.T @ rows`` of its own earlier steps.

``columns`` and ``rows`` of all participants lie in one block of memory each, the steps one after the other, in each the participants one after
the other. The number of steps so far is read from the device.
"""

from __future__ import annotations

from typing import NamedTuple

import torch
import triton
import triton.language as tl

from xbfl_torch.stacked.kernels.launching import launch

MAX_ROWS = 64
"""Rows of a participant's batch up to which these kernels are used."""

_NEAR = 32
_WIDE = 64
_SPLITS = 4
_GRAMS = 8


class Past(NamedTuple):
    """Where earlier steps lie.

    Attributes:
        starts: First row of every step.
        number: Steps so far.
        max_rows: Rows that a participant may come to.
    """

    starts: torch.Tensor
    number: torch.Tensor
    max_rows: int


def add_past(
    parts: torch.Tensor,
    bias: torch.Tensor | None,
    left: torch.Tensor,
    near: torch.Tensor,
    far: torch.Tensor,
    past: Past,
) -> torch.Tensor:
    """The sum of parts, of ``bias [participants, out]`` and of ``left [participants, batch, in] @ near.T @ far`` of each one's own rows."""
    count, rows, ins = left.shape
    outs, side = parts.shape[2], _side(rows)
    result = left.new_empty(count, rows, outs)
    blocks = triton.cdiv(past.max_rows, _NEAR)
    share = triton.cdiv(triton.cdiv(ins, _SPLITS), _WIDE) * _WIDE
    scores = left.new_empty(_SPLITS, count, side, blocks * _NEAR)
    launch(
        _scores, (blocks, _SPLITS, count), left, near, past.starts, past.number, scores, count, rows, ins, share,
        blocks * _NEAR, side, _NEAR, _WIDE, num_warps=4,
    )  # fmt: skip
    some = parts if bias is None else bias
    launch(
        _add, (triton.cdiv(outs, _WIDE), count), scores, far, past.starts, past.number, parts, some, some.stride(0), result,
        count, rows, outs, blocks * _NEAR, bias is not None, len(parts), _SPLITS, side, _NEAR, _WIDE, num_warps=4, num_stages=2,
    )  # fmt: skip
    return result


def remember(
    rows: torch.Tensor,
    columns: torch.Tensor,
    left: torch.Tensor,
    right: torch.Tensor,
    scales: torch.Tensor | None,
    active: torch.Tensor,
    lr: torch.Tensor,
    past: Past,
) -> None:
    """Write ``left [participants, batch, out]``, times ``-lr * scales``, as this step's rows, and ``right [participants, batch, in]`` as its columns."""
    count, batch, outs = left.shape
    ins, scaled = right.shape[2], scales is not None
    split = triton.cdiv(outs, 1024)
    launch(
        _remember, (split + triton.cdiv(ins, 1024), batch, count), left, right, rows, columns, scales if scaled else lr,
        active, lr, past.starts, past.number, batch, outs, ins, split, scaled, 1024, num_warps=4,
    )  # fmt: skip


def squared_norms(left: torch.Tensor, right: torch.Tensor) -> torch.Tensor:
    """``|left.T @ right|^2`` of ``[participants, batch, ...]`` without the product: ``sum((left @ left.T) * (right @ right.T))``."""
    count, rows = left.shape[:2]
    side = _side(rows)
    grams = left.new_empty(2, _GRAMS, count, side, side)
    launch(
        _grams, (_GRAMS, count, 2), left, right, grams, count, rows, left.shape[2], right.shape[2], _GRAMS, side, _WIDE,
        num_warps=4,
    )  # fmt: skip
    result = left.new_empty(count)
    launch(_norms, (count,), grams, result, count, _GRAMS, side, num_warps=4)
    return result


def _side(rows: int) -> int:
    return max(16, triton.next_power_of_2(rows))


@triton.jit
def _rows_of(j, good, a, starts, rows):
    """Where a participant's own ``j``-th row lies."""
    return tl.load(starts + j // rows, good, 0) + a * rows + j % rows


@triton.jit(do_not_specialize=["count", "rows"])
def _scores(
    left, near, starts, number, scores, count, rows, ins, share, length,
    SIDE: tl.constexpr, NEAR: tl.constexpr, WIDE: tl.constexpr,
):  # fmt: skip
    split, a = tl.program_id(1), tl.program_id(2).to(tl.int64)
    far = tl.load(number).to(tl.int32) * rows
    first = tl.program_id(0) * NEAR
    if first >= far:
        return
    j, r, i = first + tl.arange(0, NEAR), tl.arange(0, SIDE), tl.arange(0, WIDE)
    own = _rows_of(j, j < far, a, starts, rows)
    total = tl.zeros([SIDE, NEAR], tl.float32)
    for start in range(split * share, tl.minimum((split + 1) * share, ins), WIDE):
        d = start + i
        one = tl.load(
            left + a * rows * ins + r[:, None] * ins + d[None, :],
            (r < rows)[:, None] & (d < ins)[None, :],
            0.0,
        )
        two = tl.load(near + own[None, :] * ins + d[:, None], (j < far)[None, :] & (d < ins)[:, None], 0.0)
        total = tl.dot(one, two, total, input_precision="tf32x3")
    place = scores + ((split * count + a) * SIDE + r[:, None]) * length + j[None, :]
    tl.store(place, total)


@triton.jit(do_not_specialize=["count", "rows"])
def _add(
    scores, rows_, starts, number, parts, bias, ba, result, count, rows, outs, length, BIASED: tl.constexpr,
    PARTS: tl.constexpr, SPLITS: tl.constexpr, SIDE: tl.constexpr, NEAR: tl.constexpr, WIDE: tl.constexpr,
):  # fmt: skip
    a = tl.program_id(1).to(tl.int64)
    far = tl.load(number).to(tl.int32) * rows
    r, n = tl.arange(0, SIDE), tl.program_id(0) * WIDE + tl.arange(0, WIDE)
    good = (r < rows)[:, None] & (n < outs)[None, :]
    place = a * rows * outs + r[:, None] * outs + n[None, :]
    total = tl.zeros([SIDE, WIDE], tl.float32)
    for first in range(0, far, NEAR):
        j = first + tl.arange(0, NEAR)
        own = _rows_of(j, j < far, a, starts, rows)
        score = tl.zeros([SIDE, NEAR], tl.float32)
        for split in tl.static_range(SPLITS):
            score += tl.load(scores + ((split * count + a) * SIDE + r[:, None]) * length + j[None, :])
        value = tl.load(
            rows_ + own[:, None] * outs + n[None, :], (j < far)[:, None] & (n < outs)[None, :], 0.0
        )
        total = tl.dot(score, value, total, input_precision="tf32x3")
    for part in tl.static_range(PARTS):
        total += tl.load(parts + part * (count * rows * outs) + place, good, 0.0)
    if BIASED:
        total += tl.load(bias + a * ba + n, n < outs, 0.0)[None, :]
    tl.store(result + place, total, good)


@triton.jit(do_not_specialize=["batch", "split"])
def _remember(
    left, right, rows, columns, scales, active, lr, starts, number, batch, outs, ins, split,
    SCALED: tl.constexpr, BLOCK: tl.constexpr,
):  # fmt: skip
    a, r, part = tl.program_id(2).to(tl.int64), tl.program_id(1), tl.program_id(0)
    if tl.load(active + a) == 0:
        return
    row = tl.load(starts + tl.load(number)) + a * batch + r
    if part < split:
        i = part * BLOCK + tl.arange(0, BLOCK)
        scale = -tl.load(lr)
        if SCALED:
            scale *= tl.load(scales + a)
        found = tl.load(left + (a * batch + r) * outs + i, i < outs, 0.0)
        tl.store(rows + row * outs + i, found * scale, i < outs)
    else:
        j = (part - split) * BLOCK + tl.arange(0, BLOCK)
        seen = tl.load(right + (a * batch + r) * ins + j, j < ins, 0.0)
        tl.store(columns + row * ins + j, seen, j < ins)


@triton.jit(do_not_specialize=["count", "rows"])
def _grams(
    left, right, grams, count, rows, width, other, PARTS: tl.constexpr, SIDE: tl.constexpr, WIDE: tl.constexpr
):
    """Of two values, in one launch."""
    if tl.program_id(2) == 0:
        _gram(left, grams, count, rows, width, PARTS, SIDE, WIDE)
    else:
        _gram(right, grams + PARTS * count * SIDE * SIDE, count, rows, other, PARTS, SIDE, WIDE)


@triton.jit
def _gram(value, grams, count, rows, width, PARTS: tl.constexpr, SIDE: tl.constexpr, WIDE: tl.constexpr):
    part, a = tl.program_id(0), tl.program_id(1).to(tl.int64)
    share = tl.cdiv(tl.cdiv(width, PARTS), WIDE) * WIDE
    r, i = tl.arange(0, SIDE), tl.arange(0, WIDE)
    total = tl.zeros([SIDE, SIDE], tl.float32)
    for start in range(part * share, tl.minimum((part + 1) * share, width), WIDE):
        d = start + i
        one = tl.load(
            value + (a * rows + r[:, None]) * width + d[None, :],
            (r < rows)[:, None] & (d < width)[None, :],
            0.0,
        )
        two = tl.load(
            value + (a * rows + r[None, :]) * width + d[:, None],
            (r < rows)[None, :] & (d < width)[:, None],
            0.0,
        )
        total = tl.dot(one, two, total, input_precision="tf32x3")
    tl.store(grams + ((part * count + a) * SIDE + r[:, None]) * SIDE + r[None, :], total)


@triton.jit(do_not_specialize=["count"])
def _norms(grams, result, count, PARTS: tl.constexpr, SIDE: tl.constexpr):
    a = tl.program_id(0).to(tl.int64)
    r = tl.arange(0, SIDE)
    at = r[:, None] * SIDE + r[None, :]
    one = tl.zeros([SIDE, SIDE], tl.float32)
    two = tl.zeros([SIDE, SIDE], tl.float32)
    for part in range(PARTS):
        one += tl.load(grams + (part * count + a) * SIDE * SIDE + at)
        two += tl.load(grams + ((PARTS + part) * count + a) * SIDE * SIDE + at)
    total = tl.sum(tl.sum(one * two, 1), 0)
    # As it stands a NaN passes on.
    tl.store(result + a, tl.where(total < 0.0, 0.0, total))
