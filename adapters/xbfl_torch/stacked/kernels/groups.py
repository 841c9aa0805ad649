"""Group normalisation of images that lie channels last: ``[participants, batch, places, channels]``, each participant with its own weights."""

from __future__ import annotations

import torch
import triton
import triton.language as tl

from xbfl_torch.stacked.kernels.launching import launch

_BLOCK, _MAX_BLOCK = 4096, 8192
"""Values of a block, and at most: where images are large it may hold one."""

_MIN_WIDE, _MAX_WIDE = 8, 32
"""Channels of a block: 32 bytes, and so few that there are enough blocks."""


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
    rows, wide, warps = _sizes(places, channels, groups)
    launch(
        _forward, (batch, triton.cdiv(channels, wide), count), value, weight, bias, weight.stride(0), bias.stride(0), result, moments,
        batch, places, eps, channels, channels // groups, wide, rows, places <= rows, num_warps=warps,
    )  # fmt: skip
    return result, moments


def backward(
    grad: torch.Tensor,
    value: torch.Tensor,
    weight: torch.Tensor,
    bias: torch.Tensor,
    moments: torch.Tensor,
    groups: int,
    *,
    rectified: bool = False,
) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
    """Gradients of the value, the weight and the bias; ``grad`` is of what was rectified after that, if it was."""
    count, batch, places, channels = value.shape
    below, sums = torch.empty_like(value), value.new_empty(2, count, batch, channels)
    rows, wide, warps = _sizes(places, channels, groups)
    launch(
        _backward, (batch, triton.cdiv(channels, wide), count), grad, value, weight, weight.stride(0), bias, bias.stride(0), moments, below, sums,
        count, batch, places, rectified, channels, channels // groups, wide, rows, places <= rows, num_warps=warps,
    )  # fmt: skip
    slope, shift = sums.sum(2)
    return below, slope, shift


def _sizes(places: int, channels: int, groups: int) -> tuple[int, int, int]:
    """Rows and channels of a block, which may hold all rows, and warps.

    Whole groups side by side, 8 channels of them at least: memory is read 32 bytes at a time, and each of these by one program only.
    """
    rows = max(16, triton.next_power_of_2(places))
    wide = min(triton.next_power_of_2(channels), max(_MIN_WIDE, min(_MAX_WIDE, _BLOCK // rows)))
    wide = max(channels // groups, wide)
    rows = max(16, min(rows, _MAX_BLOCK // wide))
    return rows, wide, 8 if rows * wide > _BLOCK else 4


@triton.jit
def _of_groups(value, WIDE: tl.constexpr, GROUP: tl.constexpr):
    """The sum over the channels of each group, for every channel of it."""
    if GROUP == 1:
        return value
    parts = tl.sum(tl.reshape(value, [WIDE // GROUP, GROUP]), 1)
    return tl.reshape(tl.broadcast_to(parts[:, None], [WIDE // GROUP, GROUP]), [WIDE])


@triton.jit
def _block(held, place, good, HELD: tl.constexpr):
    return held if HELD else tl.load(place, good, 0.0)


@triton.jit(do_not_specialize=["batch", "places", "eps"])
def _forward(
    value, weight, bias, wa, ba, result, moments, batch, places, eps,
    CHANNELS: tl.constexpr, GROUP: tl.constexpr, WIDE: tl.constexpr, ROWS: tl.constexpr, HELD: tl.constexpr,
):  # fmt: skip
    image = tl.program_id(2).to(tl.int64) * batch + tl.program_id(0)
    a = tl.program_id(2).to(tl.int64)
    c, r = tl.program_id(1) * WIDE + tl.arange(0, WIDE), tl.arange(0, ROWS)
    value += image * places * CHANNELS
    result += image * places * CHANNELS
    at = r[:, None] * CHANNELS + c[None, :]
    # A block that holds all rows is read once.
    end = ROWS if HELD else places
    held = tl.load(value + at, (r < places)[:, None] & (c < CHANNELS)[None, :], 0.0)
    total = tl.zeros([ROWS, WIDE], tl.float32)
    for first in range(0, end, ROWS):
        good = (first + r < places)[:, None] & (c < CHANNELS)[None, :]
        total += _block(held, value + first * CHANNELS + at, good, HELD)
    number = (places * GROUP).to(tl.float32)
    mean = _of_groups(tl.sum(total, 0), WIDE, GROUP) / number
    total = tl.zeros([ROWS, WIDE], tl.float32)
    for first in range(0, end, ROWS):
        good = (first + r < places)[:, None] & (c < CHANNELS)[None, :]
        off = _block(held, value + first * CHANNELS + at, good, HELD) - mean[None, :]
        total += tl.where(good, off * off, 0.0)
    scale = 1.0 / tl.sqrt(_of_groups(tl.sum(total, 0), WIDE, GROUP) / number + eps)
    slope = tl.load(weight + a * wa + c, c < CHANNELS, 0.0) * scale
    shift = tl.load(bias + a * ba + c, c < CHANNELS, 0.0)
    for first in range(0, end, ROWS):
        good = (first + r < places)[:, None] & (c < CHANNELS)[None, :]
        off = _block(held, value + first * CHANNELS + at, good, HELD) - mean[None, :]
        tl.store(result + first * CHANNELS + at, off * slope[None, :] + shift[None, :], good)
    place = moments + (image * (CHANNELS // GROUP) + c // GROUP) * 2
    one = (c % GROUP == 0) & (c < CHANNELS)
    tl.store(place, mean, one)
    tl.store(place + 1, scale, one)


@triton.jit(do_not_specialize=["count", "batch", "places"])
def _backward(
    grad, value, weight, wa, bias, ba, moments, below, sums, count, batch, places, RECTIFIED: tl.constexpr,
    CHANNELS: tl.constexpr, GROUP: tl.constexpr, WIDE: tl.constexpr, ROWS: tl.constexpr, HELD: tl.constexpr,
):  # fmt: skip
    image = tl.program_id(2).to(tl.int64) * batch + tl.program_id(0)
    a = tl.program_id(2).to(tl.int64)
    c, r = tl.program_id(1) * WIDE + tl.arange(0, WIDE), tl.arange(0, ROWS)
    value += image * places * CHANNELS
    grad += image * places * CHANNELS
    below += image * places * CHANNELS
    place = moments + (image * (CHANNELS // GROUP) + c // GROUP) * 2
    mean, scale = tl.load(place, c < CHANNELS, 0.0), tl.load(place + 1, c < CHANNELS, 0.0)
    w, s = tl.load(weight + a * wa + c, c < CHANNELS, 0.0), tl.load(bias + a * ba + c, c < CHANNELS, 0.0)
    at = r[:, None] * CHANNELS + c[None, :]
    good = (r < places)[:, None] & (c < CHANNELS)[None, :]
    end, held, above = ROWS if HELD else places, tl.load(value + at, good, 0.0), tl.load(grad + at, good, 0.0)
    shift = tl.zeros([ROWS, WIDE], tl.float32)
    slope = tl.zeros([ROWS, WIDE], tl.float32)
    for first in range(0, end, ROWS):
        good = (first + r < places)[:, None] & (c < CHANNELS)[None, :]
        off = _block(held, value + first * CHANNELS + at, good, HELD) - mean[None, :]
        d = _block(above, grad + first * CHANNELS + at, good, HELD)
        if RECTIFIED:
            d = tl.where(off * (w * scale)[None, :] + s[None, :] <= 0.0, 0.0, d)  # a NaN passes on
        shift += d
        slope += d * (off * scale[None, :])
    of_bias, of_weight = tl.sum(shift, 0), tl.sum(slope, 0)
    out = sums + image * CHANNELS + c
    number = (places * GROUP).to(tl.float32)
    flat = _of_groups(of_bias * w, WIDE, GROUP) / number
    steep = _of_groups(of_weight * w, WIDE, GROUP) / number
    for first in range(0, end, ROWS):
        good = (first + r < places)[:, None] & (c < CHANNELS)[None, :]
        off = _block(held, value + first * CHANNELS + at, good, HELD) - mean[None, :]
        d = _block(above, grad + first * CHANNELS + at, good, HELD)
        if RECTIFIED:
            d = tl.where(off * (w * scale)[None, :] + s[None, :] <= 0.0, 0.0, d)
        now = (d * w[None, :] - flat[None, :] - off * scale[None, :] * steep[None, :]) * scale[None, :]
        tl.store(below + first * CHANNELS + at, now, good)
    tl.store(out, of_weight, c < CHANNELS)
    tl.store(out + count.to(tl.int64) * batch * CHANNELS, of_bias, c < CHANNELS)
