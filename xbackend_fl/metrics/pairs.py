"""Outputs beside their targets, at the positions that count."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from math import prod
from typing import Any

import numpy as np
from numpy.typing import NDArray

from xbackend_fl.losses import Loss, NumpyOperations, mean_loss
from xbackend_fl.metrics.objective import Objective, Shape

MAX_COLUMNS = 64
"""An output ``[N, K]`` of at most so many numbers is so many quantities, or labels; a longer one is values of one kind, such as pixels."""

_BLOCK = 1 << 20
"""Values that are looked at together: float64 needs twice the memory of an output."""


@dataclass(frozen=True)
class Pairs:
    """What a metric reads.

    Attributes:
        objective: The loss, and how it reads outputs.
        outputs: float64. Classes: scores ``[P, classes]``. Shares: logits ``[P, 1]``. Values: ``[P, columns]``.
        targets: Classes: int64 ``[P]``. Otherwise float64 in the shape of ``outputs``.
        losses: The loss of every target, ``[P]`` or ``[P * columns]``.
        weights: How much each counts in the mean of the losses; ``None`` if all count alike.
        labels: Of an output ``[N, K]`` of logits, which label each of them is, ``[P]``; ``None`` if there is one.

    Nobody can write into the arrays: all metrics read the same.
    """

    objective: Objective
    outputs: NDArray[np.float64]
    targets: NDArray[Any]
    losses: NDArray[np.float64]
    weights: NDArray[np.float64] | None = None
    labels: NDArray[np.intp] | None = None

    def __post_init__(self) -> None:
        for array in (self.outputs, self.targets, self.losses, self.weights, self.labels):
            if array is not None:
                array.flags.writeable = False

    @property
    def positions(self) -> int:
        """How many targets count."""
        return self.targets.size


def columns_of(output: Shape) -> int:
    """Quantities or labels that an output without classes holds for every example; 1 if it is not ``[N, K]``.

    Args:
        output: Shape of the output, without the batch axis.
    """
    lengths = [n for n in output if n != 1]
    return lengths[0] if len(lengths) == 1 and lengths[0] <= MAX_COLUMNS else 1


def max_positions_of(loss: Loss, output: Shape) -> int:
    """Most targets that one example may have, whichever axis holds the classes.

    Args:
        loss: The loss.
        output: Shape of the output, without the batch axis.
    """
    classes = min((n for n in output if n > 1), default=1) if loss.targets == "classes" else 1
    return prod(output) // classes


def pairs_of(objective: Objective, output: NDArray[Any], targets: NDArray[Any]) -> Iterator[Pairs]:
    """Pair an output with its targets, a block of rows at a time.

    Args:
        objective: The loss, and how it reads outputs.
        output: ``[N, ...]`` in ONNX layout, as long in every axis as the objective says.
        targets: ``[N, ...]``, accepted by the objective.
    """
    arranged = objective.arranged(targets)
    rows = max(1, _BLOCK * len(output) // max(output.size, 1))
    for start in range(0, len(output), rows):
        yield _paired(objective, output[start : start + rows], arranged[start : start + rows])


def _paired(objective: Objective, output: NDArray[Any], targets: NDArray[Any]) -> Pairs:
    counted = objective.counted(targets)
    outputs = output.astype(np.float64)
    # Any target that the loss accepts will do where none counts.
    wanted = (targets if counted is None else np.where(counted, targets, 0)).astype(
        np.float64 if objective.class_axis is None else np.int64
    )
    losses, weights = _losses(objective, outputs, wanted, counted)
    labels = _labels(objective, wanted.shape)
    if objective.class_axis is not None:
        outputs = np.moveaxis(outputs, objective.class_axis, -1)
        shape: tuple[int, ...] = (-1, outputs.shape[-1])
    else:
        shape = (-1, 1 if objective.loss.targets == "shares" else columns_of(objective.output))
    if counted is not None:
        outputs, wanted = outputs[counted], wanted[counted]
        labels = None if labels is None else labels[counted]
    flat = wanted.reshape(-1) if objective.class_axis is not None else wanted.reshape(shape)
    labels = None if labels is None else labels.reshape(-1)
    return Pairs(objective, outputs.reshape(shape), flat, losses, weights, labels)


def _labels(objective: Objective, shape: Shape) -> NDArray[np.intp] | None:
    """Which label each logit is, in the shape of the targets; ``None`` if there is one."""
    columns = columns_of(objective.output)
    if objective.loss.targets != "shares" or columns == 1:
        return None
    return np.broadcast_to(np.arange(columns), (shape[0], columns)).reshape(shape)


def _losses(
    objective: Objective, outputs: NDArray[np.float64], targets: NDArray[Any], counted: NDArray[Any] | None
) -> tuple[NDArray[np.float64], NDArray[np.float64] | None]:
    """The loss of every target that counts, and its weight; where only a mean is known, that of each."""
    kept = np.ones(targets.shape, bool) if counted is None else counted
    if objective.asked is not None:
        return np.full(
            kept.sum(), objective.asked(outputs, np.where(kept, targets, objective.ignore_index or 0))
        ), None
    loss, ops = objective.loss, NumpyOperations(objective.class_axis or 1)
    with np.errstate(over="ignore"):
        each, weights = loss.each(outputs, targets, ops), loss.weights(outputs, targets, ops)
    if each.ndim < targets.ndim:
        return np.full(kept.sum(), mean_loss(loss, outputs, targets, counted, ops)[0]), None
    return each[kept], None if weights is None else weights[kept]
