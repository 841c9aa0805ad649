"""The mean of a loss over the positions of a batch that count, by any framework's operations."""

from __future__ import annotations

from typing import Any

from xbackend_fl.errors import ConfigError
from xbackend_fl.losses.operations import Operations
from xbackend_fl.losses.protocol import Loss


def mean_loss(loss: Loss, outputs: Any, targets: Any, counted: Any, ops: Operations) -> tuple[Any, Any]:
    """The loss of one batch, and how many positions it is the mean of.

    Args:
        loss: The loss.
        outputs: The model's output.
        targets: As :meth:`Loss.each` takes them.
        counted: Which of them count, in their shape; ``None`` if all do. If none counts, the loss and its gradient are zero.
        ops: Operations on such tensors.
    """
    if counted is not None:
        # Any target that the loss accepts will do where none counts.
        targets = ops.where(counted, targets, 0)
    each, weights = loss.each(outputs, targets, ops), loss.weights(outputs, targets, ops)
    if len(each.shape) < len(targets.shape):
        if counted is not None:
            raise ConfigError(
                f"the loss {loss.name} gave {'one number for each example' if len(each.shape) else 'one number'}, and some targets do not count",
                hint="return one number per position (reduction='none'): those of targets that do not count are left out, and the mean is taken",
            )
        return ops.mean(each), ops.size(targets)
    if counted is None:
        if weights is None:
            return ops.mean(each), ops.size(targets)
        return _weighted(ops.total(each), ops.total(weights), ops), ops.size(targets)
    total, count = ops.total(ops.where(counted, each, 0)), ops.count(counted)
    if weights is None:
        return total / ops.as_float(ops.maximum(count, 1), total), count
    return _weighted(total, ops.total(ops.where(counted, weights, 0)), ops), count


def _weighted(total: Any, weight: Any, ops: Operations) -> Any:
    """Where all weigh nothing, the loss is zero as where nothing counts."""
    return total / ops.where(weight > 0, weight, 1)
