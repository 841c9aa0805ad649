"""Clipping and a step of SGD on the rows of all participants."""

from __future__ import annotations

from collections.abc import Sequence
from itertools import accumulate

import torch
import triton
import triton.language as tl

from xbfl_torch.stacked.kernels.launching import launch

_PART = 4096
_BLOCK = 1024

MAX_JOINED = 32
"""Tensors that one kernel puts side by side: for so many it takes a second to compile."""


def joined(parts: Sequence[torch.Tensor], starts: Sequence[int], width: int) -> torch.Tensor:
    """Parts ``[participants, values]``, each where it starts, with zeros up to the next: ``[participants, width]``.

    ``torch.cat`` takes six times as long where parts are as different in size as a convolution's weight and its bias.
    """
    count, ends = len(parts[0]), (*starts[1:], width)
    result = parts[0].new_empty(count, width)
    blocks = [triton.cdiv(end - start, _BLOCK) for start, end in zip(starts, ends, strict=True)]
    sizes = tuple(part.shape[1] for part in parts)
    launch(
        _joined, (sum(blocks), count), tuple(part.contiguous() for part in parts), result,
        sizes, (*starts, width), tuple(accumulate(blocks, initial=0)), _BLOCK, num_warps=4,
    )  # fmt: skip
    return result


def squares(gradients: torch.Tensor) -> torch.Tensor:
    """Sums of the squares of parts of rows ``[participants, values]``: ``[participants, parts]``."""
    count, width = gradients.shape
    parts = triton.cdiv(width, _PART)
    result = gradients.new_empty(count, parts)
    launch(_squares, (parts, count), gradients, result, width, parts, _PART, _BLOCK, num_warps=4)
    return result


def clip_scales(parts: torch.Tensor, others: Sequence[torch.Tensor], limit: float) -> torch.Tensor:
    """``min(1, limit / (norm + 1e-6))`` of every participant, by sums of squares ``[participants, parts]``, and others ``[participants]``."""
    count, number = parts.shape
    result = parts.new_empty(count)
    laid = tuple(other.contiguous() for other in others)
    launch(_scales, (count,), parts, laid, result, number, limit, triton.next_power_of_2(number), num_warps=1)
    return result


def descend(
    values: torch.Tensor,
    gradients: torch.Tensor,
    scales: torch.Tensor | None,
    active: torch.Tensor,
    lr: torch.Tensor,
    weight_decay: float,
) -> None:
    """``values -= lr * (scales * gradients + weight_decay * values)`` of those that are active."""
    count, width = gradients.shape
    scaled = scales is not None
    launch(
        _descend, (triton.cdiv(width, _BLOCK), count), values, gradients, scales if scaled else lr, active, lr,
        width, values.stride(0), weight_decay, scaled, _BLOCK, num_warps=4, enable_fp_fusion=False,
    )  # fmt: skip


@triton.jit
def _joined(
    parts, result, SIZES: tl.constexpr, STARTS: tl.constexpr, BLOCKS: tl.constexpr, BLOCK: tl.constexpr
):
    block, a = tl.program_id(0), tl.program_id(1).to(tl.int64)
    for k in tl.static_range(len(SIZES)):
        if (block >= BLOCKS[k]) & (block < BLOCKS[k + 1]):
            i = (block - BLOCKS[k]) * BLOCK + tl.arange(0, BLOCK)
            value = tl.load(parts[k] + a * SIZES[k] + i, i < SIZES[k], 0.0)
            tl.store(result + a * STARTS[len(SIZES)] + STARTS[k] + i, value, i < STARTS[k + 1] - STARTS[k])


@triton.jit(do_not_specialize=["parts"])
def _squares(gradients, result, width, parts, PART: tl.constexpr, BLOCK: tl.constexpr):
    part, a = tl.program_id(0), tl.program_id(1).to(tl.int64)
    total = tl.zeros([BLOCK], tl.float32)
    for start in range(0, PART, BLOCK):
        i = part * PART + start + tl.arange(0, BLOCK)
        value = tl.load(gradients + a * width + i, i < width, 0.0)
        total += value * value
    tl.store(result + a * parts + part, tl.sum(total, 0))


@triton.jit(do_not_specialize=["number"])
def _scales(parts, others, result, number, limit, NUMBER: tl.constexpr):
    a = tl.program_id(0).to(tl.int64)
    i = tl.arange(0, NUMBER)
    square = tl.sum(tl.load(parts + a * number + i, i < number, 0.0), 0)
    for k in tl.static_range(len(others)):
        square += tl.load(others[k] + a)
    norm = tl.sqrt(square)
    scale = limit / (norm + 1e-6)
    # As it stands a NaN passes on.
    tl.store(result + a, tl.where(scale > 1.0, 1.0, scale))


@triton.jit(do_not_specialize=["weight_decay"])
def _descend(
    values, gradients, scales, active, lr, width, stride, weight_decay, SCALED: tl.constexpr, BLOCK: tl.constexpr
):  # fmt: skip
    a = tl.program_id(1).to(tl.int64)
    if tl.load(active + a) == 0:
        return
    i = tl.program_id(0) * BLOCK + tl.arange(0, BLOCK)
    grad = tl.load(gradients + a * width + i, i < width, 0.0)
    if SCALED:
        grad = grad * tl.load(scales + a)
    value = tl.load(values + a * stride + i, i < width, 0.0)
    tl.store(values + a * stride + i, value - tl.load(lr) * (grad + weight_decay * value), i < width)
