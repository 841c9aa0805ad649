"""The largest values of windows that lie side by side, in images ``[participants, batch, height, width, channels]``."""

from __future__ import annotations

import torch
import triton
import triton.language as tl

from xbfl_torch.stacked.kernels.launching import launch

_BLOCK = 4096


def forward(value: torch.Tensor, window: tuple[int, int]) -> tuple[torch.Tensor, torch.Tensor]:
    """The largest value of each window, and which of the window's places holds it: the first of several."""
    count, batch, height, width, channels = value.shape
    size = (count, batch, height // window[0], width // window[1], channels)
    result, chosen = value.new_empty(size), value.new_empty(size, dtype=torch.int8)
    rows, wide = batch * size[2] * size[3], _wide(channels)
    grid = (triton.cdiv(rows * wide, _BLOCK), triton.cdiv(channels, wide), count)
    launch(
        _forward, grid, value, result, chosen, rows, channels, height, width, *size[2:4], *window, _BLOCK // wide, wide, num_warps=4
    )  # fmt: skip
    return result, chosen


def backward(
    grad: torch.Tensor, chosen: torch.Tensor, height: int, width: int, window: tuple[int, int]
) -> torch.Tensor:
    """The gradient of images of this height and width."""
    count, batch, *size, channels = grad.shape
    result = grad.new_empty(count, batch, height, width, channels)
    rows, wide = batch * height * width, _wide(channels)
    grid = (triton.cdiv(rows * wide, _BLOCK), triton.cdiv(channels, wide), count)
    launch(
        _backward, grid, grad, chosen, result, rows, channels, height, width, *size, *window, _BLOCK // wide, wide, num_warps=4
    )  # fmt: skip
    return result


def _wide(channels: int) -> int:
    # Layers of 32 channels and of more share their kernels, which take a second to compile.
    return min(32, max(16, triton.next_power_of_2(channels)))


@triton.jit(do_not_specialize=["rows", "height", "width", "down", "right"])
def _forward(
    value, result, chosen, rows, channels, height, width, down, right,
    KH: tl.constexpr, KW: tl.constexpr, ROWS: tl.constexpr, WIDE: tl.constexpr,
):  # fmt: skip
    a = tl.program_id(2).to(tl.int64)
    m = tl.program_id(0) * ROWS + tl.arange(0, ROWS)
    c = (tl.program_id(1) * WIDE + tl.arange(0, WIDE))[None, :]
    b, y, x = m // (down * right), (m // right) % down, m % right
    good = (m < rows)[:, None] & (c < channels)
    # Of an image all rows and columns are there, of which windows may leave some out.
    images = a * (rows // (down * right)) * (height * width * channels)
    corner = value + images + ((b * height + y * KH) * width + x * KW)[:, None] * channels + c
    best = tl.load(corner, good, 0.0)
    where = tl.zeros([ROWS, WIDE], tl.int32)
    for k in tl.static_range(1, KH * KW):
        now = tl.load(corner + ((k // KW) * width + k % KW) * channels, good, 0.0)
        larger = (now > best) | ~(now <= float("inf"))  # or a NaN
        best, where = tl.where(larger, now, best), tl.where(larger, k, where)
    at = (a * rows + m[:, None]) * channels + c
    tl.store(result + at, best, good)
    tl.store(chosen + at, where.to(tl.int8), good)


@triton.jit
def window_of(
    chosen, m, c, good, height, width, down, right, KH: tl.constexpr, KW: tl.constexpr, channels
):  # fmt: skip
    """Where the windows of places ``m`` of a participant's images lie, and whether these are the largest of them."""
    b, y, x = m // (height * width), (m // width) % height, m % width
    there = good & ((y // KH < down) & (x // KW < right))[:, None]
    at = ((b * down + y // KH) * right + x // KW)[:, None] * channels + c
    own = ((y % KH) * KW + x % KW)[:, None]
    return at, there & (tl.load(chosen + at, there, -1).to(tl.int32) == own)


@triton.jit(do_not_specialize=["rows", "height", "width", "down", "right"])
def _backward(
    grad, chosen, result, rows, channels, height, width, down, right,
    KH: tl.constexpr, KW: tl.constexpr, ROWS: tl.constexpr, WIDE: tl.constexpr,
):  # fmt: skip
    a = tl.program_id(2).to(tl.int64)
    m = tl.program_id(0) * ROWS + tl.arange(0, ROWS)
    c = (tl.program_id(1) * WIDE + tl.arange(0, WIDE))[None, :]
    good = (m < rows)[:, None] & (c < channels)
    images = a * (rows // (height * width)) * (down * right * channels)
    at, mine = window_of(chosen + images, m, c, good, height, width, down, right, KH, KW, channels)
    tl.store(result + (a * rows + m[:, None]) * channels + c, tl.load(grad + images + at, mine, 0.0), good)
