"""Nesterov's momentum over rounds, as DiLoCo has it (Douillard et al. 2023): ``v <- momentum * v + delta``, ``w + lr * (delta + momentum * v)``."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Literal

import numpy as np

from xbackend_fl.algorithms.server_optimizer import Array, ServerOptimizer, Slots
from xbackend_fl.registry import Decay


@dataclass(frozen=True)
class NesterovServer(ServerOptimizer):
    """Steps along a decaying sum of the ways to the mean, looked ahead along.

    Attributes:
        momentum: Decay of the sum.
    """

    name: Literal["nesterov"] = "nesterov"
    momentum: Decay = 0.9

    @property
    def slots(self) -> Mapping[str, float]:
        """The sum."""
        return {"first": 0.0}

    def step(self, delta: Array, slots: Slots) -> tuple[Array, Slots]:
        """See :class:`~xbackend_fl.algorithms.server_optimizer.ServerOptimizer`."""
        first = np.asarray(self.momentum * slots["first"] + delta)
        return np.asarray(delta + self.momentum * first), {"first": first}


SERVER = NesterovServer
