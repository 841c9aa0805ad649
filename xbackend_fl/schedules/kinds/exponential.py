"""Lower by a factor, smoothly: ``gamma ** (t / every)``."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Annotated, Literal

from annotated_types import Ge, Gt, Le

from xbackend_fl.schedules.schedule import Schedule


@dataclass(frozen=True)
class Exponential(Schedule):
    """A constant rate of decay.

    Attributes:
        gamma: What ``every`` rounds, or steps, multiply with.
        every: How many these are.
    """

    name: Literal["exponential"] = "exponential"
    gamma: Annotated[float, Gt(0), Le(1)] = 0.95
    every: Annotated[int, Ge(1)] = 1

    def factor(self, index: int) -> float:
        """See :class:`Schedule`."""
        return math.pow(self.gamma, index / self.every)


SCHEDULE = Exponential
