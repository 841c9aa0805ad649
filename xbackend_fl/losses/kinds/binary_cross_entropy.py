"""Cross entropy of labels that are questions of their own, from logits before the sigmoid."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, Literal

from xbackend_fl.losses.operations import Operations
from xbackend_fl.losses.protocol import LARGEST_OUTPUT, BuiltIn, Kernel


@dataclass(frozen=True)
class BinaryCrossEntropy(BuiltIn):
    """``-t * log(p) - (1 - t) * log(1 - p)`` with ``p = sigmoid(logit)``."""

    targets = "shares"
    applies = frozenset({"Sigmoid", "Softmax"})
    metric = "accuracy"
    name: Literal["binary_cross_entropy"] = "binary_cross_entropy"

    @property
    def kernel(self) -> Kernel | None:
        """One of every framework's."""
        return "sigmoid_cross_entropy"

    @property
    def bounds(self) -> tuple[float, float]:
        """Of the largest logit."""
        return 0.0, 2 * LARGEST_OUTPUT

    def each(self, outputs: Any, targets: Any, ops: Operations) -> Any:
        """See :class:`~xbackend_fl.losses.protocol.Loss`."""
        return ops.sigmoid_cross_entropy(outputs, targets)


LOSS = BinaryCrossEntropy
