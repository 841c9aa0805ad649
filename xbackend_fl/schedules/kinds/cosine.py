"""Half a cosine from 1 down to ``floor`` (Loshchilov & Hutter 2017, without restarts); ``floor`` from then on."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Annotated, Literal

from annotated_types import Ge, Le

from xbackend_fl.schedules.schedule import Schedule


@dataclass(frozen=True)
class Cosine(Schedule):
    """Slow, fast, slow.

    Attributes:
        length: Rounds, or steps, until the floor.
        floor: The last factor.
    """

    name: Literal["cosine"] = "cosine"
    length: Annotated[int, Ge(1)] = 100
    floor: Annotated[float, Ge(0), Le(1)] = 0.0

    def factor(self, index: int) -> float:
        """See :class:`Schedule`."""
        done = min(index, self.length) / self.length
        return self.floor + (1.0 - self.floor) * 0.5 * (1.0 + math.cos(math.pi * done))


SCHEDULE = Cosine
