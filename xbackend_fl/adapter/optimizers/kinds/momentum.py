"""SGD with momentum, as PyTorch writes it: ``v <- momentum * v + g``, ``x - lr * v``."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, ClassVar, Literal

from xbackend_fl.adapter.optimizers.optimizer import Optimizer, Slots, Sqrt, StepNumbers, Stepped
from xbackend_fl.registry import Decay


@dataclass(frozen=True)
class Momentum(Optimizer):
    """Steps along a decaying sum of gradients.

    Attributes:
        momentum: Decay of the sum.
    """

    num_slots: ClassVar[int] = 1
    name: Literal["momentum"] = "momentum"
    momentum: Decay = 0.9

    def step(self, value: Any, gradient: Any, slots: Slots, numbers: StepNumbers, sqrt: Sqrt) -> Stepped:
        """See :class:`~xbackend_fl.adapter.optimizers.optimizer.Optimizer`."""
        del sqrt
        velocity = self.momentum * slots[0] + gradient
        return value - numbers.lr * velocity, (velocity,)


OPTIMIZER = Momentum
