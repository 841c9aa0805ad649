"""Cross entropy of classes, from scores before the softmax."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, Literal

from xbackend_fl.losses.operations import Operations
from xbackend_fl.losses.protocol import LARGEST_OUTPUT, BuiltIn, Kernel


@dataclass(frozen=True)
class CrossEntropy(BuiltIn):
    """``-log(softmax(scores))`` of the class."""

    targets = "classes"
    applies = frozenset({"Softmax", "LogSoftmax"})
    metric = "accuracy"
    name: Literal["cross_entropy"] = "cross_entropy"

    @property
    def kernel(self) -> Kernel | None:
        """One of every framework's."""
        return "softmax_cross_entropy"

    @property
    def bounds(self) -> tuple[float, float]:
        """Of two scores that are as far apart as float32 goes."""
        return 0.0, 2 * LARGEST_OUTPUT

    def each(self, outputs: Any, targets: Any, ops: Operations) -> Any:
        """See :class:`~xbackend_fl.losses.protocol.Loss`."""
        return ops.softmax_cross_entropy(outputs, targets)


LOSS = CrossEntropy
