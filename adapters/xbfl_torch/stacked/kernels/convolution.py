"""Convolutions of images, every participant with its own kernel, as one product of matrices that are never written down.

Outputs lie channels last. Rows of the product are places of the output, its inner axis runs over the places of the kernel and the input's
channels, the channels innermost. Large ones, of channels that 16 divides, are those of :mod:`.parted_images`.
"""

from __future__ import annotations

from typing import NamedTuple

import torch
import triton
import triton.language as tl

from xbfl_torch.stacked.kernels.launching import launch

_ROWS = 64
"""Places of a block."""

_INNER = 32
"""Inner length of a block."""

_PROGRAMS = 1056
"""Programs that keep a large GPU busy: eight for each of its multiprocessors."""


class Window(NamedTuple):
    """How a kernel moves over an image; vertical first."""

    stride: tuple[int, int]
    padding: tuple[int, int]
    dilation: tuple[int, int]


def size_of(value: torch.Size, weight: torch.Size, window: Window) -> tuple[int, int]:
    """Height and width of what images and kernels of such sizes make."""
    (height, width), (kh, kw), (s, p, d) = value[3:], weight[3:], window
    down = (height + 2 * p[0] - d[0] * (kh - 1) - 1) // s[0] + 1
    return down, (width + 2 * p[1] - d[1] * (kw - 1) - 1) // s[1] + 1


def forward(
    value: torch.Tensor, weight: torch.Tensor, bias: torch.Tensor | None, window: Window
) -> torch.Tensor:
    """``value [participants, batch, in, height, width]`` by ``weight [participants, out, in, height, width]``."""
    size = (weight.shape[1], *size_of(value.shape, weight.shape, window))
    return _launch(value, weight, bias, size, window, backward=False)


def input_gradient(
    grad: torch.Tensor, weight: torch.Tensor, size: tuple[int, int], window: Window
) -> torch.Tensor:
    """Of an input of ``size``: ``[participants, batch, in, *size]``."""
    return _launch(grad, weight.transpose(1, 2), None, (weight.shape[2], *size), window, backward=True)


def weight_gradient(
    value: torch.Tensor, grad: torch.Tensor, kernel: tuple[int, int], window: Window, *, biased: bool
) -> tuple[torch.Tensor, torch.Tensor | None]:
    """Gradients of ``weight`` and of the bias, ``[participants, out]``."""
    count, batch, ins, height, width = value.shape
    outs, rows = grad.shape[2], batch * grad.shape[3] * grad.shape[4]
    inner = kernel[0] * kernel[1] * ins
    wide = min(64, max(16, triton.next_power_of_2(outs)))
    long = _long(inner)
    blocks = triton.cdiv(inner, long) * triton.cdiv(outs, wide)
    parts = max(1, min(triton.cdiv(_PROGRAMS, blocks * count), triton.cdiv(rows, 256)))
    share = triton.cdiv(triton.cdiv(rows, parts), _INNER) * _INNER
    found = value.new_empty(parts, count, inner + biased, outs)
    grid = (triton.cdiv(inner, long), triton.cdiv(outs, wide), parts * count)
    launch(
        _weights, grid, value, grad, found, count, rows, share, *value.stride(), *grad.stride(),
        ins, outs, height, width, grad.shape[3], grad.shape[4], *kernel, *window.stride, *window.padding, *window.dilation,
        min(ins & -ins, long), biased, _INNER, wide, long, num_warps=2 if long == _INNER else 4, num_stages=3,
    )  # fmt: skip
    weight, bias = laid(found, kernel, ins)
    return weight, bias if biased else None


def laid(found: torch.Tensor, kernel: tuple[int, int], ins: int) -> tuple[torch.Tensor, torch.Tensor]:
    """The sum of parts ``[parts, participants, height * width * ins and more, outs]``, as a weight is, and its last row."""
    whole = found.sum(0) if len(found) > 1 else found[0]
    weight = whole[:, : kernel[0] * kernel[1] * ins].unflatten(1, (*kernel, ins))
    return weight.permute(0, 4, 3, 1, 2), whole[:, -1]


def _long(inner: int) -> int:
    """Rows of a block of a weight's gradient: 128, if no more than an eighth of them are for nothing."""
    if inner <= _INNER:
        return _INNER
    return 128 if triton.cdiv(inner, 128) * 128 * 8 <= inner * 9 else 64


def _launch(
    value: torch.Tensor,
    weight: torch.Tensor,
    bias: torch.Tensor | None,
    size: tuple[int, int, int],
    window: Window,
    *,
    backward: bool,
) -> torch.Tensor:
    """Weights are ``[participants, outs of the product, ins, height, width]``."""
    count, batch, ins = value.shape[:3]
    outs, height, width = size
    # Matrix units read them along the inner axis of the product, and parted in two.
    parted = value.new_empty(2, count, *weight.shape[3:], outs, ins)
    blocks = triton.cdiv(outs, _ROWS) * triton.cdiv(ins, _ROWS)
    launch(
        _part, (blocks, parted[0, 0, ..., 0, 0].numel(), count), weight, parted[0], parted[1], *weight.stride(),
        outs, ins, weight.shape[4], _ROWS, num_warps=4,
    )  # fmt: skip
    rows = batch * height * width
    wide = min(64, max(16, triton.next_power_of_2(outs)))
    result = value.new_empty(count, batch, height, width, outs)
    grid = (triton.cdiv(rows, _ROWS), triton.cdiv(outs, wide), count)
    launch(
        _product, grid, value, parted[0], parted[1], value if bias is None else bias, result, rows, *value.stride(),
        0 if bias is None else bias.stride(0),
        ins, outs, value.shape[3], value.shape[4], height, width, *weight.shape[3:],
        *window.stride, *window.padding, *window.dilation,
        min(ins & -ins, _INNER), bias is not None, backward, _ROWS, wide, _INNER, num_warps=4, num_stages=3,
    )  # fmt: skip
    return result.permute(0, 1, 4, 2, 3)


@triton.jit
def place_of(o, k, STRIDE: tl.constexpr, PAD: tl.constexpr, DILATION: tl.constexpr, BACKWARD: tl.constexpr):
    """Where output place ``o`` reads through place ``k`` of the kernel, and whether that is one at all."""
    if BACKWARD:
        at = o + PAD - k * DILATION
        return at // STRIDE, (at >= 0) & (at % STRIDE == 0)
    else:  # noqa: RET505  Triton compiles one of the two
        at = o * STRIDE - PAD + k * DILATION
        return at, at >= 0


@triton.jit
def _high(value):
    """The nearest number of matrix units' shorter format; what is left is one too, but for the last bits of float32."""
    return ((value.to(tl.int32, bitcast=True) + 4096) & -8192).to(tl.float32, bitcast=True)


@triton.jit
def _part(
    weight, highs, lows, wa, wo, wi, wh, ww, OUTS: tl.constexpr, INS: tl.constexpr, KW: tl.constexpr, SIDE: tl.constexpr
):  # fmt: skip
    place, a = tl.program_id(1), tl.program_id(2).to(tl.int64)
    blocks: tl.constexpr = (INS + SIDE - 1) // SIDE
    o = (tl.program_id(0) // blocks * SIDE + tl.arange(0, SIDE))[:, None]
    i = (tl.program_id(0) % blocks * SIDE + tl.arange(0, SIDE))[None, :]
    good = (o < OUTS) & (i < INS)
    value = tl.load(weight + a * wa + place // KW * wh + place % KW * ww + o * wo + i * wi, good, 0.0)
    high = _high(value)
    at = (a * tl.num_programs(1) + place) * (OUTS * INS) + o * INS + i
    tl.store(highs + at, high, good)
    tl.store(lows + at, value - high, good)


@triton.jit(do_not_specialize=["rows"])
def _product(
    value, highs, lows, bias, result, rows, va, vb, vc, vh, vw, ba,
    INS: tl.constexpr, OUTS: tl.constexpr, H: tl.constexpr, W: tl.constexpr, OH: tl.constexpr, OW: tl.constexpr,
    KH: tl.constexpr, KW: tl.constexpr, SH: tl.constexpr, SW: tl.constexpr, PH: tl.constexpr, PW: tl.constexpr,
    DH: tl.constexpr, DW: tl.constexpr, RUN: tl.constexpr, BIASED: tl.constexpr, BACKWARD: tl.constexpr,
    ROWS: tl.constexpr, WIDE: tl.constexpr, INNER: tl.constexpr,
):  # fmt: skip
    a = tl.program_id(2).to(tl.int64)
    m = tl.program_id(0) * ROWS + tl.arange(0, ROWS)
    n = tl.program_id(1) * WIDE + tl.arange(0, WIDE)
    i = tl.arange(0, INNER)
    inside = m < rows
    b, y, x = m // (OH * OW), (m // OW) % OH, m % OW
    length: tl.constexpr = KH * KW * INS
    source, off = value + a * va, b * vb
    one, other = highs + a * (length * OUTS), lows + a * (length * OUTS)
    tile = i[:, None] + (n * INS)[None, :]
    total = tl.zeros([ROWS, WIDE], tl.float32)
    for start in range(0, length, INNER):
        k = start + i
        # RUN channels lie side by side, from a multiple of it on: without the hint each is loaded by itself.
        if RUN == INNER:
            # One place of the kernel.
            place, c = start // INS, tl.multiple_of(start % INS, INNER)
            ih, up = place_of(y, place // KW, SH, PH, DH, BACKWARD)
            iw, left = place_of(x, place % KW, SW, PW, DW, BACKWARD)
            good = inside & up & left & (ih < H) & (iw < W)
            near = tl.load(
                source + ((off + ih * vh + iw * vw)[:, None] + (c + i)[None, :] * vc), good[:, None], 0.0
            )
            at, there = place * (INS * OUTS) + c + tile, (n < OUTS)[None, :]
        else:
            place, c = k // INS, tl.max_contiguous(tl.multiple_of(k % INS, RUN), RUN)
            ih, up = place_of(y[:, None], (place // KW)[None, :], SH, PH, DH, BACKWARD)
            iw, left = place_of(x[:, None], (place % KW)[None, :], SW, PW, DW, BACKWARD)
            good = inside[:, None] & (k < length)[None, :] & up & left & (ih < H) & (iw < W)
            near = tl.load(source + (off[:, None] + ih * vh + iw * vw + (c * vc)[None, :]), good, 0.0)
            at = (place * (INS * OUTS) + c)[:, None] + (n * INS)[None, :]
            there = (k < length)[:, None] & (n < OUTS)[None, :]
        if RUN == INNER and OUTS % WIDE == 0:
            far, rest = tl.load(one + at), tl.load(other + at)
        else:
            far, rest = tl.load(one + at, there, 0.0), tl.load(other + at, there, 0.0)
        high = _high(near)
        part = tl.dot(near - high, far, input_precision="tf32")
        part = tl.dot(high, rest, part, input_precision="tf32")
        # Matrix units round sums towards zero: long ones are made outside.
        total += tl.dot(high, far, part, input_precision="tf32")
    if BIASED:
        total += tl.load(bias + a * ba + n, n < OUTS, 0.0)[None, :]
    place = result + a * rows * OUTS + m[:, None] * OUTS + n[None, :]
    tl.store(place, total, inside[:, None] & (n < OUTS)[None, :])


@triton.jit(do_not_specialize=["count", "rows", "share"])
def _weights(
    value, grad, result, count, rows, share, va, vb, vc, vh, vw, ga, gb, gc, gh, gw,
    INS: tl.constexpr, OUTS: tl.constexpr, H: tl.constexpr, W: tl.constexpr, OH: tl.constexpr, OW: tl.constexpr,
    KH: tl.constexpr, KW: tl.constexpr, SH: tl.constexpr, SW: tl.constexpr, PH: tl.constexpr, PW: tl.constexpr,
    DH: tl.constexpr, DW: tl.constexpr, RUN: tl.constexpr, BIASED: tl.constexpr,
    ROWS: tl.constexpr, WIDE: tl.constexpr, INNER: tl.constexpr,
):  # fmt: skip
    slot = tl.program_id(2).to(tl.int64)
    a, part = slot % count, (slot // count).to(tl.int32)
    k = tl.program_id(0) * INNER + tl.arange(0, INNER)
    n = tl.program_id(1) * WIDE + tl.arange(0, WIDE)
    length: tl.constexpr = KH * KW * INS
    # As above.
    c = tl.max_contiguous(tl.multiple_of(k % INS, RUN), RUN)
    kh, kw = (k // INS // KW)[:, None], (k // INS % KW)[:, None]
    source = value + a * va
    total = tl.zeros([INNER, WIDE], tl.float32)
    bias = tl.zeros([WIDE], tl.float32)
    for first in range(part * share, tl.minimum((part + 1) * share, rows), ROWS):
        m = first + tl.arange(0, ROWS)
        inside = m < rows
        b, y, x = m // (OH * OW), (m // OW) % OH, m % OW
        ih, up = place_of(y[None, :], kh, SH, PH, DH, False)
        iw, left = place_of(x[None, :], kw, SW, PW, DW, False)
        good = inside[None, :] & (k < length)[:, None] & up & left & (ih < H) & (iw < W)
        near = tl.load(source + ((b * vb)[None, :] + ih * vh + iw * vw + (c * vc)[:, None]), good, 0.0)
        at = grad + a * ga + ((b * gb + y * gh + x * gw)[:, None] + (n * gc)[None, :])
        far = tl.load(at, inside[:, None] & (n < OUTS)[None, :], 0.0)
        total = tl.dot(near, far, total, input_precision="tf32x3")
        if BIASED:
            bias += tl.sum(far, 0)
    # The bias is one row more.
    place = result + slot * (length + BIASED) * OUTS + n
    tl.store(place[None, :] + k[:, None] * OUTS, total, (k < length)[:, None] & (n < OUTS)[None, :])
    if BIASED:  # noqa: SIM102  Triton compiles the outer question away
        if tl.program_id(0) == 0:
            tl.store(place + length * OUTS, bias, n < OUTS)
