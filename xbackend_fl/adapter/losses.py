"""The losses by name: what each applies itself, and what its targets are. Adapters and the core read one table."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Literal, TypeAlias

LossName: TypeAlias = Literal["cross_entropy", "binary_cross_entropy", "mean_squared_error"]


@dataclass(frozen=True)
class Loss:
    """A loss; its value is the mean over the positions that count.

    Attributes:
        name: Its name in a course.
        applies: Activations, by ONNX operator, that the loss computes itself: the model must not end in one.
        targets: ``classes``: whole numbers, in the shape of the output without its class axis. ``shares``: numbers from 0 to 1,
            and ``values``: any finite numbers, both in the shape of the output.
        metric: What chooses the best weights unless a course says otherwise.
    """

    name: LossName
    applies: frozenset[str]
    targets: Literal["classes", "shares", "values"]
    metric: str


LOSSES: Mapping[str, Loss] = {
    loss.name: loss
    for loss in (
        Loss("cross_entropy", frozenset({"Softmax", "LogSoftmax"}), "classes", "accuracy"),
        Loss("binary_cross_entropy", frozenset({"Sigmoid", "Softmax"}), "shares", "accuracy"),
        Loss("mean_squared_error", frozenset(), "values", "rmse"),
    )
}
"""Loss name to its row."""
