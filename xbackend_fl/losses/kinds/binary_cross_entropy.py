"""Cross entropy of labels that are questions of their own, from logits, as ``torch.nn.functional.binary_cross_entropy_with_logits`` defines it."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, Literal

from xbackend_fl.losses.operations import Operations
from xbackend_fl.losses.protocol import LARGEST_OUTPUT, BuiltIn, Kernel, Weight


@dataclass(frozen=True)
class BinaryCrossEntropy(BuiltIn):
    """``-t * log(p) - (1 - t) * log(1 - p)`` with ``p = sigmoid(logit)``.

    Attributes:
        positive_weights: What ``-t * log(p)`` is multiplied with: one number, or one for each label of an output ``[N, labels]``.
    """

    targets = "shares"
    applies = frozenset({"Sigmoid", "Softmax"})
    metric = "accuracy"
    name: Literal["binary_cross_entropy"] = "binary_cross_entropy"
    positive_weights: Weight | tuple[Weight, ...] = 1.0

    @property
    def kernel(self) -> Kernel | None:
        """One of every framework's, if both sides count alike."""
        return "sigmoid_cross_entropy" if self.positive_weights == 1.0 else None

    @property
    def bounds(self) -> tuple[float, float]:
        """Of the largest logit, on the side that counts most."""
        return 0.0, 2 * LARGEST_OUTPUT * max(1.0, *self._row)

    @property
    def _row(self) -> tuple[float, ...]:
        found = self.positive_weights
        return found if isinstance(found, tuple) else (found,)

    def each(self, outputs: Any, targets: Any, ops: Operations) -> Any:
        """See :class:`~xbackend_fl.losses.protocol.Loss`."""
        if self.positive_weights == 1.0:
            return ops.sigmoid_cross_entropy(outputs, targets)
        yes, no = (ops.sigmoid_cross_entropy(outputs, 0.0 * targets + share) for share in (1.0, 0.0))
        return targets * yes * ops.row(self._row, outputs) + (1.0 - targets) * no

    def unfit(self, output: tuple[int, ...], class_axis: int | None) -> str:
        """One weight for every label."""
        del class_axis
        if not isinstance(self.positive_weights, tuple) or output == (len(self.positive_weights),):
            return ""
        shown = ", ".join(["N", *map(str, output)])
        return f"positive_weights has {len(self.positive_weights)} numbers, and the output is [{shown}]: give one number, or one for each label of an output [N, labels]"


LOSS = BinaryCrossEntropy
