"""The mean itself, or a part of the way to it (McMahan et al. 2017)."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

from xbackend_fl.aggregation import Merged
from xbackend_fl.algorithms.protocol import State
from xbackend_fl.algorithms.server_optimizer import Array, ServerOptimizer, Slots
from xbackend_fl.weights import Weights


@dataclass(frozen=True)
class FedAvgServer(ServerOptimizer):
    """The new weights are the mean."""

    name: Literal["fedavg"] = "fedavg"

    def step(self, delta: Array, slots: Slots) -> tuple[Array, Slots]:
        """See :class:`~xbackend_fl.algorithms.server_optimizer.ServerOptimizer`."""
        return delta, slots

    def apply(self, weights: Weights, merged: Merged, state: State) -> tuple[Weights, State]:
        """With a rate of 1 exactly the mean, without the rounding of a difference."""
        return (
            super().apply(weights, merged, state) if self.lr != 1.0 else (weights.like(merged.model), state)
        )


SERVER = FedAvgServer
