"""The cross entropy of every participant's batch, and its gradient, by one program each."""

from __future__ import annotations

import torch
import triton
import triton.language as tl

from xbfl_torch.stacked.kernels.launching import launch

MAX_SCORES = 1 << 14
"""Rows times classes of a batch, both rounded up to powers of two, up to which one program computes a loss."""


def fits(scores: torch.Tensor) -> bool:
    """Whether one program can compute the loss of one participant's ``scores [batch, classes]``."""
    return triton.next_power_of_2(scores.shape[-2]) * triton.next_power_of_2(scores.shape[-1]) <= MAX_SCORES


def cross_entropy(
    scores: torch.Tensor, targets: torch.Tensor, counts: torch.Tensor
) -> tuple[torch.Tensor, torch.Tensor]:
    """Means over the first ``counts`` rows of ``scores [participants, batch, classes]``, and their gradients."""
    count, rows, classes = scores.shape
    means, grad = scores.new_empty(count), torch.empty_like(scores)
    launch(
        _cross_entropy, (count,), scores, targets, counts, means, grad, rows, classes,
        triton.next_power_of_2(rows), triton.next_power_of_2(classes), num_warps=4,
    )  # fmt: skip
    return means, grad


@triton.jit(do_not_specialize=["rows", "classes"])
def _cross_entropy(
    scores, targets, counts, means, grad, rows, classes, ROWS: tl.constexpr, CLASSES: tl.constexpr
):
    a = tl.program_id(0).to(tl.int64)
    r, c = tl.arange(0, ROWS), tl.arange(0, CLASSES)
    last = tl.load(counts + a).to(tl.int32)
    number = tl.maximum(last, 1).to(tl.float32)
    real = r < last
    at = a * rows * classes + r[:, None] * classes + c[None, :]
    there = (r < rows)[:, None] & (c < classes)[None, :]
    good = real[:, None] & (c < classes)[None, :]
    value = tl.load(scores + at, good, float("-inf"))
    value = tl.where(real[:, None], value, 0.0)
    # A NaN must stay one: the largest of a row with one is another number.
    value = value - tl.max(value, 1)[:, None]
    powers = tl.where(c[None, :] < classes, tl.exp(value), 0.0)
    total = tl.sum(powers, 1)
    label = tl.load(targets + a * rows + r, real, 0)
    chosen = (c[None, :] == label[:, None]).to(tl.float32)
    picked = tl.sum(tl.where(chosen > 0, value, 0.0), 1)
    tl.store(means + a, tl.sum(tl.where(real, tl.log(total) - picked, 0.0), 0) / number)
    slope = tl.where(good, (powers / total[:, None] - chosen) / number, 0.0)
    tl.store(grad + at, slope, there)
