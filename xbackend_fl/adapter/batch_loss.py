"""The loss of a batch over all outputs that have one, by any framework."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any

from xbackend_fl.adapter.contract import TrainConfig


def batch_loss(
    outputs: Sequence[Any],
    targets: Any,
    config: TrainConfig,
    mean_loss: Callable[[Any, Any, TrainConfig], tuple[Any, Any]],
) -> tuple[Any, Any]:
    """The loss of one batch, and how many positions count in it, by any framework.

    Args:
        outputs: All that the model returns.
        targets: Of its output, or of every head by name.
        config: What is minimised.
        mean_loss: The mean of one output's loss, and how many positions it is the mean of.
    """
    if not config.heads:
        return mean_loss(outputs[config.output], targets, config)
    each: Mapping[str, Any] = targets
    found = [(h.weight, *mean_loss(outputs[h.output], each[h.name], config.of_head(h))) for h in config.heads]
    weight, loss, count = found[0]
    total = weight * loss
    for weight, loss, more in found[1:]:
        total, count = total + weight * loss, count + more
    return total, count
