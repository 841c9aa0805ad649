"""Cross entropy of classes, from scores before the softmax, as ``torch.nn.functional.cross_entropy`` defines it."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Annotated, Any, Literal

from annotated_types import Ge, Lt

from xbackend_fl.losses.operations import Operations
from xbackend_fl.losses.protocol import LARGEST_OUTPUT, BuiltIn, Kernel, Weight


@dataclass(frozen=True)
class CrossEntropy(BuiltIn):
    """``-log(softmax(scores))`` of the class.

    Attributes:
        class_weights: How much every class counts; the mean is weighted, too. Left out, all count alike.
        label_smoothing: The share of a target that goes to all classes alike.
    """

    targets = "classes"
    applies = frozenset({"Softmax", "LogSoftmax"})
    metric = "accuracy"
    name: Literal["cross_entropy"] = "cross_entropy"
    class_weights: tuple[Weight, ...] | None = None
    label_smoothing: Annotated[float, Ge(0), Lt(1)] = 0.0

    @property
    def kernel(self) -> Kernel | None:
        """One of every framework's, if classes count alike and targets are sure."""
        return None if self.weighs or self.label_smoothing else "softmax_cross_entropy"

    @property
    def bounds(self) -> tuple[float, float]:
        """Of two scores that are as far apart as float32 goes, in the class that counts most."""
        return 0.0, 2 * LARGEST_OUTPUT * max(self.class_weights or (1.0,))

    @property
    def weighs(self) -> bool:
        """Whether classes have weights."""
        return self.class_weights is not None

    def each(self, outputs: Any, targets: Any, ops: Operations) -> Any:
        """See :class:`~xbackend_fl.losses.protocol.Loss`."""
        found = ops.softmax_cross_entropy(outputs, targets)
        if self.class_weights is not None:
            found = found * ops.pick(self.class_weights, targets, outputs)
        if not self.label_smoothing:
            return found
        logs = ops.log_softmax(outputs)
        if self.class_weights is not None:
            logs = logs * ops.row(self.class_weights, outputs)
        share = self.label_smoothing
        return (1.0 - share) * found - share / ops.length(outputs) * ops.sum(logs)

    def weights(self, outputs: Any, targets: Any, ops: Operations) -> Any:
        """The weight of the class."""
        return None if self.class_weights is None else ops.pick(self.class_weights, targets, outputs)

    def unfit(self, output: tuple[int, ...], class_axis: int | None) -> str:
        """Every class has a weight, and one of them counts."""
        if self.class_weights is None or class_axis is None:
            return ""
        if not math.fsum(self.class_weights):
            return "class_weights are all 0: nothing would count"
        classes, count = output[class_axis - 1], len(self.class_weights)
        return (
            ""
            if count == classes
            else f"class_weights has {count} numbers, and the model has {classes} classes"
        )


LOSS = CrossEntropy
