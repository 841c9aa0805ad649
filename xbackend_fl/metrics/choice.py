"""Which of two results is better."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass
from typing import final

from xbackend_fl.metrics.metric import Direction
from xbackend_fl.metrics.participants import Over


@final
@dataclass(frozen=True)
class Choice:
    """A figure, and where it is better.

    Attributes:
        name: The figure's name in events and tables.
        direction: ``max`` if more is better.
        over: Whether it is of all examples together, or of participants.
    """

    name: str
    direction: Direction
    over: Over = "all"

    def goodness(self, figures: Mapping[str, float]) -> float:
        """The figure, turned so that more is better; minus infinity if it is not there or NaN."""
        value = figures.get(self.name, math.nan)
        if math.isnan(value):
            return -math.inf
        return value if self.direction == "max" else -value

    def is_better(self, figures: Mapping[str, float], others: Mapping[str, float]) -> bool:
        """Whether figures are better than others, or have the lower loss if they are equal."""
        by_loss = Choice("loss", "min")
        one, other = ((self.goodness(f), by_loss.goodness(f)) for f in (figures, others))
        return one > other
