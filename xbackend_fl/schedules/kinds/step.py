"""Lower by a factor every so often: ``gamma ** (t // every)``."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Annotated, Literal

from annotated_types import Ge, Gt, Le

from xbackend_fl.schedules.schedule import Schedule


@dataclass(frozen=True)
class Step(Schedule):
    """Stairs.

    Attributes:
        every: Rounds, or steps, of a stair.
        gamma: What each stair multiplies with.
    """

    name: Literal["step"] = "step"
    every: Annotated[int, Ge(1)] = 10
    gamma: Annotated[float, Gt(0), Le(1)] = 0.1

    def factor(self, index: int) -> float:
        """See :class:`Schedule`."""
        return self.gamma ** (index // self.every)


SCHEDULE = Step
