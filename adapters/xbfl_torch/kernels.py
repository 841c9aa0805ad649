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

from xbfl_torch.stacked.kernels.launching import launch

MAX_ROWS = 64
"""Rows of a batch up to which the dense kernels are used."""

MAX_SCORES = 1 << 14
"""Rows times classes, both rounded up to powers of two, up to which one program computes a loss."""

_LEAST = 16
"""Smallest side of a product."""


def dense(value: torch.Tensor, weight: torch.Tensor, bias: torch.Tensor | None) -> torch.Tensor:
    """``value [rows, in] @ weight.t() [in, out] + bias``."""
    rows, (outs, ins) = value.shape[0], weight.shape
    splits, share = _splits(ins, 64)
    parts = value.new_empty(splits, rows, outs)
    grid = (triton.cdiv(outs, 64), splits)
    _dense[grid](value, weight, parts, rows, outs, ins, share, _side(rows), 64, 64, num_warps=4, num_stages=4)
    return _together(parts, bias)


def dense_below(grad: torch.Tensor, weight: torch.Tensor) -> torch.Tensor:
    """``grad [rows, out] @ weight [out, in]``: what the layer below gets."""
    rows, (outs, ins) = grad.shape[0], weight.shape
    splits, share = _splits(outs, 64)
    parts = grad.new_empty(splits, rows, ins)
    grid = (triton.cdiv(ins, 32), splits)
    _dense_below[grid](
        grad, weight, parts, rows, outs, ins, share, _side(rows), 32, 64, num_warps=4, num_stages=4
    )
    return _together(parts, None)


def _splits(length: int, block: int) -> tuple[int, int]:
    """In how many shares a sum is computed side by side, and terms of a share: whole blocks, two at least."""
    splits = min(4, triton.cdiv(length, 2 * block))
    return splits, triton.cdiv(triton.cdiv(length, splits), block) * block


def _together(parts: torch.Tensor, bias: torch.Tensor | None) -> torch.Tensor:
    """Sum of shares ``[shares, rows, values]``, and the bias."""
    splits, rows, width = parts.shape
    result = parts.new_empty(rows, width)
    grid = (triton.cdiv(rows * width, 256),)
    _add_parts[grid](
        parts, parts if bias is None else bias, result, splits, rows * width, width, bias is not None, 256
    )
    return result


def descend(
    weight: torch.Tensor,
    rows: torch.Tensor,
    columns: torch.Tensor,
    scale: torch.Tensor | None,
    lr: float,
    weight_decay: float,
) -> None:
    """``weight <- (1 - lr * weight_decay) * weight - lr * scale * rows.t() @ columns``, in one pass over the weight."""
    outs, ins = weight.shape
    count, kept = len(rows), 1.0 - lr * weight_decay
    grid = (triton.cdiv(outs, 32), triton.cdiv(ins, 128))
    scaled = scale is not None
    _descend[grid](
        weight, rows, columns, scale if scaled else weight, count, outs, ins, lr, kept, scaled, _side(count), 32, 128, num_warps=4
    )  # fmt: skip


def product_norm(rows: torch.Tensor, columns: torch.Tensor) -> torch.Tensor:
    """Euclidean norm of ``rows.t() @ columns`` without the product, a scalar."""
    count = len(rows)
    pairs, result = rows.new_empty(count, count), rows.new_empty(())
    _pairs[(count, count)](rows, columns, pairs, count, rows.shape[1], columns.shape[1], 1024, num_warps=4)
    _root_of_sum[(1,)](pairs, result, count * count, triton.next_power_of_2(count * count), num_warps=4)
    return result


def channel_sums(grad: torch.Tensor) -> torch.Tensor:
    """Sums of ``grad [batch, channels, ...]`` by channel, ``[channels]``."""
    batch, channels = grad.shape[:2]
    result = grad.new_empty(channels)
    width = grad[0, 0].numel()
    _channel_sums[(channels,)](grad, result, batch, channels, width, 16, 128, num_warps=4)
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
    launch(
        _gather, (len(rows), triton.cdiv(width, 1024)), data, rows, result, width, factor, offset, 1024,
        num_warps=4, enable_fp_fusion=False,
    )  # fmt: skip
    return result


def scores_fit(scores: torch.Tensor) -> bool:
    """Whether one program can compute the loss of these ``[rows, classes]``."""
    if scores.ndim != 2 or not scores.is_contiguous():
        return False
    return triton.next_power_of_2(scores.shape[0]) * triton.next_power_of_2(scores.shape[1]) <= MAX_SCORES


def cross_entropy(
    scores: torch.Tensor, targets: torch.Tensor, rows: torch.Tensor, totals: torch.Tensor
) -> torch.Tensor:
    """Gradient of the mean cross entropy with respect to ``scores [rows, classes]``.

    The sum of the losses and the number of rows are added to ``totals [2]``; ``targets`` are all classes, of which
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
    value, weight, parts, rows, outs, ins, share, ROWS: tl.constexpr, OUTS: tl.constexpr, INS: tl.constexpr
):
    o = tl.program_id(0) * OUTS + tl.arange(0, OUTS)
    part = tl.program_id(1)
    r = tl.arange(0, ROWS)
    # The weight is the left factor: the matrix units take 64 rows at a time from it, and few columns.
    total = tl.zeros([OUTS, ROWS], tl.float32)
    for start in range(part * share, tl.minimum((part + 1) * share, ins), INS):
        i = start + tl.arange(0, INS)
        left = tl.load(weight + o[:, None] * ins + i[None, :], (o[:, None] < outs) & (i[None, :] < ins), 0.0)
        right = tl.load(value + r[None, :] * ins + i[:, None], (r[None, :] < rows) & (i[:, None] < ins), 0.0)
        total = tl.dot(left, right, total, input_precision="tf32x3")
    place = parts + part * rows * outs + r[None, :] * outs + o[:, None]
    tl.store(place, total, (r[None, :] < rows) & (o[:, None] < outs))


@triton.jit
def _add_parts(parts, bias, result, splits, count, width, HAS_BIAS: tl.constexpr, BLOCK: tl.constexpr):
    i = tl.program_id(0) * BLOCK + tl.arange(0, BLOCK)
    total = tl.zeros([BLOCK], tl.float32)
    for split in range(splits):
        total += tl.load(parts + split * count + i, i < count, 0.0)
    if HAS_BIAS:
        total += tl.load(bias + i % width, i < count, 0.0)
    tl.store(result + i, total, i < count)


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
def _descend(
    weight, rows, columns, scale, count, outs, ins, lr, kept,
    SCALED: tl.constexpr, ROWS: tl.constexpr, OUTS: tl.constexpr, INS: tl.constexpr,
):  # fmt: skip
    o = tl.program_id(0) * OUTS + tl.arange(0, OUTS)
    i = tl.program_id(1) * INS + tl.arange(0, INS)
    r = tl.arange(0, ROWS)
    left = tl.load(rows + r[None, :] * outs + o[:, None], (r[None, :] < count) & (o[:, None] < outs), 0.0)
    if SCALED:
        left = left * tl.load(scale)
    right = tl.load(columns + r[:, None] * ins + i[None, :], (r[:, None] < count) & (i[None, :] < ins), 0.0)
    place = weight + o[:, None] * ins + i[None, :]
    inside = (o[:, None] < outs) & (i[None, :] < ins)
    value = tl.load(place, inside, 0.0)
    tl.store(place, kept * value - lr * tl.dot(left, right, input_precision="ieee"), inside)


@triton.jit
def _pairs(left, right, result, rows, width_left, width_right, WIDTH: tl.constexpr):
    """Of two rows, the product of both factors' inner products."""
    a, b = tl.program_id(0), tl.program_id(1)
    i = tl.arange(0, WIDTH)
    one, two = tl.zeros([WIDTH], tl.float32), tl.zeros([WIDTH], tl.float32)
    for start in range(0, width_left, WIDTH):
        k = start + i
        x = tl.load(left + a * width_left + k, k < width_left, 0.0)
        one += x * tl.load(left + b * width_left + k, k < width_left, 0.0)
    for start in range(0, width_right, WIDTH):
        k = start + i
        x = tl.load(right + a * width_right + k, k < width_right, 0.0)
        two += x * tl.load(right + b * width_right + k, k < width_right, 0.0)
    tl.store(result + a * rows + b, tl.sum(one) * tl.sum(two))


@triton.jit
def _root_of_sum(values, result, count, COUNT: tl.constexpr):
    i = tl.arange(0, COUNT)
    tl.store(result, tl.sqrt(tl.maximum(tl.sum(tl.load(values + i, i < count, 0.0)), 0.0)))


@triton.jit
def _channel_sums(grad, result, batch, channels, width, ROWS: tl.constexpr, WIDTH: tl.constexpr):
    channel = tl.program_id(0)
    r, i = tl.arange(0, ROWS), tl.arange(0, WIDTH)
    total = tl.zeros([ROWS, WIDTH], tl.float32)
    for first in range(0, batch, ROWS):
        n = first + r
        for start in range(0, width, WIDTH):
            k = start + i
            place = grad + (n[:, None] * channels + channel) * width + k[None, :]
            total += tl.load(place, (n[:, None] < batch) & (k[None, :] < width), 0.0)
    tl.store(result + channel, tl.sum(tl.sum(total, 1), 0))


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
    here = r < count
    tl.store(totals, tl.load(totals) + tl.sum(tl.where(here, loss, 0.0)))
    tl.store(totals + 1, tl.load(totals + 1) + tl.sum(tl.where(here, 1.0, 0.0)))
    tl.store(grad + place, (power / total[:, None] - tl.where(chosen, 1.0, 0.0)) / count, inside)
