"""What the adaptive server optimizers share (Reddi et al. 2021, algorithm 2)."""

from __future__ import annotations

from abc import abstractmethod
from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np

from xbackend_fl.algorithms.server_optimizer import Array, ServerOptimizer, Slots
from xbackend_fl.registry import Decay, Positive


@dataclass(frozen=True)
class Adaptive(ServerOptimizer):
    """A decaying mean of the ways to the mean, shorter by the root of a second moment.

    Attributes:
        beta1: Decay of the mean.
        tau: Adaptivity: added to the root of the second moment, which starts at ``tau**2``.
    """

    beta1: Decay = 0.9
    tau: Positive = 1e-3

    @property
    def slots(self) -> Mapping[str, float]:
        """Both moments."""
        return {"first": 0.0, "second": self.tau**2}

    @abstractmethod
    def moment(self, second: Array, square: Array) -> Array:
        """The new second moment.

        Args:
            second: The old one.
            square: ``delta**2``.
        """

    def step(self, delta: Array, slots: Slots) -> tuple[Array, Slots]:
        """See :class:`~xbackend_fl.algorithms.server_optimizer.ServerOptimizer`."""
        first = self.beta1 * slots["first"] + (1.0 - self.beta1) * delta
        second = self.moment(slots["second"], delta * delta)
        return np.asarray(first / (np.sqrt(second) + self.tau)), {"first": first, "second": second}
