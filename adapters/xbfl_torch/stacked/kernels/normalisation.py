"""Batch normalisation with every participant's own statistics; arrays are ``[participants, batch * places, channels]``.

A participant's first ``counts`` examples count. Statistics of parts are merged by Chan's formula: no difference of large sums is taken.
"""

from __future__ import annotations

from typing import NamedTuple

import torch
import triton
import triton.language as tl

from xbfl_torch.stacked.kernels.launching import launch
from xbfl_torch.stacked.kernels.pooling import window_of

_BLOCK = 4096
"""Values of a block."""

_MAX_PARTS = 32


class Pooled(NamedTuple):
    """How images of a height and width were pooled after they were normalised; vertical first.

    Attributes:
        chosen: Which place of each window is the largest, channels last.
        height: Of an image.
        width: The same.
        down: Places of a window.
        right: The same.
    """

    chosen: torch.Tensor
    height: int
    width: int
    down: int
    right: int


def forward(
    value: torch.Tensor,
    weight: torch.Tensor | None,
    bias: torch.Tensor | None,
    counts: torch.Tensor,
    places: int,
    eps: float,
) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
    """The result, and means and biased variances ``[participants, channels]``."""
    count, rows, channels = value.shape
    part, tile, wide = _sizes(rows, channels, _BLOCK)
    parts, blocks = triton.cdiv(rows, part), triton.cdiv(channels, wide)
    moments = value.new_empty(count, parts, 2, channels)
    launch(
        _moments, (parts, blocks, count), value, counts, moments, rows, channels, places, parts, part, tile, wide, num_warps=4
    )  # fmt: skip
    result, mean, variance = torch.empty_like(value), *value.new_empty(2, count, channels)
    some = mean if weight is None else weight
    other = mean if bias is None else bias
    launch(
        _normalise, (triton.cdiv(rows, tile), blocks, count), value, counts, moments, some, other, some.stride(0), other.stride(0),
        result, mean, variance, rows, channels, places, parts, eps,
        weight is not None, bias is not None, part, _MAX_PARTS, tile, wide, num_warps=4,
    )  # fmt: skip
    return result, mean, variance


def backward(
    grad: torch.Tensor,
    value: torch.Tensor,
    mean: torch.Tensor,
    variance: torch.Tensor,
    weight: torch.Tensor | None,
    bias: torch.Tensor | None,
    counts: torch.Tensor,
    places: int,
    eps: float,
    *,
    rectified: bool = False,
    pooled: Pooled | None = None,
) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
    """Gradients of the value, the weight and the bias; ``grad`` is of what was rectified, and pooled, after that, if it was."""
    count, rows, channels = value.shape
    images = rows // places
    chosen, height, width, down, right = pooled or Pooled(counts, 1, places, 1, 1)
    whole = images * (height // down) * (width // right)
    windows = images * triton.cdiv(height, down) * triton.cdiv(width, right)
    part, tile, wide = _sizes(whole, channels, _BLOCK // 2 // triton.next_power_of_2(down * right))
    parts, blocks = triton.cdiv(whole, part), triton.cdiv(channels, wide)
    sums = value.new_empty(count, parts, 2, channels)
    some, other = mean if weight is None else weight, mean if bias is None else bias
    after = weight is not None, bias is not None, rectified, pooled is not None, down, right
    launch(
        _sums, (parts, blocks, count), grad, chosen, value, mean, variance, counts, some, some.stride(0), other, other.stride(0), sums,
        images, height, width, channels, parts, eps, *after, part, tile, wide, num_warps=4,
    )  # fmt: skip
    below, slope, shift = torch.empty_like(value), *value.new_empty(2, count, channels)
    launch(
        _below, (triton.cdiv(windows, part), blocks, count), grad, chosen, value, mean, variance, counts, sums,
        some, some.stride(0), other, other.stride(0), below, slope, shift,
        images, height, width, channels, parts, eps, *after, _MAX_PARTS, part, tile, wide, num_warps=4,
    )  # fmt: skip
    return below, slope, shift


def _sizes(rows: int, channels: int, block: int) -> tuple[int, int, int]:
    """Rows of a part, and rows and channels of a block of so many values: no lane without a channel, and so few parts that a block of all is one load."""
    # Layers of 32 channels and of more share their kernels, which take seconds to compile.
    wide = min(32, max(16, triton.next_power_of_2(channels)))
    tile = max(16, block // wide)
    return max(tile, triton.next_power_of_2(triton.cdiv(rows, _MAX_PARTS))), tile, wide


def move(
    running_mean: torch.Tensor,
    running_var: torch.Tensor,
    mean: torch.Tensor,
    variance: torch.Tensor,
    counts: torch.Tensor,
    momentum: float,
) -> None:
    """``running += momentum * (now - running)`` of those whose ``counts`` are not zero; all ``[participants, channels]``."""
    count, channels = mean.shape
    launch(
        _move, (count, 2), running_mean, running_var, mean, variance, counts, running_mean.stride(0), channels, momentum,
        max(64, triton.next_power_of_2(channels)), num_warps=1, enable_fp_fusion=False,
    )  # fmt: skip


@triton.jit(do_not_specialize=["momentum"])
def _move(one, other, mean, variance, counts, stride, channels, momentum, WIDE: tl.constexpr):
    a = tl.program_id(0).to(tl.int64)
    if tl.load(counts + a) == 0:
        return
    c = tl.arange(0, WIDE)
    if tl.program_id(1) == 0:
        place = one + a * stride + c
        now = tl.load(mean + a * channels + c, c < channels, 0.0)
    else:
        place = other + a * stride + c
        now = tl.load(variance + a * channels + c, c < channels, 0.0)
    before = tl.load(place, c < channels, 0.0)
    tl.store(place, before + momentum * (now - before), c < channels)


@triton.jit(do_not_specialize=["rows", "places", "parts"])
def _moments(
    value, counts, moments, rows, channels, places, parts, PART: tl.constexpr, ROWS: tl.constexpr, WIDE: tl.constexpr
):  # fmt: skip
    part, a = tl.program_id(0), tl.program_id(2).to(tl.int64)
    c = tl.program_id(1) * WIDE + tl.arange(0, WIDE)
    last = tl.load(counts + a).to(tl.int32) * places
    mean = tl.zeros([WIDE], tl.float32)
    spread = tl.zeros([WIDE], tl.float32)
    done = 0.0
    for first in range(part * PART, tl.minimum((part + 1) * PART, last), ROWS):
        m = first + tl.arange(0, ROWS)
        good = (m < last)[:, None] & (c < channels)[None, :]
        v = tl.load(value + a * rows * channels + m[:, None] * channels + c[None, :], good, 0.0)
        here = tl.minimum(last - first, ROWS).to(tl.float32)
        now = tl.sum(v, 0) / here
        off = tl.where(good, v - now[None, :], 0.0)
        apart = now - mean
        all_ = done + here
        mean += apart * (here / all_)
        spread += tl.sum(off * off, 0) + apart * apart * (done * here / all_)
        done = all_
    place = moments + ((a * parts + part) * 2) * channels + c
    tl.store(place, mean, c < channels)
    tl.store(place + channels, spread, c < channels)


@triton.jit(do_not_specialize=["rows", "places", "parts", "eps"])
def _normalise(
    value, counts, moments, weight, bias, wa, ba, result, means, variances, rows, channels, places, parts, eps,
    WEIGHTED: tl.constexpr, BIASED: tl.constexpr, PART: tl.constexpr, PARTS: tl.constexpr,
    ROWS: tl.constexpr, WIDE: tl.constexpr,
):  # fmt: skip
    a = tl.program_id(2).to(tl.int64)
    c = tl.program_id(1) * WIDE + tl.arange(0, WIDE)
    last = tl.load(counts + a).to(tl.int32) * places
    p = tl.arange(0, PARTS)
    here = tl.maximum(tl.minimum(last - p * PART, PART), 0).to(tl.float32)[:, None]
    place = moments + ((a * parts + p[:, None]) * 2) * channels + c[None, :]
    good = (p < parts)[:, None] & (c < channels)[None, :]
    done = tl.maximum(last, 1).to(tl.float32)
    means_ = tl.load(place, good, 0.0)
    mean = tl.sum(means_ * (here / done), 0)
    apart = tl.where(good, means_ - mean[None, :], 0.0)
    variance = tl.sum(tl.load(place + channels, good, 0.0) + apart * apart * here, 0) / done
    if tl.program_id(0) == 0:
        tl.store(means + a * channels + c, mean, c < channels)
        tl.store(variances + a * channels + c, variance, c < channels)
    scale = 1.0 / tl.sqrt(variance + eps)
    m = tl.program_id(0) * ROWS + tl.arange(0, ROWS)
    good = (m < rows)[:, None] & (c < channels)[None, :]
    at = a * rows * channels + m[:, None] * channels + c[None, :]
    v = (tl.load(value + at, good, 0.0) - mean[None, :]) * scale[None, :]
    v = tl.where((m < last)[:, None], v, 0.0)
    if WEIGHTED:
        v *= tl.load(weight + a * wa + c, c < channels, 0.0)[None, :]
    if BIASED:
        v += tl.load(bias + a * ba + c, c < channels, 0.0)[None, :]
    tl.store(result + at, v, good)


@triton.jit
def _rectified(d, normal, weight, bias, WEIGHTED: tl.constexpr, BIASED: tl.constexpr):
    """The gradient ``d`` of what was normalised, multiplied, added to and rectified, without those of what became zero."""
    shown = normal
    if WEIGHTED:
        shown = shown * weight[None, :]
    if BIASED:
        shown = shown + bias[None, :]
    return tl.where(shown <= 0.0, 0.0, d)  # a NaN passes on


@triton.jit(do_not_specialize=["images", "height", "width", "parts", "eps"])
def _sums(
    grad, chosen, value, means, variances, counts, weight, wa, bias, ba, sums,
    images, height, width, channels, parts, eps,
    WEIGHTED: tl.constexpr, BIASED: tl.constexpr, RECTIFIED: tl.constexpr,
    POOLED: tl.constexpr, KH: tl.constexpr, KW: tl.constexpr,
    PART: tl.constexpr, ROWS: tl.constexpr, WIDE: tl.constexpr,
):  # fmt: skip
    """Over windows, of whose places only the chosen one has a gradient; without pooling each place is a window."""
    part, a = tl.program_id(0), tl.program_id(2).to(tl.int64)
    c = tl.program_id(1) * WIDE + tl.arange(0, WIDE)
    down, right = height // KH, width // KW
    last = tl.load(counts + a).to(tl.int32) * (down * right)
    mean = tl.load(means + a * channels + c, c < channels, 0.0)
    scale = 1.0 / tl.sqrt(tl.load(variances + a * channels + c, c < channels, 0.0) + eps)
    w = tl.load(weight + a * wa + c, c < channels, 0.0) if WEIGHTED else scale
    s = tl.load(bias + a * ba + c, c < channels, 0.0) if BIASED else scale
    shift = tl.zeros([ROWS, WIDE], tl.float32)
    slope = tl.zeros([ROWS, WIDE], tl.float32)
    grad += a * images * (down * right * channels)
    chosen += a * images * (down * right * channels)
    value += a * images * (height * width * channels)
    for first in range(part * PART, tl.minimum((part + 1) * PART, last), ROWS):
        m = first + tl.arange(0, ROWS)
        good = (m < last)[:, None] & (c < channels)[None, :]
        at = m[:, None] * channels + c[None, :]
        d = tl.load(grad + at, good, 0.0)
        if POOLED:
            own = tl.load(chosen + at, good, 0).to(tl.int32)
            b, y, x = window_of(m, down, right)
            corner = value + ((b * height + y * KH) * width + x * KW)[:, None] * channels + c[None, :]
            v = tl.load(corner, good, 0.0)
            for k in tl.static_range(1, KH * KW):
                now = tl.load(corner + ((k // KW) * width + k % KW) * channels, good, 0.0)
                v = tl.where(own == k, now, v)
        else:
            v = tl.load(value + at, good, 0.0)
        normal = (v - mean[None, :]) * scale[None, :]
        if RECTIFIED:
            d = _rectified(d, normal, w, s, WEIGHTED, BIASED)
        shift += d
        slope += d * normal
    place = sums + ((a * parts + part) * 2) * channels + c
    tl.store(place, tl.sum(shift, 0), c < channels)
    tl.store(place + channels, tl.sum(slope, 0), c < channels)


@triton.jit(do_not_specialize=["images", "height", "width", "parts", "eps"])
def _below(
    grad, chosen, value, means, variances, counts, sums, weight, wa, bias, ba, below, slopes, shifts,
    images, height, width, channels, parts, eps,
    WEIGHTED: tl.constexpr, BIASED: tl.constexpr, RECTIFIED: tl.constexpr,
    POOLED: tl.constexpr, KH: tl.constexpr, KW: tl.constexpr,
    PARTS: tl.constexpr, PART: tl.constexpr, ROWS: tl.constexpr, WIDE: tl.constexpr,
):  # fmt: skip
    """Over windows, with those that the edge cuts: they have no gradient of what came after."""
    a = tl.program_id(2).to(tl.int64)
    c = tl.program_id(1) * WIDE + tl.arange(0, WIDE)
    p = tl.arange(0, PARTS)
    place = sums + ((a * parts + p[:, None]) * 2) * channels + c[None, :]
    known = (p < parts)[:, None] & (c < channels)[None, :]
    shift = tl.sum(tl.load(place, known, 0.0), 0)
    slope = tl.sum(tl.load(place + channels, known, 0.0), 0)
    if tl.program_id(0) == 0:
        tl.store(slopes + a * channels + c, slope, c < channels)
        tl.store(shifts + a * channels + c, shift, c < channels)
    mean = tl.load(means + a * channels + c, c < channels, 0.0)
    scale = 1.0 / tl.sqrt(tl.load(variances + a * channels + c, c < channels, 0.0) + eps)
    w = tl.load(weight + a * wa + c, c < channels, 0.0) if WEIGHTED else scale
    s = tl.load(bias + a * ba + c, c < channels, 0.0) if BIASED else scale
    count = tl.load(counts + a).to(tl.int32)
    number = tl.maximum(count * (height * width), 1).to(tl.float32)
    shift, slope = shift / number, slope / number
    after = scale * w if WEIGHTED else scale
    down, right, lines, columns = height // KH, width // KW, tl.cdiv(height, KH), tl.cdiv(width, KW)
    windows = images * (lines * columns)
    grad += a * images * (down * right * channels)
    chosen += a * images * (down * right * channels)
    value += a * images * (height * width * channels)
    below += a * images * (height * width * channels)
    start = tl.program_id(0) * PART
    for row in range(start, tl.minimum(start + PART, windows), ROWS):
        m = row + tl.arange(0, ROWS)
        good = (m < windows)[:, None] & (c < channels)[None, :]
        real = (m < count * (lines * columns))[:, None]
        if POOLED:
            b, y, x = window_of(m, lines, columns)
            whole = good & ((y < down) & (x < right))[:, None]
            at = ((b * down + y) * right + x)[:, None] * channels + c[None, :]
            own = tl.load(chosen + at, whole, -1).to(tl.int32)
            corner = ((b * height + y * KH) * width + x * KW)[:, None] * channels + c[None, :]
        else:
            whole, at = good, m[:, None] * channels + c[None, :]
            corner = at
        found = tl.load(grad + at, whole, 0.0)
        for k in tl.static_range(KH * KW):
            there, d = good, found
            if POOLED:
                there = good & ((y * KH + k // KW < height) & (x * KW + k % KW < width))[:, None]
                d = tl.where(own == k, found, 0.0)
            apart = corner + ((k // KW) * width + k % KW) * channels
            normal = (tl.load(value + apart, there, 0.0) - mean[None, :]) * scale[None, :]
            if RECTIFIED:
                d = _rectified(d, normal, w, s, WEIGHTED, BIASED)
            d = (d - (shift[None, :] + normal * slope[None, :])) * after[None, :]
            tl.store(below + apart, tl.where(real, d, 0.0), there)
