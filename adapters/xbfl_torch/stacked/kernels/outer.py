"""Dense layers with a weight of everybody's own, ``[participants, out, in]``, of which each participant's lies side by side.

A participant's batch has a dozen rows, so that a product is a pass over its weight, and a step of SGD one that writes it too: its gradient,
a product of what the layer saw, is never written down.
"""

from __future__ import annotations

import torch
import triton
import triton.language as tl

from xbfl_torch.stacked.kernels.launching import launch

MAX_ROWS = 64
"""Rows of a participant's batch up to which these kernels are used."""

_LEAST = 16
"""Smallest side of a product."""

_WARPS = 4


def forward(value: torch.Tensor, weight: torch.Tensor, bias: torch.Tensor | None) -> torch.Tensor:
    """``value [participants, rows, in] @ weight.transpose(1, 2) + bias [participants, out]``."""
    (count, rows, ins), outs = value.shape, weight.shape[1]
    result = value.new_empty(count, rows, outs)
    some = value if bias is None else bias
    launch(
        _forward, (triton.cdiv(outs, 32), count), value, weight, some, result, rows, outs, ins, weight.stride(0), some.stride(0),
        bias is not None, _side(rows), 32, _WARPS, 32, num_warps=_WARPS, num_stages=3,
    )  # fmt: skip
    return result


def backward(grad: torch.Tensor, weight: torch.Tensor) -> torch.Tensor:
    """``grad [participants, rows, out] @ weight``."""
    (count, rows, outs), ins = grad.shape, weight.shape[2]
    result = grad.new_empty(count, rows, ins)
    launch(
        _backward, (triton.cdiv(ins, 64), count), grad, weight, result, rows, outs, ins, weight.stride(0),
        _side(rows), 64, 32, num_warps=4, num_stages=3,
    )  # fmt: skip
    return result


def descend(
    weight: torch.Tensor,
    left: torch.Tensor,
    right: torch.Tensor,
    scales: torch.Tensor | None,
    active: torch.Tensor,
    lr: torch.Tensor,
    weight_decay: float,
) -> None:
    """``weight -= lr * (scales * left.transpose(1, 2) @ right + weight_decay * weight)`` of those that are active."""
    (count, rows, outs), ins = left.shape, right.shape[2]
    scaled = scales is not None
    launch(
        _descend, (triton.cdiv(ins, 128), triton.cdiv(outs, 32), count), weight, left, right, scales if scaled else lr, active, lr,
        rows, outs, ins, weight.stride(0), weight_decay, scaled, _side(rows), 32, 128, num_warps=4,
    )  # fmt: skip


def _side(rows: int) -> int:
    return max(_LEAST, triton.next_power_of_2(rows))


@triton.jit(do_not_specialize=["rows", "ba"])
def _forward(
    value, weight, bias, result, rows, outs, ins, wa, ba,
    BIASED: tl.constexpr, SIDE: tl.constexpr, WIDE: tl.constexpr, PARTS: tl.constexpr, INNER: tl.constexpr,
):  # fmt: skip
    a = tl.program_id(1).to(tl.int64)
    o, r = tl.program_id(0) * WIDE + tl.arange(0, WIDE), tl.arange(0, SIDE)
    part, i = tl.arange(0, PARTS)[:, None, None] * INNER, tl.arange(0, INNER)
    one, two = value + a * rows * ins, weight + a * wa
    # Of the inner axis every warp has a part: one chain of products would be as slow as it is long.
    total = tl.zeros([PARTS, SIDE, WIDE], tl.float32)
    for start in range(0, ins, PARTS * INNER):
        near, far = start + part + i[None, None, :], start + part + i[None, :, None]
        left = tl.load(one + r[None, :, None] * ins + near, (r < rows)[None, :, None] & (near < ins), 0.0)
        right = tl.load(two + o[None, None, :] * ins + far, (o < outs)[None, None, :] & (far < ins), 0.0)
        total += tl.dot(left, right, input_precision="tf32x3")
    found = tl.sum(total, 0)
    if BIASED:
        found += tl.load(bias + a * ba + o, o < outs, 0.0)[None, :]
    place = result + (a * rows + r[:, None]) * outs + o[None, :]
    tl.store(place, found, (r < rows)[:, None] & (o < outs)[None, :])


@triton.jit(do_not_specialize=["rows"])
def _backward(
    grad, weight, result, rows, outs, ins, wa, SIDE: tl.constexpr, WIDE: tl.constexpr, INNER: tl.constexpr
):
    a = tl.program_id(1).to(tl.int64)
    i, r, o = tl.program_id(0) * WIDE + tl.arange(0, WIDE), tl.arange(0, SIDE), tl.arange(0, INNER)
    total = tl.zeros([SIDE, WIDE], tl.float32)
    for start in range(0, outs, INNER):
        k = start + o
        left = tl.load(
            grad + (a * rows + r[:, None]) * outs + k[None, :], (r < rows)[:, None] & (k < outs)[None, :], 0.0
        )
        at = weight + a * wa + k[:, None] * ins + i[None, :]
        right = tl.load(at, (k < outs)[:, None] & (i < ins)[None, :], 0.0)
        total += tl.dot(left, right, input_precision="tf32x3")
    place = result + (a * rows + r[:, None]) * ins + i[None, :]
    tl.store(place, total, (r < rows)[:, None] & (i < ins)[None, :])


@triton.jit(do_not_specialize=["rows", "weight_decay"])
def _descend(
    weight, left, right, scales, active, lr, rows, outs, ins, wa, weight_decay,
    SCALED: tl.constexpr, SIDE: tl.constexpr, HIGH: tl.constexpr, WIDE: tl.constexpr,
):  # fmt: skip
    a = tl.program_id(2).to(tl.int64)
    if tl.load(active + a) == 0:
        return
    i, o = tl.program_id(0) * WIDE + tl.arange(0, WIDE), tl.program_id(1) * HIGH + tl.arange(0, HIGH)
    r = tl.arange(0, SIDE)
    one = tl.load(
        left + (a * rows + r[None, :]) * outs + o[:, None], (r < rows)[None, :] & (o < outs)[:, None], 0.0
    )
    if SCALED:
        one = one * tl.load(scales + a)
    two = tl.load(
        right + (a * rows + r[:, None]) * ins + i[None, :], (r < rows)[:, None] & (i < ins)[None, :], 0.0
    )
    place = weight + a * wa + o[:, None] * ins + i[None, :]
    good = (o < outs)[:, None] & (i < ins)[None, :]
    value = tl.load(place, good, 0.0)
    change = tl.dot(one, two, input_precision="tf32x3") + weight_decay * value
    tl.store(place, value - tl.load(lr) * change, good)
