"""Dropout of all participants in one launch; the numbers are those of :func:`xbfl_torch.stacked.dropout.philox`."""

from __future__ import annotations

import torch
import triton
import triton.language as tl

from xbfl_torch.stacked.kernels.launching import launch

_BLOCK = 1024


def dropped(
    value: torch.Tensor,
    seeds: torch.Tensor,
    step: torch.Tensor,
    call: int,
    threshold: int,
    scale: float,
    places: int,
) -> tuple[torch.Tensor, torch.Tensor]:
    """``value [participants, ...]`` times ``scale`` or zero, and which of it stays.

    Args:
        value: Contiguous.
        seeds: Of each participant.
        step: The number of the step, of which the first value is read.
        call: The number of the call.
        threshold: What a number must reach for its value to stay, of 32 bits.
        scale: Of what stays.
        places: So many values in a row have one number.
    """
    result, stays = torch.empty_like(value), torch.empty_like(value, dtype=torch.bool)
    size = value[0].numel()
    launch(
        _dropped, (triton.cdiv(size, _BLOCK), len(value)), value, seeds, seeds.stride(0), step, result, stays, size, call,
        threshold, scale, places, _BLOCK, num_warps=4,
    )  # fmt: skip
    return result, stays


@triton.jit(do_not_specialize=["call", "threshold", "scale"])
def _dropped(
    value, seeds, stride, step, result, stays, size, call, threshold, scale, places: tl.constexpr, BLOCK: tl.constexpr
):  # fmt: skip
    a = tl.program_id(1).to(tl.int64)
    i = tl.program_id(0) * BLOCK + tl.arange(0, BLOCK)
    number = i // places
    zero = tl.zeros([BLOCK], tl.int32)
    when = zero + tl.load(step).to(tl.int32)
    r0, r1, r2, r3 = tl.philox(tl.load(seeds + a * stride), number // 4, when, zero + call, zero)
    lane = number % 4
    bits = tl.where(lane == 0, r0, tl.where(lane == 1, r1, tl.where(lane == 2, r2, r3)))
    keep = bits.to(tl.uint32, bitcast=True).to(tl.int64) >= threshold.to(tl.int64)
    at = a * size + i
    read = tl.load(value + at, i < size, 0.0)
    tl.store(result + at, tl.where(keep, read * scale, 0.0), i < size)
    tl.store(stays + at, keep, i < size)
