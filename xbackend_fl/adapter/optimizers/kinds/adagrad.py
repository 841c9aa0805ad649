"""Adagrad (Duchi et al. 2011), as PyTorch writes it: the sum of squares starts at zero, epsilon is added outside the root."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, ClassVar, Literal

from xbackend_fl.adapter.optimizers.optimizer import Optimizer, Slots, Sqrt, StepNumbers, Stepped
from xbackend_fl.registry import Positive


@dataclass(frozen=True)
class Adagrad(Optimizer):
    """Steps shorter by the root of all squared gradients so far.

    Attributes:
        eps: Added to the root.
    """

    num_slots: ClassVar[int] = 1
    name: Literal["adagrad"] = "adagrad"
    eps: Positive = 1e-8

    def step(self, value: Any, gradient: Any, slots: Slots, numbers: StepNumbers, sqrt: Sqrt) -> Stepped:
        """See :class:`~xbackend_fl.adapter.optimizers.optimizer.Optimizer`."""
        total = slots[0] + gradient * gradient
        return value - numbers.lr * gradient / (sqrt(total) + self.eps), (total,)


OPTIMIZER = Adagrad
