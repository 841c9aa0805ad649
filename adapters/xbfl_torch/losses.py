"""The losses in PyTorch: means over the positions of a batch that count."""

from __future__ import annotations

from typing import TypeAlias

import torch
from torch.nn import functional

from xbackend_fl.adapter.contract import TrainConfig

Count: TypeAlias = "int | torch.Tensor"


def mean_loss(output: torch.Tensor, targets: torch.Tensor, config: TrainConfig) -> tuple[torch.Tensor, Count]:
    """The loss of one batch, and how many positions it is the mean of.

    Args:
        output: The model's first output.
        targets: In its shape, without its class axis if the loss is of classes.
        config: Loss, class axis and what does not count.
    """
    counted = None if config.ignore_index is None else targets != config.ignore_index
    if config.loss == "cross_entropy":
        scores, labels = _classes_second(output, targets.long(), config.class_axis)
        if counted is None:
            return functional.cross_entropy(scores, labels), labels.numel()
        assert config.ignore_index is not None
        total = functional.cross_entropy(scores, labels, ignore_index=config.ignore_index, reduction="sum")
        return _mean(total, counted)
    wanted = targets.to(output.dtype)
    if config.loss == "mean_squared_error":
        return functional.mse_loss(output, wanted), targets.numel()
    if counted is None:
        return functional.binary_cross_entropy_with_logits(output, wanted), targets.numel()
    each = functional.binary_cross_entropy_with_logits(
        output, wanted.masked_fill(~counted, 0), reduction="none"
    )
    return _mean(each.masked_fill(~counted, 0).sum(), counted)


def _classes_second(
    output: torch.Tensor, labels: torch.Tensor, axis: int
) -> tuple[torch.Tensor, torch.Tensor]:
    """Scores with the classes in axis 1, where PyTorch wants them; classes in the last axis are rows already."""
    if axis == 1:
        return output, labels
    return output.movedim(axis, -1).flatten(0, -2), labels.flatten()


def _mean(total: torch.Tensor, counted: torch.Tensor) -> tuple[torch.Tensor, Count]:
    count = counted.sum()
    return total / count.clamp(min=1), count
