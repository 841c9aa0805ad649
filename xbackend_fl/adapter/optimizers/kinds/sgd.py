"""Plain steps: ``x - lr * g``."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, ClassVar, Literal

from xbackend_fl.adapter.optimizers.optimizer import Optimizer, Slots, Sqrt, StepNumbers, Stepped


@dataclass(frozen=True)
class SGD(Optimizer):
    """A step against the gradient, and nothing else."""

    plain: ClassVar[bool] = True
    name: Literal["sgd"] = "sgd"

    def step(self, value: Any, gradient: Any, slots: Slots, numbers: StepNumbers, sqrt: Sqrt) -> Stepped:
        """See :class:`~xbackend_fl.adapter.optimizers.optimizer.Optimizer`."""
        del slots, sqrt
        return value - numbers.lr * gradient, ()


OPTIMIZER = SGD
