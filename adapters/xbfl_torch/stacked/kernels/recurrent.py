"""A step of time of an LSTM, forwards and backwards; gates and rows of the weight lie input, forget, cell, output."""

from __future__ import annotations

import torch
import triton
import triton.language as tl
from triton.language.extra import libdevice

from xbfl_torch.stacked.kernels.launching import launch

_BLOCK = 512
_UNITS = 32
_INNER = 32


def fits(hidden: int, batch: int) -> bool:
    """Whether blocks of hidden units are whole, and a batch one block."""
    return hidden % _UNITS == 0 and batch <= 64


def forward(
    gates: torch.Tensor,
    weight: torch.Tensor,
    state: torch.Tensor,
    cell: torch.Tensor,
    state_after: torch.Tensor,
    cell_after: torch.Tensor,
) -> None:
    """One step of time: adds ``state @ weight.T`` to ``gates [participants, batch, 4 * hidden]`` and activates them, both in place."""
    count, batch, hidden = cell.shape
    launch(
        _forward, (hidden // _UNITS, count), gates, weight, state, cell, state_after, cell_after, weight.stride(0), batch,
        hidden, max(16, triton.next_power_of_2(batch)), _UNITS, _INNER, num_warps=4, num_stages=3,
    )  # fmt: skip


def below(gates: torch.Tensor, weight: torch.Tensor, result: torch.Tensor) -> None:
    """``result = gates [participants, batch, 4 * hidden] @ weight [participants, 4 * hidden, hidden]``."""
    count, batch, hidden = result.shape
    launch(
        _product, (hidden // _UNITS, count), gates, weight, result, weight.stride(0), batch,
        hidden, max(16, triton.next_power_of_2(batch)), _UNITS, 64, num_warps=4, num_stages=3,
    )  # fmt: skip


def backward(
    gates: torch.Tensor,
    before: torch.Tensor,
    after: torch.Tensor,
    above: torch.Tensor,
    d_state: torch.Tensor,
    d_cell: torch.Tensor,
    below: torch.Tensor,
) -> None:
    """Writes the gradient of the gates to ``below`` and that of the earlier cell to ``d_cell``; the state's is ``above + d_state``."""
    number = before.numel()
    grid = (triton.cdiv(number, _BLOCK),)
    launch(
        _backward, grid, gates, before, after, above, d_state, d_cell, below, number, before.shape[-1], _UNITS, _BLOCK, num_warps=4
    )  # fmt: skip


@triton.jit(do_not_specialize=["batch"])
def _forward(
    gates, weight, state, cell, state_after, cell_after, stride, batch,
    HIDDEN: tl.constexpr, ROWS: tl.constexpr, UNITS: tl.constexpr, INNER: tl.constexpr,
):  # fmt: skip
    a = tl.program_id(1).to(tl.int64)
    u, r, k = tl.program_id(0) * UNITS + tl.arange(0, UNITS), tl.arange(0, ROWS), tl.arange(0, INNER)
    good = (r < batch)[:, None]
    place = gates + a * batch * (4 * HIDDEN) + r[:, None] * (4 * HIDDEN) + u[None, :]
    i, f = tl.load(place, good, 0.0), tl.load(place + HIDDEN, good, 0.0)
    g, o = tl.load(place + 2 * HIDDEN, good, 0.0), tl.load(place + 3 * HIDDEN, good, 0.0)
    before = state + a * batch * HIDDEN + r[:, None] * HIDDEN
    own = weight + a * stride + u[None, :] * HIDDEN
    for start in range(0, HIDDEN, INNER):
        left = tl.load(before + (start + k)[None, :], good, 0.0)
        at = own + (start + k)[:, None]
        i = tl.dot(left, tl.load(at), i, input_precision="tf32x3")
        f = tl.dot(left, tl.load(at + HIDDEN * HIDDEN), f, input_precision="tf32x3")
        g = tl.dot(left, tl.load(at + 2 * HIDDEN * HIDDEN), g, input_precision="tf32x3")
        o = tl.dot(left, tl.load(at + 3 * HIDDEN * HIDDEN), o, input_precision="tf32x3")
    i, f, g, o = tl.sigmoid(i), tl.sigmoid(f), libdevice.tanh(g), tl.sigmoid(o)
    e = a * batch * HIDDEN + r[:, None] * HIDDEN + u[None, :]
    now = f * tl.load(cell + e, good, 0.0) + i * g
    tl.store(place, i, good)
    tl.store(place + HIDDEN, f, good)
    tl.store(place + 2 * HIDDEN, g, good)
    tl.store(place + 3 * HIDDEN, o, good)
    tl.store(cell_after + e, now, good)
    tl.store(state_after + e, o * libdevice.tanh(now), good)


@triton.jit(do_not_specialize=["batch"])
def _product(
    gates, weight, result, stride, batch,
    HIDDEN: tl.constexpr, ROWS: tl.constexpr, UNITS: tl.constexpr, INNER: tl.constexpr,
):  # fmt: skip
    a = tl.program_id(1).to(tl.int64)
    u, r, k = tl.program_id(0) * UNITS + tl.arange(0, UNITS), tl.arange(0, ROWS), tl.arange(0, INNER)
    good = (r < batch)[:, None]
    total = tl.zeros([ROWS, UNITS], tl.float32)
    for start in range(0, 4 * HIDDEN, INNER):
        left = tl.load(
            gates + a * batch * (4 * HIDDEN) + r[:, None] * (4 * HIDDEN) + (start + k)[None, :], good, 0.0
        )
        right = tl.load(weight + a * stride + (start + k)[:, None] * HIDDEN + u[None, :])
        total = tl.dot(left, right, total, input_precision="tf32x3")
    tl.store(result + a * batch * HIDDEN + r[:, None] * HIDDEN + u[None, :], total, good)


@triton.jit
def _backward(
    gates, before, after, above, d_state, d_cell, below, number,
    HIDDEN: tl.constexpr, UNITS: tl.constexpr, BLOCK: tl.constexpr,
):  # fmt: skip
    e = tl.program_id(0) * BLOCK + tl.arange(0, BLOCK)
    good = e < number
    # Of a remainder Triton does not see that values lie side by side, here in whole blocks of units.
    far = (e // HIDDEN).to(tl.int64) * (4 * HIDDEN) + tl.max_contiguous(
        tl.multiple_of(e % HIDDEN, UNITS), UNITS
    )
    place, out = gates + far, below + far
    i, f = tl.load(place, good, 0.0), tl.load(place + HIDDEN, good, 0.0)
    g, o = tl.load(place + 2 * HIDDEN, good, 0.0), tl.load(place + 3 * HIDDEN, good, 0.0)
    shown = libdevice.tanh(tl.load(after + e, good, 0.0))
    state = tl.load(d_state + e, good, 0.0) + tl.load(above + e, good, 0.0)
    cell = tl.load(d_cell + e, good, 0.0) + state * o * (1.0 - shown * shown)
    tl.store(out, cell * g * i * (1.0 - i), good)
    tl.store(out + HIDDEN, cell * tl.load(before + e, good, 0.0) * f * (1.0 - f), good)
    tl.store(out + 2 * HIDDEN, cell * i * (1.0 - g * g), good)
    tl.store(out + 3 * HIDDEN, state * shown * o * (1.0 - o), good)
    tl.store(d_cell + e, cell * f, good)
