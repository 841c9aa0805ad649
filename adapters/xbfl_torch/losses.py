"""The operations of losses in PyTorch, and their mean over the positions of a batch that count."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from functools import cache
from typing import Any, TypeAlias, final

import torch
from torch.nn import functional

from xbackend_fl import losses
from xbackend_fl.adapter.contract import TrainConfig
from xbackend_fl.losses.operations import row_shape

Count: TypeAlias = "int | torch.Tensor"


@final
@dataclass(frozen=True)
class TorchOperations:
    """See :class:`~xbackend_fl.losses.Operations`.

    Attributes:
        axis: Where the classes are.
    """

    axis: int
    backend: str = "torch"

    exp = staticmethod(torch.exp)
    log = staticmethod(torch.log)
    log1p = staticmethod(torch.log1p)
    abs = staticmethod(torch.abs)
    sqrt = staticmethod(torch.sqrt)
    mean = staticmethod(torch.mean)
    total = staticmethod(torch.sum)
    size = staticmethod(torch.numel)
    count = staticmethod(torch.sum)

    def maximum(self, one: Any, other: Any, /) -> Any:
        """``torch.maximum`` takes no numbers."""
        if isinstance(one, torch.Tensor) and isinstance(other, torch.Tensor):
            return torch.maximum(one, other)
        return one.clamp(min=other) if isinstance(one, torch.Tensor) else other.clamp(min=one)

    def where(self, condition: Any, one: Any, other: Any, /) -> Any:
        """Numbers are filled in: a graph of a GPU must move nothing there."""
        if not isinstance(one, torch.Tensor) and not isinstance(other, torch.Tensor):
            return torch.where(condition, one, other)
        if not isinstance(other, torch.Tensor):
            return one.masked_fill(~condition, other)
        return (
            torch.where(condition, one, other)
            if isinstance(one, torch.Tensor)
            else other.masked_fill(condition, one)
        )

    def squared_error(self, outputs: Any, targets: Any, /) -> Any:
        """PyTorch's."""
        return functional.mse_loss(outputs, targets, reduction="none")

    def sigmoid_cross_entropy(self, logits: Any, shares: Any, /) -> Any:
        """PyTorch's."""
        return functional.binary_cross_entropy_with_logits(logits, shares, reduction="none")

    def softmax_cross_entropy(self, scores: Any, classes: Any, /) -> Any:
        """PyTorch's."""
        rows, labels = _classes_second(scores, classes, self.axis)
        return functional.cross_entropy(rows, labels, reduction="none").reshape(classes.shape)

    def log_softmax(self, scores: Any, /) -> Any:
        """PyTorch's."""
        return torch.log_softmax(scores, self.axis)

    def gather(self, scores: Any, classes: Any, /) -> Any:
        """Numbers of classes."""
        return torch.gather(scores, self.axis, classes.unsqueeze(self.axis)).squeeze(self.axis)

    def sum(self, scores: Any, /) -> Any:
        """Over classes."""
        return torch.sum(scores, self.axis)

    def length(self, scores: Any, /) -> int:
        """Of the axis of the classes."""
        return int(scores.shape[self.axis])

    def pick(self, numbers: Sequence[float], classes: Any, like: Any, /) -> Any:
        """By class."""
        return _there(tuple(numbers), like.dtype, like.device)[classes]

    def row(self, numbers: Sequence[float], scores: Any, /) -> Any:
        """Along classes."""
        numbers = tuple(numbers)
        return _there(numbers, scores.dtype, scores.device).reshape(
            row_shape(len(numbers), scores.ndim, self.axis)
        )

    def as_float(self, count: Any, like: Any, /) -> Any:
        """In the dtype of ``like``."""
        return count.to(like.dtype)


@cache
def _there(numbers: tuple[float, ...], dtype: torch.dtype, device: torch.device) -> torch.Tensor:
    """Constants, which graphs of a GPU find where they were when they were captured."""
    return torch.tensor(numbers, dtype=dtype, device=device)


def weight_of(output: torch.Tensor, targets: torch.Tensor, config: TrainConfig, count: Count) -> Any:
    """What the positions of a batch that count weigh together: as many as they are, unless the loss weighs them."""
    loss, operations = config.loss, TorchOperations(config.class_axis)
    wanted = targets.long() if loss.targets == "classes" else targets.to(output.dtype)
    if config.ignore_index is not None:
        counted = targets != config.ignore_index
        wanted = torch.where(counted, wanted, 0)
    weights = loss.weights(output, wanted, operations)
    if weights is None:
        return count
    return weights.sum() if config.ignore_index is None else torch.where(counted, weights, 0).sum()


def mean_loss(output: torch.Tensor, targets: torch.Tensor, config: TrainConfig) -> tuple[torch.Tensor, Count]:
    """The loss of one batch, and how many positions it is the mean of.

    Args:
        output: The output.
        targets: In its shape, without its class axis if the loss is of classes.
        config: Loss, class axis and what does not count.
    """
    loss, axis, ignored = config.loss, config.class_axis, config.ignore_index
    wanted = targets.long() if loss.targets == "classes" else targets.to(output.dtype)
    counted = None if ignored is None else targets != ignored
    if loss.kernel is not None and counted is None:
        return _WHOLE[loss.kernel](output, wanted, axis), targets.numel()
    if loss.kernel == "softmax_cross_entropy" and counted is not None:
        assert ignored is not None
        rows, labels = _classes_second(output, wanted, axis)
        total = functional.cross_entropy(rows, labels, ignore_index=ignored, reduction="sum")
        count = counted.sum()
        return total / count.clamp(min=1), count
    return losses.mean_loss(loss, output, wanted, counted, TorchOperations(axis))


def _cross_entropy(output: torch.Tensor, labels: torch.Tensor, axis: int) -> torch.Tensor:
    return functional.cross_entropy(*_classes_second(output, labels, axis))


_WHOLE: Mapping[losses.Kernel, Callable[[torch.Tensor, torch.Tensor, int], torch.Tensor]] = {
    "softmax_cross_entropy": _cross_entropy,
    "sigmoid_cross_entropy": lambda output, shares, _: functional.binary_cross_entropy_with_logits(
        output, shares
    ),
    "squared_error": lambda output, values, _: functional.mse_loss(output, values),
}
"""Kernels that take the mean, too."""


def _classes_second(
    output: torch.Tensor, labels: torch.Tensor, axis: int
) -> tuple[torch.Tensor, torch.Tensor]:
    """Scores with the classes in axis 1, where PyTorch wants them; classes in the last axis are rows already."""
    if axis == 1:
        return output, labels
    return output.movedim(axis, -1).flatten(0, -2), labels.flatten()
