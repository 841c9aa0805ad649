"""Group normalisation of images that lie channels last: ``[participants, batch, places, channels]``, each participant with its own weights."""

from __future__ import annotations

import torch
import triton
import triton.language as tl

from xbfl_torch.stacked.kernels.launching import launch


def fits(channels: int, groups: int) -> bool:
    """Whether the channels of one group are a block."""
    wide = channels // groups
    return wide == triton.next_power_of_2(wide) and channels <= 512


def forward(
    value: torch.Tensor, weight: torch.Tensor, bias: torch.Tensor, groups: int, eps: float
) -> tuple[torch.Tensor, torch.Tensor]:
    """The result, and means and scales ``[participants, batch, groups, 2]``."""
    count, batch, places, channels = value.shape
    result, moments = torch.empty_like(value), value.new_empty(count, batch, groups, 2)
    launch(
        _forward, (batch * groups, count), value, weight, bias, weight.stride(0), bias.stride(0), result, moments, batch, places, eps,
        groups, channels // groups, max(16, 1024 // (channels // groups)), num_warps=4,
    )  # fmt: skip
    return result, moments


def backward(
    grad: torch.Tensor, value: torch.Tensor, weight: torch.Tensor, moments: torch.Tensor, groups: int
) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
    """Gradients of the value, the weight and the bias."""
    count, batch, places, channels = value.shape
    below, sums = torch.empty_like(value), value.new_empty(2, count, batch, channels)
    launch(
        _backward, (batch * groups, count), grad, value, weight, weight.stride(0), moments, below, sums, count, batch, places,
        groups, channels // groups, max(16, 1024 // (channels // groups)), num_warps=4,
    )  # fmt: skip
    slope, shift = sums.sum(2)
    return below, slope, shift


@triton.jit(do_not_specialize=["batch", "places", "eps"])
def _forward(
    value, weight, bias, wa, ba, result, moments, batch, places, eps,
    GROUPS: tl.constexpr, WIDE: tl.constexpr, ROWS: tl.constexpr,
):  # fmt: skip
    b, g = tl.program_id(0) // GROUPS, tl.program_id(0) % GROUPS
    a = tl.program_id(1).to(tl.int64)
    c, r = g * WIDE + tl.arange(0, WIDE), tl.arange(0, ROWS)
    origin = (a * batch + b) * places * (GROUPS * WIDE) + c[None, :]
    total = tl.zeros([ROWS, WIDE], tl.float32)
    for first in range(0, places, ROWS):
        m = (first + r)[:, None]
        total += tl.load(value + origin + m * (GROUPS * WIDE), m < places, 0.0)
    number = (places * WIDE).to(tl.float32)
    mean = tl.sum(tl.sum(total, 1), 0) / number
    total = tl.zeros([ROWS, WIDE], tl.float32)
    for first in range(0, places, ROWS):
        m = (first + r)[:, None]
        off = tl.load(value + origin + m * (GROUPS * WIDE), m < places, 0.0) - mean
        total += tl.where(m < places, off * off, 0.0)
    scale = 1.0 / tl.sqrt(tl.sum(tl.sum(total, 1), 0) / number + eps)
    place = moments + ((a * batch + b) * GROUPS + g) * 2
    tl.store(place, mean)
    tl.store(place + 1, scale)
    slope = tl.load(weight + a * wa + c)[None, :] * scale
    shift = tl.load(bias + a * ba + c)[None, :]
    for first in range(0, places, ROWS):
        m = (first + r)[:, None]
        at = origin + m * (GROUPS * WIDE)
        now = (tl.load(value + at, m < places, 0.0) - mean) * slope + shift
        tl.store(result + at, now, m < places)


@triton.jit(do_not_specialize=["count", "batch", "places"])
def _backward(
    grad, value, weight, wa, moments, below, sums, count, batch, places,
    GROUPS: tl.constexpr, WIDE: tl.constexpr, ROWS: tl.constexpr,
):  # fmt: skip
    b, g = tl.program_id(0) // GROUPS, tl.program_id(0) % GROUPS
    a = tl.program_id(1).to(tl.int64)
    c, r = g * WIDE + tl.arange(0, WIDE), tl.arange(0, ROWS)
    origin = (a * batch + b) * places * (GROUPS * WIDE) + c[None, :]
    place = moments + ((a * batch + b) * GROUPS + g) * 2
    mean, scale = tl.load(place), tl.load(place + 1)
    shift = tl.zeros([ROWS, WIDE], tl.float32)
    slope = tl.zeros([ROWS, WIDE], tl.float32)
    for first in range(0, places, ROWS):
        m = (first + r)[:, None]
        at = origin + m * (GROUPS * WIDE)
        d = tl.load(grad + at, m < places, 0.0)
        shift += d
        slope += d * (tl.load(value + at, m < places, 0.0) - mean) * scale
    of_bias, of_weight = tl.sum(shift, 0), tl.sum(slope, 0)
    out = sums + (a * batch + b) * (GROUPS * WIDE) + c
    tl.store(out, of_weight)
    tl.store(out + count * batch * (GROUPS * WIDE), of_bias)
    w = tl.load(weight + a * wa + c)
    number = (places * WIDE).to(tl.float32)
    flat = tl.sum(of_bias * w, 0) / number
    steep = tl.sum(of_weight * w, 0) / number
    for first in range(0, places, ROWS):
        m = (first + r)[:, None]
        at = origin + m * (GROUPS * WIDE)
        normal = (tl.load(value + at, m < places, 0.0) - mean) * scale
        now = (tl.load(grad + at, m < places, 0.0) * w[None, :] - flat - normal * steep) * scale
        tl.store(below + at, now, m < places)
