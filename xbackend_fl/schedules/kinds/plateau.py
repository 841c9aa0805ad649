"""Lower by a factor where a validation figure no longer improves, over rounds."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Annotated, Literal

from annotated_types import Ge, Gt, Le, Lt

from xbackend_fl.schedules.patience import Waiting
from xbackend_fl.schedules.schedule import Schedule


@dataclass(frozen=True)
class Plateau(Schedule):
    """Smaller steps when nothing improves.

    Attributes:
        per: Rounds, of which alone there are figures.
        patience: After so many rounds in a row without an improvement the factor goes down.
        gamma: What it is then multiplied with.
        min_delta: Smallest change that is an improvement.
        cooldown: Rounds after that which do not count.
        floor: The smallest factor.
        metric: The validation figure that is watched; the one that chooses the best weights if left out.
    """

    name: Literal["plateau"] = "plateau"
    per: Literal["round"] = "round"
    patience: Annotated[int, Ge(1)] = 5
    gamma: Annotated[float, Gt(0), Lt(1)] = 0.1
    min_delta: Annotated[float, Ge(0)] = 1e-4
    cooldown: Annotated[int, Ge(0)] = 0
    floor: Annotated[float, Gt(0), Le(1)] = 1e-3
    metric: str | None = None

    def reached(self, losses: Sequence[float]) -> float:
        """See :class:`~xbackend_fl.schedules.schedule.Watching`."""
        waiting, factor, resting = Waiting(self.min_delta), 1.0, 0
        for loss in losses:
            waiting.see(loss)
            if resting:
                resting, waiting.rounds = resting - 1, 0
            if waiting.rounds >= self.patience:
                factor, resting, waiting.rounds = max(factor * self.gamma, self.floor), self.cooldown, 0
        return factor


SCHEDULE = Plateau
