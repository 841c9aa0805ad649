"""Nesterov's momentum in the form of Sutskever et al. 2013, as PyTorch writes it: ``x - lr * (g + momentum * v)``."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, ClassVar, Literal

from xbackend_fl.adapter.optimizers.optimizer import Optimizer, Slots, Sqrt, StepNumbers, Stepped
from xbackend_fl.registry import Decay


@dataclass(frozen=True)
class Nesterov(Optimizer):
    """Momentum that is looked ahead along.

    Attributes:
        momentum: Decay of the sum of gradients.
    """

    num_slots: ClassVar[int] = 1
    name: Literal["nesterov"] = "nesterov"
    momentum: Decay = 0.9

    def step(self, value: Any, gradient: Any, slots: Slots, numbers: StepNumbers, sqrt: Sqrt) -> Stepped:
        """See :class:`~xbackend_fl.adapter.optimizers.optimizer.Optimizer`."""
        del sqrt
        velocity = self.momentum * slots[0] + gradient
        return value - numbers.lr * (gradient + self.momentum * velocity), (velocity,)


OPTIMIZER = Nesterov
