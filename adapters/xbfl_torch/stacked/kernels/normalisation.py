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
_PART = 512
"""Rows of a part at least."""

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
    part, tile, wide = _sizes(rows, channels)
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
    part, tile, wide = _sizes(rows, channels)
    parts, blocks = triton.cdiv(rows, part), triton.cdiv(channels, wide)
    sums = value.new_empty(count, parts, 2, channels)
    some, other = mean if weight is None else weight, mean if bias is None else bias
    chosen, height, width, *window = (counts, 1, 1, 0, 0) if pooled is None else pooled
    after = weight is not None, bias is not None, rectified, *window
    launch(
        _sums, (parts, blocks, count), grad, chosen, value, mean, variance, counts, some, some.stride(0), other, other.stride(0), sums,
        rows, channels, places, parts, height, width, eps, *after, part, tile // 2, wide, num_warps=4,
    )  # fmt: skip
    below, slope, shift = torch.empty_like(value), *value.new_empty(2, count, channels)
    launch(
        _below, (triton.cdiv(rows, tile // 2), blocks, count), grad, chosen, value, mean, variance, counts, sums,
        some, some.stride(0), other, other.stride(0), below, slope, shift,
        rows, channels, places, parts, height, width, eps, *after, _MAX_PARTS, tile // 2, wide, num_warps=4,
    )  # fmt: skip
    return below, slope, shift


def _sizes(rows: int, channels: int) -> tuple[int, int, int]:
    """Rows of a part, rows and channels of a block: no lane without a channel, and so few parts that a block of all is one load."""
    # Layers of 32 channels and of more share their kernels, which take seconds to compile.
    wide = min(32, max(16, triton.next_power_of_2(channels)))
    return max(_PART, triton.next_power_of_2(triton.cdiv(rows, _MAX_PARTS))), _BLOCK // wide, wide


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
def _gradient(
    grad, chosen, normal, weight, bias, a, m, c, good, rows, channels, height, width,
    WEIGHTED: tl.constexpr, BIASED: tl.constexpr, RECTIFIED: tl.constexpr, KH: tl.constexpr, KW: tl.constexpr,
):  # fmt: skip
    """Of rows ``m`` and channels ``c`` of what was normalised, by that of what came after."""
    if KH:
        down, right = height // KH, width // KW
        images = a * (rows // (height * width)) * (down * right * channels)
        at, mine = window_of(
            chosen + images, m, c[None, :], good, height, width, down, right, KH, KW, channels
        )
        found = tl.load(grad + images + at, mine, 0.0)
    else:
        found = tl.load(grad + a * rows * channels + m[:, None] * channels + c[None, :], good, 0.0)
    if RECTIFIED:
        value = normal
        if WEIGHTED:
            value = value * tl.load(weight + c, c < channels, 0.0)[None, :]
        if BIASED:
            value = value + tl.load(bias + c, c < channels, 0.0)[None, :]
        found = tl.where(value <= 0.0, 0.0, found)  # a NaN passes on
    return found


@triton.jit(do_not_specialize=["rows", "places", "parts", "height", "width", "eps"])
def _sums(
    grad, chosen, value, means, variances, counts, weight, wa, bias, ba, sums,
    rows, channels, places, parts, height, width, eps,
    WEIGHTED: tl.constexpr, BIASED: tl.constexpr, RECTIFIED: tl.constexpr, KH: tl.constexpr, KW: tl.constexpr,
    PART: tl.constexpr, ROWS: tl.constexpr, WIDE: tl.constexpr,
):  # fmt: skip
    part, a = tl.program_id(0), tl.program_id(2).to(tl.int64)
    c = tl.program_id(1) * WIDE + tl.arange(0, WIDE)
    last = tl.load(counts + a).to(tl.int32) * places
    mean = tl.load(means + a * channels + c, c < channels, 0.0)
    scale = 1.0 / tl.sqrt(tl.load(variances + a * channels + c, c < channels, 0.0) + eps)
    shift = tl.zeros([WIDE], tl.float32)
    slope = tl.zeros([WIDE], tl.float32)
    for first in range(part * PART, tl.minimum((part + 1) * PART, last), ROWS):
        m = first + tl.arange(0, ROWS)
        good = (m < last)[:, None] & (c < channels)[None, :]
        at = a * rows * channels + m[:, None] * channels + c[None, :]
        normal = (tl.load(value + at, good, 0.0) - mean[None, :]) * scale[None, :]
        d = _gradient(
            grad, chosen, normal, weight + a * wa, bias + a * ba, a, m, c, good, rows,
            channels, height, width, WEIGHTED, BIASED, RECTIFIED, KH, KW,
        )  # fmt: skip
        shift += tl.sum(d, 0)
        slope += tl.sum(d * normal, 0)
    place = sums + ((a * parts + part) * 2) * channels + c
    tl.store(place, shift, c < channels)
    tl.store(place + channels, slope, c < channels)


@triton.jit(do_not_specialize=["rows", "places", "parts", "height", "width", "eps"])
def _below(
    grad, chosen, value, means, variances, counts, sums, weight, wa, bias, ba, below, slopes, shifts,
    rows, channels, places, parts, height, width, eps,
    WEIGHTED: tl.constexpr, BIASED: tl.constexpr, RECTIFIED: tl.constexpr, KH: tl.constexpr, KW: tl.constexpr,
    PARTS: tl.constexpr, ROWS: tl.constexpr, WIDE: tl.constexpr,
):  # fmt: skip
    a = tl.program_id(2).to(tl.int64)
    c = tl.program_id(1) * WIDE + tl.arange(0, WIDE)
    last = tl.load(counts + a).to(tl.int32) * places
    p = tl.arange(0, PARTS)
    place = sums + ((a * parts + p[:, None]) * 2) * channels + c[None, :]
    good = (p < parts)[:, None] & (c < channels)[None, :]
    shift = tl.sum(tl.load(place, good, 0.0), 0)
    slope = tl.sum(tl.load(place + channels, good, 0.0), 0)
    if tl.program_id(0) == 0:
        tl.store(slopes + a * channels + c, slope, c < channels)
        tl.store(shifts + a * channels + c, shift, c < channels)
    mean = tl.load(means + a * channels + c, c < channels, 0.0)
    scale = 1.0 / tl.sqrt(tl.load(variances + a * channels + c, c < channels, 0.0) + eps)
    number = tl.maximum(last, 1).to(tl.float32)
    m = tl.program_id(0) * ROWS + tl.arange(0, ROWS)
    good = (m < rows)[:, None] & (c < channels)[None, :]
    at = a * rows * channels + m[:, None] * channels + c[None, :]
    normal = (tl.load(value + at, good, 0.0) - mean[None, :]) * scale[None, :]
    d = _gradient(
        grad, chosen, normal, weight + a * wa, bias + a * ba, a, m, c, good, rows,
        channels, height, width, WEIGHTED, BIASED, RECTIFIED, KH, KW,
    )  # fmt: skip
    d -= (shift[None, :] + normal * slope[None, :]) / number
    d *= scale[None, :]
    if WEIGHTED:
        d *= tl.load(weight + a * wa + c, c < channels, 0.0)[None, :]
    tl.store(below + at, tl.where((m < last)[:, None], d, 0.0), good)
