"""What the mean of a round does to the global weights: an optimizer over rounds, whose gradient is the way to the mean."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, TypeAlias

import numpy as np
from numpy.typing import NDArray

from xbackend_fl.aggregation import Merged
from xbackend_fl.algorithms.protocol import State
from xbackend_fl.canonical import Kind
from xbackend_fl.registry import Positive, Registered
from xbackend_fl.weights import Weights

Array: TypeAlias = NDArray[Any]
Slots: TypeAlias = Mapping[str, Array]
"""State of one parameter: arrays of its shape, by name."""


@dataclass(frozen=True)
class ServerOptimizer(Registered, ABC):
    """An update rule over rounds. Statistics, counters and frozen parameters follow the mean; local parameters stay.

    The fields of a kind are the keys of ``federate.server``.

    Attributes:
        name: What courses call it: the name of its file.
        lr: Server learning rate.
    """

    name: str
    lr: Positive = 1.0

    @property
    def slots(self) -> Mapping[str, float]:
        """Arrays of state per parameter, and the value that each starts with."""
        return {}

    @abstractmethod
    def step(self, delta: Array, slots: Slots) -> tuple[Array, Slots]:
        """What is added to one parameter, before the learning rate, and its new state.

        Args:
            delta: The mean less the global value.
            slots: Its state.
        """

    def init(self, weights: Weights) -> State:
        """State before the first round."""
        names = [name for name in weights if weights.kinds[name] is Kind.TRAINABLE]
        return {
            f"{slot}/{name}": np.full_like(weights[name], value)
            for slot, value in self.slots.items()
            for name in names
        }

    def vectors(self, weights: Weights, state: State) -> Mapping[str, Weights]:
        """Nothing is sent beside the weights."""
        del weights, state
        return {}

    def apply(self, weights: Weights, merged: Merged, state: State) -> tuple[Weights, State]:
        """One round; see :class:`~xbackend_fl.algorithms.protocol.ServerAlgorithm`."""
        mean = merged.model
        new, after = dict(mean), dict(state)
        for name in weights:
            if weights.kinds[name] is not Kind.TRAINABLE:
                continue
            held = {slot: after[f"{slot}/{name}"] for slot in self.slots}
            step, kept = self.step(mean[name] - weights[name], held)
            new[name] = (weights[name] + self.lr * step).astype(weights[name].dtype)
            after |= {f"{slot}/{name}": array for slot, array in kept.items()}
        return weights.like(new), after
