"""AdamW (Loshchilov & Hutter 2019, algorithm 2): Adam, with a decay of the parameter itself."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, ClassVar, Literal

from xbackend_fl.adapter.optimizers.moments import Moments
from xbackend_fl.adapter.optimizers.optimizer import Slots, Sqrt, StepNumbers, Stepped


@dataclass(frozen=True)
class AdamW(Moments):
    """Adam, whose decay is no part of the gradient."""

    decoupled: ClassVar[bool] = True
    name: Literal["adamw"] = "adamw"

    def step(self, value: Any, gradient: Any, slots: Slots, numbers: StepNumbers, sqrt: Sqrt) -> Stepped:
        """See :class:`~xbackend_fl.adapter.optimizers.optimizer.Optimizer`."""
        return super().step(value * numbers.kept, gradient, slots, numbers, sqrt)


OPTIMIZER = AdamW
