"""Convolutions of images, every participant with its own kernel, as one product of matrices that are never written down.

Outputs lie channels last. Rows of the product are places of the output, its inner axis runs over the places of the kernel and the input's
channels, the channels innermost.
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


def forward(
    value: torch.Tensor, weight: torch.Tensor, bias: torch.Tensor | None, window: Window
) -> torch.Tensor:
    """``value [participants, batch, in, height, width]`` by ``weight [participants, out, in, height, width]``."""
    (s, p, d), (outs, _, kh, kw) = window, weight.shape[1:]
    height = (value.shape[3] + 2 * p[0] - d[0] * (kh - 1) - 1) // s[0] + 1
    width = (value.shape[4] + 2 * p[1] - d[1] * (kw - 1) - 1) // s[1] + 1
    return _launch(value, _laid(weight), bias, (outs, height, width), window, backward=False)


def input_gradient(
    grad: torch.Tensor, weight: torch.Tensor, size: tuple[int, int], window: Window
) -> torch.Tensor:
    """Of an input of ``size``: ``[participants, batch, in, *size]``."""
    return _launch(grad, _laid(weight), None, (weight.shape[2], *size), window, backward=True)


def weight_gradient(
    value: torch.Tensor, grad: torch.Tensor, kernel: tuple[int, int], window: Window, *, biased: bool
) -> tuple[torch.Tensor, torch.Tensor | None]:
    """Gradients of ``weight`` and of the bias, ``[participants, out]``."""
    count, batch, ins, height, width = value.shape
    outs, rows = grad.shape[2], batch * grad.shape[3] * grad.shape[4]
    inner = kernel[0] * kernel[1] * ins
    wide = min(64, max(16, triton.next_power_of_2(outs)))
    long = 64 if ins % _INNER == 0 else _INNER
    blocks = triton.cdiv(inner, long) * triton.cdiv(outs, wide)
    parts = max(1, min(triton.cdiv(_PROGRAMS, blocks * count), triton.cdiv(rows, 256)))
    share = triton.cdiv(triton.cdiv(rows, parts), _ROWS) * _ROWS
    found = value.new_empty(parts, count, inner, outs)
    sums = value.new_empty(parts, count, outs) if biased else found
    grid = (triton.cdiv(inner, long), triton.cdiv(outs, wide), parts * count)
    launch(
        _weights, grid, value, grad, found, sums, count, rows, share, *value.stride(), *grad.stride(),
        ins, outs, height, width, grad.shape[3], grad.shape[4], *kernel, *window.stride, *window.padding, *window.dilation,
        ins % long == 0, biased, _ROWS, wide, long, num_warps=4, num_stages=2,
    )  # fmt: skip
    whole = found.sum(0) if parts > 1 else found[0]
    weight = whole.view(count, *kernel, ins, outs).permute(0, 4, 3, 1, 2)
    if not biased:
        return weight, None
    return weight, sums.sum(0) if parts > 1 else sums[0]


def _laid(weight: torch.Tensor) -> torch.Tensor:
    """``[participants, height, width, in, out]``, of which all but the first axis is one block of memory."""
    laid = weight.permute(0, 3, 4, 2, 1)
    return laid if laid[0].is_contiguous() else laid.contiguous()


def _launch(
    value: torch.Tensor,
    weight: torch.Tensor,
    bias: torch.Tensor | None,
    size: tuple[int, int, int],
    window: Window,
    *,
    backward: bool,
) -> torch.Tensor:
    """Weights are ``[participants, height, width, in, out]``; backwards their last two axes change places."""
    count, batch, ins = value.shape[:3]
    outs, height, width = size
    rows = batch * height * width
    wide = min(64, max(16, triton.next_power_of_2(outs)))
    result = value.new_empty(count, batch, height, width, outs)
    grid = (triton.cdiv(rows, _ROWS), triton.cdiv(outs, wide), count)
    launch(
        _product, grid, value, weight, weight if bias is None else bias, result, rows, *value.stride(), weight.stride(0),
        0 if bias is None else bias.stride(0),
        ins, outs, value.shape[3], value.shape[4], height, width, weight.shape[1], weight.shape[2],
        *window.stride, *window.padding, *window.dilation,
        ins % _INNER == 0, bias is not None, backward, _ROWS, wide, _INNER, num_warps=4, num_stages=3,
    )  # fmt: skip
    return result.permute(0, 1, 4, 2, 3)


@triton.jit
def _place(o, k, STRIDE: tl.constexpr, PAD: tl.constexpr, DILATION: tl.constexpr, BACKWARD: tl.constexpr):
    """Where output place ``o`` reads through place ``k`` of the kernel, and whether that is one at all."""
    if BACKWARD:
        at = o + PAD - k * DILATION
        return at // STRIDE, (at >= 0) & (at % STRIDE == 0)
    else:  # noqa: RET505  Triton compiles one of the two
        at = o * STRIDE - PAD + k * DILATION
        return at, at >= 0


@triton.jit(do_not_specialize=["rows"])
def _product(
    value, weight, bias, result, rows, va, vb, vc, vh, vw, wa, ba,
    INS: tl.constexpr, OUTS: tl.constexpr, H: tl.constexpr, W: tl.constexpr, OH: tl.constexpr, OW: tl.constexpr,
    KH: tl.constexpr, KW: tl.constexpr, SH: tl.constexpr, SW: tl.constexpr, PH: tl.constexpr, PW: tl.constexpr,
    DH: tl.constexpr, DW: tl.constexpr, WHOLE: tl.constexpr, BIASED: tl.constexpr, BACKWARD: tl.constexpr,
    ROWS: tl.constexpr, WIDE: tl.constexpr, INNER: tl.constexpr,
):  # fmt: skip
    a = tl.program_id(2).to(tl.int64)
    m = tl.program_id(0) * ROWS + tl.arange(0, ROWS)
    n = tl.program_id(1) * WIDE + tl.arange(0, WIDE)
    i = tl.arange(0, INNER)
    inside = m < rows
    b, y, x = m // (OH * OW), (m // OW) % OH, m % OW
    length: tl.constexpr = KH * KW * INS
    source = value + a * va + b * vb
    kernel = weight + a * wa
    total = tl.zeros([ROWS, WIDE], tl.float32)
    for start in range(0, length, INNER):
        k = start + i
        if WHOLE:
            # One place of the kernel.
            place, c = start // INS, start % INS
            ih, up = _place(y, place // KW, SH, PH, DH, BACKWARD)
            iw, left = _place(x, place % KW, SW, PW, DW, BACKWARD)
            good = inside & up & left & (ih < H) & (iw < W)
            near = tl.load((source + ih * vh + iw * vw)[:, None] + (c + i)[None, :] * vc, good[:, None], 0.0)
        else:
            place, c = k // INS, k % INS
            ih, up = _place(y[:, None], (place // KW)[None, :], SH, PH, DH, BACKWARD)
            iw, left = _place(x[:, None], (place % KW)[None, :], SW, PW, DW, BACKWARD)
            good = inside[:, None] & (k < length)[None, :] & up & left & (ih < H) & (iw < W)
            near = tl.load(source[:, None] + ih * vh + iw * vw + (c * vc)[None, :], good, 0.0)
        if BACKWARD:
            at = ((k // INS) * (INS * OUTS) + k % INS)[:, None] + (n * INS)[None, :]
        else:
            at = k[:, None] * OUTS + n[None, :]
        if WHOLE and OUTS % WIDE == 0:
            far = tl.load(kernel + at)
        else:
            far = tl.load(kernel + at, (k < length)[:, None] & (n < OUTS)[None, :], 0.0)
        total = tl.dot(near, far, total, input_precision="tf32x3")
    if BIASED:
        total += tl.load(bias + a * ba + n, n < OUTS, 0.0)[None, :]
    place = result + a * rows * OUTS + m[:, None] * OUTS + n[None, :]
    tl.store(place, total, inside[:, None] & (n < OUTS)[None, :])


@triton.jit(do_not_specialize=["count", "rows", "share"])
def _weights(
    value, grad, result, sums, count, rows, share, va, vb, vc, vh, vw, ga, gb, gc, gh, gw,
    INS: tl.constexpr, OUTS: tl.constexpr, H: tl.constexpr, W: tl.constexpr, OH: tl.constexpr, OW: tl.constexpr,
    KH: tl.constexpr, KW: tl.constexpr, SH: tl.constexpr, SW: tl.constexpr, PH: tl.constexpr, PW: tl.constexpr,
    DH: tl.constexpr, DW: tl.constexpr, WHOLE: tl.constexpr, BIASED: tl.constexpr,
    ROWS: tl.constexpr, WIDE: tl.constexpr, INNER: tl.constexpr,
):  # fmt: skip
    slot = tl.program_id(2).to(tl.int64)
    a, part = slot % count, slot // count
    start = tl.program_id(0) * INNER
    k = start + tl.arange(0, INNER)
    n = tl.program_id(1) * WIDE + tl.arange(0, WIDE)
    length: tl.constexpr = KH * KW * INS
    total = tl.zeros([INNER, WIDE], tl.float32)
    bias = tl.zeros([WIDE], tl.float32)
    for first in range(part.to(tl.int32) * share, tl.minimum((part.to(tl.int32) + 1) * share, rows), ROWS):
        m = first + tl.arange(0, ROWS)
        inside = m < rows
        b, y, x = m // (OH * OW), (m // OW) % OH, m % OW
        if WHOLE:
            place, c = start // INS, start % INS
            ih, up = _place(y, place // KW, SH, PH, DH, False)
            iw, left = _place(x, place % KW, SW, PW, DW, False)
            good = inside & up & left & (ih < H) & (iw < W)
            from_ = value + a * va + b * vb + ih * vh + iw * vw
            near = tl.load(from_[None, :] + (c + tl.arange(0, INNER))[:, None] * vc, good[None, :], 0.0)
        else:
            place, c = k // INS, k % INS
            ih, up = _place(y[None, :], (place // KW)[:, None], SH, PH, DH, False)
            iw, left = _place(x[None, :], (place % KW)[:, None], SW, PW, DW, False)
            good = inside[None, :] & (k < length)[:, None] & up & left & (ih < H) & (iw < W)
            from_ = value + a * va + (b * vb)[None, :] + (c * vc)[:, None]
            near = tl.load(from_ + ih * vh + iw * vw, good, 0.0)
        at = grad + a * ga + (b * gb + y * gh + x * gw)[:, None] + (n * gc)[None, :]
        far = tl.load(at, inside[:, None] & (n < OUTS)[None, :], 0.0)
        total = tl.dot(near, far, total, input_precision="tf32x3")
        if BIASED:
            bias += tl.sum(far, 0)
    place = result + slot * length * OUTS + k[:, None] * OUTS + n[None, :]
    tl.store(place, total, (k < length)[:, None] & (n < OUTS)[None, :])
    if BIASED:  # noqa: SIM102  Triton compiles the outer question away
        if start == 0:
            tl.store(sums + slot * OUTS + n, bias, n < OUTS)
