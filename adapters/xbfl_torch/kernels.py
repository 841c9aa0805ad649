"""Triton kernels for the parts of a small step that PyTorch makes of many kernels, or of slow ones.

A participant's batch has a dozen rows. Then a dense layer is a pass over its weight, which the general matrix product makes at a fifth
of the speed of memory (10 x 3136 by 2048 on an H100: 63 us forward), and losses, norms and gathering are chains of kernels that do
nothing but start. Arrays are float32 and row-major. Products are exact to float32's rounding: three passes of the matrix units' shorter
format.
"""

from __future__ import annotations

import torch
import triton
import triton.language as tl

MOST_ROWS = 64
"""Rows of a batch up to which the dense kernels are used."""

MOST_SCORES = 1 << 14
"""Rows times classes, both rounded up to powers of two, up to which one program computes a loss."""

_LEAST = 16
"""Smallest side of a product."""


def dense(value: torch.Tensor, weight: torch.Tensor, bias: torch.Tensor | None) -> torch.Tensor:
    """``value [rows, in] @ weight.t() [in, out] + bias``."""
    rows, (outs, ins) = value.shape[0], weight.shape
    result = value.new_empty(rows, outs)
    _dense[(triton.cdiv(outs, 16),)](
        value,
        weight,
        bias if bias is not None else weight,
        result,
        rows,
        outs,
        ins,
        bias is not None,
        _side(rows),
        16,
        128,
        num_warps=4,
        num_stages=4,
    )
    return result


def dense_below(grad: torch.Tensor, weight: torch.Tensor) -> torch.Tensor:
    """``grad [rows, out] @ weight [out, in]``: what the layer below gets."""
    rows, (outs, ins) = grad.shape[0], weight.shape
    splits = min(4, triton.cdiv(outs, 128))
    share = triton.cdiv(triton.cdiv(outs, splits), 64) * 64
    parts = grad.new_empty(splits, rows, ins)
    _dense_below[(triton.cdiv(ins, 32), splits)](
        grad, weight, parts, rows, outs, ins, share, _side(rows), 32, 64, num_warps=4, num_stages=4
    )
    return parts.sum(0) if splits > 1 else parts[0]


def product_norm(rows: torch.Tensor, columns: torch.Tensor) -> torch.Tensor:
    """Euclidean norm of ``rows.t() @ columns`` without the product, a scalar."""
    result = rows.new_empty(())
    count = rows.shape[0]
    _product_norm[(1,)](
        rows, columns, result, count, rows.shape[1], columns.shape[1], _side(count), 128, num_warps=4
    )
    return result


def clip_scale(norms: torch.Tensor, limit: float) -> torch.Tensor:
    """``min(1, limit / (|norms| + 1e-6))``, a scalar."""
    result = norms.new_empty(())
    _clip_scale[(1,)](norms, result, norms.numel(), limit, triton.next_power_of_2(norms.numel()), num_warps=1)
    return result


def gather(data: torch.Tensor, rows: torch.Tensor, factor: float, offset: float) -> torch.Tensor:
    """Rows of ``data`` (bytes) as ``value * factor + offset``."""
    result = torch.empty((len(rows), *data.shape[1:]), device=data.device)
    width = data[0].numel()
    # Fused into one operation, product and sum would be rounded once and not twice as on a processor.
    _gather[(len(rows), triton.cdiv(width, 1024))](
        data, rows, result, width, factor, offset, 1024, num_warps=4, enable_fp_fusion=False
    )
    return result


def scores_fit(scores: torch.Tensor) -> bool:
    """Whether one program can compute the loss of these ``[rows, classes]``."""
    if scores.ndim != 2 or not scores.is_contiguous():
        return False
    return triton.next_power_of_2(scores.shape[0]) * triton.next_power_of_2(scores.shape[1]) <= MOST_SCORES


def cross_entropy(
    scores: torch.Tensor, targets: torch.Tensor, rows: torch.Tensor, totals: torch.Tensor
) -> torch.Tensor:
    """Gradient of the mean cross entropy with respect to ``scores [rows, classes]``.

    The sum of the losses and the number of right predictions are added to ``totals [2]``; ``targets`` are all classes, of which
    ``rows`` are these.
    """
    grad = torch.empty_like(scores)
    count, classes = scores.shape
    _cross_entropy[(1,)](
        scores,
        targets,
        rows,
        totals,
        grad,
        count,
        classes,
        triton.next_power_of_2(count),
        triton.next_power_of_2(classes),
        num_warps=4,
    )
    return grad


def _side(rows: int) -> int:
    return max(_LEAST, triton.next_power_of_2(rows))


@triton.jit
def _dense(
    value,
    weight,
    bias,
    result,
    rows,
    outs,
    ins,
    HAS_BIAS: tl.constexpr,
    ROWS: tl.constexpr,
    OUTS: tl.constexpr,
    INS: tl.constexpr,
):
    o = tl.program_id(0) * OUTS + tl.arange(0, OUTS)
    r = tl.arange(0, ROWS)
    total = tl.zeros([ROWS, OUTS], tl.float32)
    for start in range(0, ins, INS):
        i = start + tl.arange(0, INS)
        left = tl.load(value + r[:, None] * ins + i[None, :], (r[:, None] < rows) & (i[None, :] < ins), 0.0)
        right = tl.load(weight + o[None, :] * ins + i[:, None], (o[None, :] < outs) & (i[:, None] < ins), 0.0)
        total = tl.dot(left, right, total, input_precision="tf32x3")
    if HAS_BIAS:
        total += tl.load(bias + o, o < outs, 0.0)[None, :]
    tl.store(result + r[:, None] * outs + o[None, :], total, (r[:, None] < rows) & (o[None, :] < outs))


@triton.jit
def _dense_below(
    grad,
    weight,
    parts,
    rows,
    outs,
    ins,
    share,
    ROWS: tl.constexpr,
    INS: tl.constexpr,
    OUTS: tl.constexpr,
):
    i = tl.program_id(0) * INS + tl.arange(0, INS)
    part = tl.program_id(1)
    r = tl.arange(0, ROWS)
    total = tl.zeros([ROWS, INS], tl.float32)
    for start in range(part * share, tl.minimum((part + 1) * share, outs), OUTS):
        o = start + tl.arange(0, OUTS)
        left = tl.load(grad + r[:, None] * outs + o[None, :], (r[:, None] < rows) & (o[None, :] < outs), 0.0)
        right = tl.load(weight + o[:, None] * ins + i[None, :], (o[:, None] < outs) & (i[None, :] < ins), 0.0)
        total = tl.dot(left, right, total, input_precision="tf32x3")
    place = parts + part * rows * ins + r[:, None] * ins + i[None, :]
    tl.store(place, total, (r[:, None] < rows) & (i[None, :] < ins))


@triton.jit
def _gram(values, rows, width, ROWS: tl.constexpr, WIDTH: tl.constexpr):
    r = tl.arange(0, ROWS)
    total = tl.zeros([ROWS, ROWS], tl.float32)
    for start in range(0, width, WIDTH):
        i = start + tl.arange(0, WIDTH)
        tile = tl.load(
            values + r[:, None] * width + i[None, :], (r[:, None] < rows) & (i[None, :] < width), 0.0
        )
        total = tl.dot(tile, tl.trans(tile), total, input_precision="tf32x3")
    return total


@triton.jit
def _product_norm(
    left,
    right,
    result,
    rows,
    width_left,
    width_right,
    ROWS: tl.constexpr,
    WIDTH: tl.constexpr,
):
    square = _gram(left, rows, width_left, ROWS, WIDTH) * _gram(right, rows, width_right, ROWS, WIDTH)
    tl.store(result, tl.sqrt(tl.maximum(tl.sum(square), 0.0)))


@triton.jit
def _clip_scale(norms, result, count, limit, COUNT: tl.constexpr):
    place = tl.arange(0, COUNT)
    value = tl.load(norms + place, place < count, 0.0)
    tl.store(result, tl.minimum(limit / (tl.sqrt(tl.sum(value * value)) + 1e-6), 1.0))


@triton.jit
def _gather(data, rows, result, width, factor, offset, WIDTH: tl.constexpr):
    row = tl.program_id(0)
    i = tl.program_id(1) * WIDTH + tl.arange(0, WIDTH)
    value = tl.load(data + tl.load(rows + row) * width + i, i < width, 0).to(tl.float32)
    tl.store(result + row * width + i, value * factor + offset, i < width)


@triton.jit
def _cross_entropy(
    scores,
    targets,
    rows,
    totals,
    grad,
    count,
    classes,
    ROWS: tl.constexpr,
    CLASSES: tl.constexpr,
):
    r, c = tl.arange(0, ROWS), tl.arange(0, CLASSES)
    inside = (r[:, None] < count) & (c[None, :] < classes)
    place = r[:, None] * classes + c[None, :]
    score = tl.load(scores + place, inside, -float("inf"))
    # Rows that are not there are zero, so that nothing in them is NaN.
    score = tl.where(r[:, None] < count, score, 0.0)
    target = tl.load(targets + tl.load(rows + r, r < count, 0), r < count, 0)
    shifted = score - tl.max(score, 1)[:, None]
    power = tl.exp(shifted)
    total = tl.sum(power, 1)
    chosen = c[None, :] == target[:, None]
    loss = tl.log(total) - tl.sum(tl.where(chosen, shifted, 0.0), 1)
    right = tl.argmax(score, 1) == target
    here = r < count
    tl.store(totals, tl.load(totals) + tl.sum(tl.where(here, loss, 0.0)))
    tl.store(totals + 1, tl.load(totals + 1) + tl.sum(tl.where(here & right, 1.0, 0.0)))
    tl.store(grad + place, (power / total[:, None] - tl.where(chosen, 1.0, 0.0)) / count, inside)
