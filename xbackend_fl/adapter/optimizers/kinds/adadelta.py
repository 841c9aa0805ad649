"""Adadelta (Zeiler 2012, algorithm 1), with a learning rate and epsilon inside both roots, as PyTorch and Keras write it.

``s <- rho * s + (1 - rho) * g**2``, ``d = sqrt(u + eps) / sqrt(s + eps) * g``, ``u <- rho * u + (1 - rho) * d**2``, ``x - lr * d``.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, ClassVar, Literal

from xbackend_fl.adapter.optimizers.optimizer import Optimizer, Slots, Sqrt, StepNumbers, Stepped
from xbackend_fl.registry import Decay, Positive


@dataclass(frozen=True)
class Adadelta(Optimizer):
    """Steps as long as those before, which need no learning rate of their own: 1 is the paper's.

    Attributes:
        rho: Decay of the means of squared gradients and of squared steps.
        eps: Added in the roots.
    """

    num_slots: ClassVar[int] = 2
    name: Literal["adadelta"] = "adadelta"
    lr: Positive = 1.0
    rho: Decay = 0.9
    eps: Positive = 1e-6

    def step(self, value: Any, gradient: Any, slots: Slots, numbers: StepNumbers, sqrt: Sqrt) -> Stepped:
        """See :class:`~xbackend_fl.adapter.optimizers.optimizer.Optimizer`."""
        square = self.rho * slots[0] + (1.0 - self.rho) * gradient * gradient
        delta = sqrt(slots[1] + self.eps) / sqrt(square + self.eps) * gradient
        moved = self.rho * slots[1] + (1.0 - self.rho) * delta * delta
        return value - numbers.lr * delta, (square, moved)


OPTIMIZER = Adadelta
