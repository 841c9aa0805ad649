"""What a step reads of its plan before, and keeps of its losses after: one launch each, of which PyTorch makes a dozen."""

from __future__ import annotations

import torch
import triton
import triton.language as tl

from xbfl_torch.stacked.kernels.launching import launch

_BLOCK = 256


def read(
    number: torch.Tensor,
    rows: torch.Tensor,
    counts: torch.Tensor,
    numbers: torch.Tensor,
    their_rows: torch.Tensor,
    their_counts: torch.Tensor,
    active: torch.Tensor,
    now: torch.Tensor,
    count: int,
) -> None:
    """Write down what is planned for the first ``count`` slots in step ``number``: their rows and counts, whether these are positive, and the optimizer's numbers now."""
    slots, batch = rows.shape[1:]
    launch(
        _read, (triton.cdiv(count * batch, _BLOCK),), number, rows, counts, numbers, their_rows, their_counts, active, now,
        slots, batch, count, numbers.shape[1], _BLOCK, num_warps=4,
    )  # fmt: skip


def keep(
    totals: torch.Tensor,
    number: torch.Tensor,
    means: torch.Tensor,
    counted: torch.Tensor,
    counts: torch.Tensor,
) -> None:
    """Add what a step's losses sum up to and how many positions counted, where ``counts`` are not zero, and count the step."""
    launch(
        _keep, (1,), totals, number, means.contiguous(), counted.contiguous(), counts, len(counts), _BLOCK,
        num_warps=4, enable_fp_fusion=False,
    )  # fmt: skip


@triton.jit(do_not_specialize=["slots", "batch", "count"])
def _read(
    number, rows, counts, numbers, their_rows, their_counts, active, now, slots, batch, count, KINDS: tl.constexpr, BLOCK: tl.constexpr
):  # fmt: skip
    step = tl.load(number)
    i = tl.program_id(0) * BLOCK + tl.arange(0, BLOCK)
    tl.store(
        their_rows + i, tl.load(rows + step * slots * batch + i, i < count * batch, 0), i < count * batch
    )
    many = tl.load(counts + step * slots + i, i < count, 0)
    tl.store(their_counts + i, many, i < count)
    tl.store(active + i, many > 0, i < count)
    tl.store(now + i, tl.load(numbers + step * KINDS + i, i < KINDS, 0.0), i < KINDS)


@triton.jit(do_not_specialize=["count"])
def _keep(totals, number, means, counted, counts, count, BLOCK: tl.constexpr):
    for first in range(0, count, BLOCK):
        i = first + tl.arange(0, BLOCK)
        good = tl.load(counts + i, i < count, 0) > 0
        weight = tl.load(counted + i, good, 0).to(tl.float64)
        loss = tl.load(means + i, good, 0.0).to(tl.float64) * weight
        place = totals + 2 * i
        tl.store(place, tl.load(place, good, 0.0) + loss, good)
        tl.store(place + 1, tl.load(place + 1, good, 0.0) + weight, good)
    tl.store(number, tl.load(number) + 1)
