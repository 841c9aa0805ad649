"""What server optimizers with momentum over rounds share: ``v <- momentum * v + delta``."""

from __future__ import annotations

from abc import abstractmethod
from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np

from xbackend_fl.algorithms.server_optimizer import Array, ServerOptimizer, Slots
from xbackend_fl.registry import Decay


@dataclass(frozen=True)
class Decaying(ServerOptimizer):
    """Steps that follow a decaying sum of the ways to the mean.

    Attributes:
        momentum: Decay of the sum.
    """

    momentum: Decay = 0.9

    @property
    def slots(self) -> Mapping[str, float]:
        """The sum."""
        return {"first": 0.0}

    @abstractmethod
    def direction(self, delta: Array, first: Array) -> Array:
        """Where the step goes.

        Args:
            delta: The way to the mean.
            first: The new sum.
        """

    def step(self, delta: Array, slots: Slots) -> tuple[Array, Slots]:
        """See :class:`~xbackend_fl.algorithms.server_optimizer.ServerOptimizer`."""
        first = np.asarray(self.momentum * slots["first"] + delta)
        return self.direction(delta, first), {"first": first}
