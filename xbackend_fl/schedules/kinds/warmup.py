"""A straight line from ``start`` up to 1 (Goyal et al. 2017, section 2.2); 1 from then on."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Annotated, Literal

from annotated_types import Ge, Gt, Le

from xbackend_fl.schedules.schedule import Schedule


@dataclass(frozen=True)
class Warmup(Schedule):
    """Small steps first.

    Attributes:
        length: Rounds, or steps, until the factor is 1.
        start: The first factor.
    """

    name: Literal["warmup"] = "warmup"
    length: Annotated[int, Ge(1)] = 5
    start: Annotated[float, Gt(0), Le(1)] = 0.1

    def factor(self, index: int) -> float:
        """See :class:`Schedule`."""
        return self.start + (1.0 - self.start) * min(index, self.length) / self.length


SCHEDULE = Warmup
