"""The optimizer's step on the rows of all participants."""

from __future__ import annotations

from collections.abc import Sequence

import torch

from xbackend_fl.adapter.optimizers import Optimizer, StepNumbers
from xbfl_torch.stacked import devices


def clip_scales(gradients: torch.Tensor, others: Sequence[torch.Tensor], limit: float) -> torch.Tensor:
    """``min(1, limit / (norm + 1e-6))`` of every participant.

    Args:
        gradients: ``[participants, values]``.
        others: Squares of the norms of what they have beside these, each ``[participants]``.
        limit: The largest norm.
    """
    kernels = devices.kernels("update", gradients)
    if kernels is not None:
        return kernels.clip_scales(kernels.squares(gradients), others, limit)  # type: ignore[no-any-return]
    squares = torch.linalg.vector_norm(gradients, dim=1).square()
    norms = torch.stack([squares, *others]).sum(0).sqrt()
    return torch.clamp(limit / (norms + 1e-6), max=1.0)


def descend(
    values: torch.Tensor,
    gradients: torch.Tensor,
    scales: torch.Tensor | None,
    state: Sequence[torch.Tensor],
    active: torch.Tensor,
    optimizer: Optimizer,
    numbers: torch.Tensor,
) -> None:
    """One step in place, of those that are still active.

    Args:
        values: What trains, ``[participants, values]``.
        gradients: The same; they are used up.
        scales: What each one's gradient is multiplied with.
        state: The optimizer's, each the same.
        active: ``[participants]``, of truths.
        optimizer: The rule.
        numbers: Of this step, ``[4]``.
    """
    kernels = devices.kernels("update", gradients)
    if kernels is not None and optimizer.plain:
        kernels.descend(values, gradients, scales, active, numbers[0], optimizer.weight_decay)
        return
    if scales is not None:
        gradients *= scales[:, None]
    new, kept = optimizer.update(values, gradients, state, StepNumbers(*numbers), torch.sqrt)
    going = active[:, None]
    for before, after in zip((values, *state), (new, *kept), strict=True):
        torch.where(going, after, before, out=before)
