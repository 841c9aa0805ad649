"""Rounds in a row without an improvement."""

from __future__ import annotations

import math
from dataclasses import dataclass


def improves(loss: float, best: float, min_delta: float) -> bool:
    """Whether a value is below the best so far by more than ``min_delta``; NaN never is."""
    return loss < best - min_delta


@dataclass
class Waiting:
    """Watches one value a round; lower is better.

    Attributes:
        min_delta: Smallest change that is an improvement.
        best: The lowest value so far.
        rounds: How many in a row were no improvement.
    """

    min_delta: float
    best: float = math.inf
    rounds: int = 0

    def see(self, loss: float) -> None:
        """Count a round."""
        if improves(loss, self.best, self.min_delta):
            self.best, self.rounds = loss, 0
        else:
            self.rounds += 1
