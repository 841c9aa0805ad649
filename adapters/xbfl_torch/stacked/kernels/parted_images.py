"""Convolutions of images whose operands are parted once, as :mod:`.parted` does, before any product.

Both parts have 11 significant bits, as the shorter format of :mod:`.convolution` has, so three products of matrices are as exact: high by high,
high by low, low by high. But matrix units multiply them twice as fast and read them in either order, both take the place of one float32, and what a
product does beside is loads: an image is else parted once for each place of the kernel.

Powers of two are those of the largest finite number of a group: an example of a participant, or a place of a participant's kernel. Along the
inner axis of a product blocks are of one group. What is smaller than 2^-17 of the largest of its group loses bits below 2^-39 of that. No
group depends on another, and zeros, infinities and NaN remain what they are. Magnitudes of weights up to 1e30.
"""

from __future__ import annotations

from typing import NamedTuple

import torch
import triton
import triton.language as tl

from xbfl_torch.stacked.kernels.convolution import Window, laid, place_of, size_of
from xbfl_torch.stacked.kernels.launching import launch
from xbfl_torch.stacked.kernels.parted import halves, power_of

_ROWS = 64
"""Rows of a block: places, or for weights places of the kernel and channels."""

_BLOCK = 4096
"""Values that a program parts at a time."""

_PROGRAMS = 528
"""Programs that keep a large GPU busy: four for each of its multiprocessors."""

_LEAST = 1 << 23
"""Products of two numbers, for one participant, from which on parting them pays: with 4 participants too."""


class Parted(NamedTuple):
    """Numbers in two.

    Attributes:
        numbers: ``[2, participants, groups, values]`` in float16: high, low.
        scales: ``[participants, groups]``: what to multiply sums by.
    """

    numbers: torch.Tensor
    scales: torch.Tensor


def pays(value: torch.Size, weight: torch.Size, window: Window) -> bool:
    """Whether images and kernels of such sizes are better parted; says nothing of how many participants there are, so that bits repeat."""
    outs, ins = weight[1:3]
    height, width = size_of(value, weight, window)
    return ins % 16 == outs % 16 == 0 and value[1] * height * width * weight[1:].numel() >= _LEAST


def forward(
    value: torch.Tensor, weight: torch.Tensor, bias: torch.Tensor | None, window: Window
) -> tuple[torch.Tensor, Parted, Parted]:
    """``value [participants, batch, in, height, width]`` by ``weight [participants, out, in, height, width]``; both parted, for the way back."""
    images, kernels = _inside(value.permute(0, 1, 3, 4, 2)), _inside(weight.permute(0, 3, 4, 2, 1))
    (count, batch), places = value.shape[:2], weight.shape[3:].numel()
    one, other = _room(images, batch), _room(kernels, places)
    launch(
        _part, (batch + places, count), images, *one.numbers, one.scales, kernels, *other.numbers, other.scales, one.scales,
        images.stride(0), kernels.stride(0), batch, places, one.numbers.shape[3] // 16, other.numbers.shape[3] // 16,
        16, False, _BLOCK // 16, 16, num_warps=4,
    )  # fmt: skip
    size = (weight.shape[1], *size_of(value.shape, weight.shape, window))
    found = _launch(one, other, bias, value.shape, weight.shape[3:], size, window, backward=False)
    return found, one, other


def backward(
    images: Parted,
    kernels: Parted,
    grad: torch.Tensor,
    value: torch.Size,
    weight: torch.Size,
    window: Window,
    needed: tuple[bool, ...],
) -> tuple[torch.Tensor | None, torch.Tensor | None, torch.Tensor | None]:
    """Gradients of the images, of the weight and of the bias, those that are ``needed``, by what :func:`forward` parted.

    Args:
        images: Parted, of size ``value``.
        kernels: Parted, of size ``weight``.
        grad: ``[participants, batch, out, height, width]``.
        value: ``[participants, batch, in, height, width]``.
        weight: ``[participants, out, in, height, width]``.
        window: How the kernel moved.
        needed: Of each of the three, whether it is.
    """
    count, batch, outs = grad.shape[:3]
    lying = _inside(grad.permute(0, 1, 3, 4, 2))
    parted, wide = _room(lying, batch), min(64, outs & -outs)
    sums = grad.new_empty(count, batch, outs)
    launch(
        _part, (batch, count), lying, *parted.numbers, parted.scales, lying, *parted.numbers, parted.scales, sums,
        lying.stride(0), 0, batch, 0, parted.numbers.shape[3] // outs, 0, outs, True, 2 * _BLOCK // wide, wide, num_warps=4,
    )  # fmt: skip
    below, of_weight, of_bias = None, None, None
    if needed[1] or needed[2]:
        # Before the other one, which would lie beside the parts of this.
        of_weight, of_bias = _weight_gradient(images, parted, sums, value, grad.shape, weight, window)
    if needed[0]:
        size = (value[2], *value[3:])
        below = _launch(parted, kernels, None, grad.shape, weight[3:], size, window, backward=True)
    return below, of_weight, of_bias if needed[2] else None


def _inside(tensor: torch.Tensor) -> torch.Tensor:
    """With each participant's numbers side by side, in the order of the axes."""
    return tensor if tensor[0].is_contiguous() else tensor.contiguous()


def _room(tensor: torch.Tensor, groups: int) -> Parted:
    count, values = len(tensor), tensor[0].numel() // groups
    return Parted(
        tensor.new_empty(2, count, groups, values, dtype=torch.float16), tensor.new_empty(count, groups)
    )


def _launch(
    value: Parted,
    weight: Parted,
    bias: torch.Tensor | None,
    given: torch.Size,
    kernel: torch.Size,
    size: tuple[int, int, int],
    window: Window,
    *,
    backward: bool,
) -> torch.Tensor:
    """Of images as large as is ``given``, ``[participants, batch, ins of the product, height, width]``."""
    count, batch, ins = given[:3]
    outs, height, width = size
    rows, wide = batch * height * width, min(64, outs & -outs)
    result = value.scales.new_empty(count, batch, height, width, outs)
    launch(
        _product, (triton.cdiv(rows, _ROWS), outs // wide, count), *value.numbers, value.scales, *weight.numbers, weight.scales,
        value.scales if bias is None else bias, result, batch, 0 if bias is None else bias.stride(0),
        ins, outs, *given[3:], height, width, *kernel, *window.stride, *window.padding, *window.dilation,
        bias is not None, backward, _ROWS, wide, min(64, ins & -ins), num_warps=4, num_stages=3,
    )  # fmt: skip
    return result.permute(0, 1, 4, 2, 3)


def _weight_gradient(
    images: Parted,
    parted: Parted,
    sums: torch.Tensor,
    value: torch.Size,
    grad: torch.Size,
    weight: torch.Size,
    window: Window,
) -> tuple[torch.Tensor, torch.Tensor]:
    count, batch, ins = value[:3]
    outs, kernel = grad[2], (weight[3], weight[4])
    inner, wide = kernel[0] * kernel[1] * ins, min(64, outs & -outs)
    inside = min(32, max(16, triton.next_power_of_2(grad[3:].numel())))
    blocks = batch * triton.cdiv(grad[3:].numel(), inside)
    grid = triton.cdiv(inner, _ROWS), outs // wide
    parts = max(1, min(_PROGRAMS // (grid[0] * grid[1] * count), triton.cdiv(blocks, 8)))
    found = sums.new_empty(parts, count, inner + 1, outs)
    launch(
        _weights, (*grid, parts * count), *images.numbers, images.scales, *parted.numbers, parted.scales,
        sums, found, count, batch, parts, triton.cdiv(blocks, parts),
        ins, outs, *value[3:], *grad[3:], *kernel, *window.stride, *window.padding, *window.dilation,
        min(ins & -ins, _ROWS), inside, wide, _ROWS, num_warps=4, num_stages=3,
    )  # fmt: skip
    return laid(found, kernel, ins)


@triton.jit
def _part_group(
    source, highs, lows, scale, sums, rows, COLUMNS: tl.constexpr, SUMMED: tl.constexpr, ROWS: tl.constexpr, WIDE: tl.constexpr
):  # fmt: skip
    """A group, of ``rows`` by ``COLUMNS`` values side by side; the sums of its columns too, of what they were."""
    m, n = tl.arange(0, ROWS)[:, None], tl.arange(0, WIDE)[None, :]
    largest = tl.zeros([ROWS, WIDE], tl.int32)
    for column in tl.static_range(0, COLUMNS, WIDE):
        total = tl.zeros([WIDE], tl.float32)
        for first in range(0, rows, ROWS):
            value = tl.load(source + (first + m) * COLUMNS + column + n, first + m < rows, 0.0)
            bits = value.to(tl.int32, bitcast=True) & 0x7FFFFFFF
            largest = tl.maximum(largest, tl.where(bits < 0x7F800000, bits, 0))
            if SUMMED:
                total += tl.sum(value, 0)
        if SUMMED:
            tl.store(sums + column + tl.arange(0, WIDE), total)
    factor, back = power_of(tl.max(tl.max(largest, 1), 0).to(tl.float32, bitcast=True))
    tl.store(scale, back)
    for column in tl.static_range(0, COLUMNS, WIDE):
        for first in range(0, rows, ROWS):
            at, good = (first + m) * COLUMNS + column + n, first + m < rows
            high, low = halves(tl.load(source + at, good, 0.0) * factor)
            tl.store(highs + at, high, good)
            tl.store(lows + at, low, good)


@triton.jit(do_not_specialize=["one_groups", "other_groups", "one_rows", "other_rows"])
def _part(
    one, one_highs, one_lows, one_scales, other, other_highs, other_lows, other_scales, sums,
    one_stride, other_stride, one_groups, other_groups, one_rows, other_rows,
    COLUMNS: tl.constexpr, SUMMED: tl.constexpr, ROWS: tl.constexpr, WIDE: tl.constexpr,
):  # fmt: skip
    """Groups of one tensor, and then of another."""
    group, a = tl.program_id(0), tl.program_id(1).to(tl.int64)
    if group < one_groups:
        at, place = a * one_groups + group, group.to(tl.int64) * one_rows * COLUMNS
        out = at * one_rows * COLUMNS
        _part_group(
            one + a * one_stride + place, one_highs + out, one_lows + out, one_scales + at, sums + at * COLUMNS,
            one_rows, COLUMNS, SUMMED, ROWS, WIDE,
        )  # fmt: skip
    else:
        group -= one_groups
        at, place = a * other_groups + group, group.to(tl.int64) * other_rows * COLUMNS
        out = at * other_rows * COLUMNS
        _part_group(
            other + a * other_stride + place, other_highs + out, other_lows + out, other_scales + at, sums,
            other_rows, COLUMNS, False, ROWS, WIDE,
        )  # fmt: skip


@triton.jit(do_not_specialize=["batch"])
def _product(
    highs, lows, scales, weight_highs, weight_lows, weight_scales, bias, result, batch, ba,
    INS: tl.constexpr, OUTS: tl.constexpr, H: tl.constexpr, W: tl.constexpr, OH: tl.constexpr, OW: tl.constexpr,
    KH: tl.constexpr, KW: tl.constexpr, SH: tl.constexpr, SW: tl.constexpr, PH: tl.constexpr, PW: tl.constexpr,
    DH: tl.constexpr, DW: tl.constexpr, BIASED: tl.constexpr, BACKWARD: tl.constexpr,
    ROWS: tl.constexpr, WIDE: tl.constexpr, INNER: tl.constexpr,
):  # fmt: skip
    a = tl.program_id(2).to(tl.int64)
    m = tl.program_id(0) * ROWS + tl.arange(0, ROWS)
    n = tl.program_id(1) * WIDE + tl.arange(0, WIDE)
    i = tl.arange(0, INNER)
    rows = batch * (OH * OW)
    inside = m < rows
    b, y, x = m // (OH * OW), (m // OW) % OH, m % OW
    off, across = b * (H * W * INS), INS // INNER
    images, weights = a * batch * (H * W * INS), a * (KH * KW * INS * OUTS)
    one, two, three, four = highs + images, lows + images, weight_highs + weights, weight_lows + weights
    # Weights lie by place, in and out: backwards the inner axis is the last one.
    tile = i[:, None] + (n * INS)[None, :] if BACKWARD else (i * OUTS)[:, None] + n[None, :]
    total = tl.zeros([ROWS, WIDE], tl.float32)
    for block in range(KH * KW * across):
        place, c = block // across, (block % across) * INNER
        ih, up = place_of(y, place // KW, SH, PH, DH, BACKWARD)
        iw, left = place_of(x, place % KW, SW, PW, DW, BACKWARD)
        good = (inside & up & left & (ih < H) & (iw < W))[:, None]
        at = (off + (ih * W + iw) * INS)[:, None] + (c + i)[None, :]
        there = place * (INS * OUTS) + (c if BACKWARD else c * OUTS) + tile
        high, low = tl.load(one + at, good, 0.0), tl.load(two + at, good, 0.0)
        far, rest = tl.load(three + there), tl.load(four + there)
        part = tl.dot(low, far)
        part = tl.dot(high, rest, part)
        # Matrix units round sums towards zero: long ones are made outside.
        total += tl.dot(high, far, part) * tl.load(weight_scales + a * (KH * KW) + place)
    total *= tl.load(scales + a * batch + b, inside, 0.0)[:, None]
    if BIASED:
        total += tl.load(bias + a * ba + n)[None, :]
    tl.store(result + a * rows * OUTS + m[:, None] * OUTS + n[None, :], total, inside[:, None])


@triton.jit(do_not_specialize=["count", "batch", "parts", "share"])
def _weights(
    highs, lows, scales, grad_highs, grad_lows, grad_scales, sums, result, count, batch, parts, share,
    INS: tl.constexpr, OUTS: tl.constexpr, H: tl.constexpr, W: tl.constexpr, OH: tl.constexpr, OW: tl.constexpr,
    KH: tl.constexpr, KW: tl.constexpr, SH: tl.constexpr, SW: tl.constexpr, PH: tl.constexpr, PW: tl.constexpr,
    DH: tl.constexpr, DW: tl.constexpr, RUN: tl.constexpr, ROWS: tl.constexpr, WIDE: tl.constexpr, INNER: tl.constexpr,
):  # fmt: skip
    slot = tl.program_id(2).to(tl.int64)
    a, part = slot % count, (slot // count).to(tl.int32)
    k = tl.program_id(0) * INNER + tl.arange(0, INNER)
    n = tl.program_id(1) * WIDE + tl.arange(0, WIDE)
    length: tl.constexpr = KH * KW * INS
    # RUN channels lie side by side, from a multiple of it on: without the hint each is loaded by itself.
    c = tl.max_contiguous(tl.multiple_of(k % INS, RUN), RUN)
    kh, kw = (k // INS // KW)[:, None], (k // INS % KW)[:, None]
    # Blocks are of one example.
    blocks: tl.constexpr = (OH * OW + ROWS - 1) // ROWS
    total = tl.zeros([INNER, WIDE], tl.float32)
    for block in range(part * share, tl.minimum((part + 1) * share, batch * blocks)):
        example = a * batch + block // blocks
        m = (block % blocks) * ROWS + tl.arange(0, ROWS)
        inside = m < OH * OW
        ih, up = place_of((m // OW)[None, :], kh, SH, PH, DH, False)
        iw, left = place_of((m % OW)[None, :], kw, SW, PW, DW, False)
        good = inside[None, :] & (k < length)[:, None] & up & left & (ih < H) & (iw < W)
        images, grads = example * (H * W * INS), example * (OH * OW * OUTS)
        at, there = (ih * W + iw) * INS + c[:, None], (m * OUTS)[:, None] + n[None, :]
        high, low = tl.load(highs + images + at, good, 0.0), tl.load(lows + images + at, good, 0.0)
        far = tl.load(grad_highs + grads + there, inside[:, None], 0.0)
        rest = tl.load(grad_lows + grads + there, inside[:, None], 0.0)
        found = tl.dot(low, far)
        found = tl.dot(high, rest, found)
        # As above.
        total += tl.dot(high, far, found) * (tl.load(scales + example) * tl.load(grad_scales + example))
    place = result + slot * (length + 1) * OUTS
    tl.store(place + k[:, None] * OUTS + n[None, :], total, (k < length)[:, None])
    if tl.program_id(0) == 0:
        bias = tl.zeros([WIDE], tl.float32)
        for example in range(part, batch, parts):
            bias += tl.load(sums + (a * batch + example) * OUTS + n)
        tl.store(place + length * OUTS + n, bias)
