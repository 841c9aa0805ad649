"""The largest values of windows that lie side by side, in images ``[participants, batch, height, width, channels]``."""

from __future__ import annotations

import torch
import triton
import triton.language as tl

from xbfl_torch.stacked.kernels.launching import launch

MAX_PLACES = 128
"""Of a window: which of them is the largest is kept in eight bits."""

_BLOCK = 1024


def forward(value: torch.Tensor, window: tuple[int, int]) -> tuple[torch.Tensor, torch.Tensor]:
    """The largest value of each window, and which of the window's places holds it: the first of several."""
    count, batch, height, width, channels = value.shape
    size = (count, batch, height // window[0], width // window[1], channels)
    result, chosen = value.new_empty(size), value.new_empty(size, dtype=torch.int8)
    rows, wide = batch * size[2] * size[3], _wide(channels)
    grid = (triton.cdiv(rows * wide, _BLOCK), triton.cdiv(channels, wide), count)
    launch(
        _forward, grid, value, result, chosen, rows, channels, height, width, *size[2:4], *window, _BLOCK // wide, wide, num_warps=8
    )  # fmt: skip
    return result, chosen


def backward(
    grad: torch.Tensor, chosen: torch.Tensor, height: int, width: int, window: tuple[int, int]
) -> torch.Tensor:
    """The gradient of images of this height and width."""
    count, batch, channels = *grad.shape[:2], grad.shape[-1]
    result = grad.new_empty(count, batch, height, width, channels)
    wide = _wide(channels)
    rows = batch * triton.cdiv(height, window[0]) * triton.cdiv(width, window[1])
    grid = (triton.cdiv(rows * wide, _BLOCK), triton.cdiv(channels, wide), count)
    launch(
        _backward, grid, grad, chosen, result, rows, channels, batch, height, width, *window, _BLOCK // wide, wide, num_warps=8
    )  # fmt: skip
    return result


def _wide(channels: int) -> int:
    # Layers of 32 channels and of more share their kernels, which take a second to compile.
    return min(32, max(16, triton.next_power_of_2(channels)))


@triton.jit
def window_of(m, down, right):
    """The image in which window ``m`` of a participant lies, and how many windows lie above it and left of it there."""
    line = m // right
    image = line // down
    return image, line - image * down, m - line * right


@triton.jit(do_not_specialize=["rows", "height", "width", "down", "right"])
def _forward(
    value, result, chosen, rows, channels, height, width, down, right,
    KH: tl.constexpr, KW: tl.constexpr, ROWS: tl.constexpr, WIDE: tl.constexpr,
):  # fmt: skip
    a = tl.program_id(2).to(tl.int64)
    m = tl.program_id(0) * ROWS + tl.arange(0, ROWS)
    c = (tl.program_id(1) * WIDE + tl.arange(0, WIDE))[None, :]
    b, y, x = window_of(m, down, right)
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


@triton.jit(do_not_specialize=["rows", "batch", "height", "width"])
def _backward(
    grad, chosen, result, rows, channels, batch, height, width,
    KH: tl.constexpr, KW: tl.constexpr, ROWS: tl.constexpr, WIDE: tl.constexpr,
):  # fmt: skip
    """Of windows ``rows``, with those that the edge cuts: they have no gradient."""
    a = tl.program_id(2).to(tl.int64)
    m = tl.program_id(0) * ROWS + tl.arange(0, ROWS)
    c = (tl.program_id(1) * WIDE + tl.arange(0, WIDE))[None, :]
    b, y, x = window_of(m, tl.cdiv(height, KH), tl.cdiv(width, KW))
    down, right = height // KH, width // KW
    good = (m < rows)[:, None] & (c < channels)
    whole = good & ((y < down) & (x < right))[:, None]
    at = (a * batch * down * right + ((b * down + y) * right + x)[:, None]) * channels + c
    found, own = tl.load(grad + at, whole, 0.0), tl.load(chosen + at, whole, -1).to(tl.int32)
    corner = (a * batch * height * width + ((b * height + y * KH) * width + x * KW)[:, None]) * channels + c
    for k in tl.static_range(KH * KW):
        there = good & ((y * KH + k // KW < height) & (x * KW + k % KW < width))[:, None]
        place = corner + ((k // KW) * width + k % KW) * channels
        tl.store(result + place, tl.where(own == k, found, 0.0), there)
