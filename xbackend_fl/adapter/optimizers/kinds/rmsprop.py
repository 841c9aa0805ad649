"""RMSprop (Tieleman & Hinton 2012), as PyTorch writes it: epsilon is added outside the root."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, ClassVar, Literal

from xbackend_fl.adapter.optimizers.optimizer import Optimizer, Slots, Sqrt, StepNumbers, Stepped
from xbackend_fl.registry import Decay, Positive


@dataclass(frozen=True)
class RMSprop(Optimizer):
    """Steps shorter by the root of a mean of squared gradients.

    Attributes:
        alpha: Decay of the mean of squares.
        eps: Added to the root.
    """

    num_slots: ClassVar[int] = 1
    name: Literal["rmsprop"] = "rmsprop"
    alpha: Decay = 0.99
    eps: Positive = 1e-8

    def step(self, value: Any, gradient: Any, slots: Slots, numbers: StepNumbers, sqrt: Sqrt) -> Stepped:
        """See :class:`~xbackend_fl.adapter.optimizers.optimizer.Optimizer`."""
        square = self.alpha * slots[0] + (1.0 - self.alpha) * gradient * gradient
        return value - numbers.lr * gradient / (sqrt(square) + self.eps), (square,)


OPTIMIZER = RMSprop
