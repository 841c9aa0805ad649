"""Server optimizers: what the mean of a round does to the global weights (Reddi et al. 2021, algorithm 2)."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Literal, TypeAlias

import numpy as np
from numpy.typing import NDArray

from xbackend_fl.aggregation import Merged
from xbackend_fl.algorithms.protocol import State
from xbackend_fl.canonical import Kind
from xbackend_fl.weights import Weights

Name: TypeAlias = Literal["fedavg", "fedavgm", "fedadagrad", "fedadam", "fedyogi"]


@dataclass(frozen=True)
class ServerOptimizer:
    """An update rule over rounds. Statistics, counters and frozen parameters follow the mean; local parameters stay.

    Attributes:
        name: The rule.
        lr: Server learning rate.
        momentum: Decay of the momentum (fedavgm).
        beta1: Decay of the first moment (fedadagrad, fedadam, fedyogi).
        beta2: Decay of the second moment (fedadam, fedyogi).
        tau: Adaptivity: added to the root of the second moment, which starts at ``tau**2``.
    """

    name: Name = "fedavg"
    lr: float = 1.0
    momentum: float = 0.9
    beta1: float = 0.9
    beta2: float = 0.99
    tau: float = 1e-3

    def init(self, weights: Weights) -> State:
        """State before the first round."""
        names = [name for name in weights if weights.kinds[name] is Kind.TRAINABLE]
        state: dict[str, NDArray[Any]] = {}
        if self.name != "fedavg":
            state |= {f"first/{name}": np.zeros_like(weights[name]) for name in names}
        if self.name in {"fedadagrad", "fedadam", "fedyogi"}:
            state |= {f"second/{name}": np.full_like(weights[name], self.tau**2) for name in names}
        return state

    def vectors(self, weights: Weights, state: State) -> Mapping[str, Weights]:
        """Nothing is sent beside the weights."""
        del weights, state
        return {}

    def apply(self, weights: Weights, merged: Merged, state: State) -> tuple[Weights, State]:
        """One round; see :class:`~xbackend_fl.algorithms.protocol.ServerAlgorithm`."""
        mean = merged.model
        new, slots = dict(mean), dict(state)
        for name in weights:
            if weights.kinds[name] is not Kind.TRAINABLE:
                continue
            if self.name == "fedavg" and self.lr == 1.0:
                continue  # exactly the mean, without the rounding of a difference
            step = self._step(name, mean[name] - weights[name], slots)
            new[name] = (weights[name] + self.lr * step).astype(weights[name].dtype)
        return weights.like(new), slots

    def _step(self, name: str, delta: NDArray[Any], slots: dict[str, NDArray[Any]]) -> NDArray[Any]:
        if self.name == "fedavg":
            return delta
        first = slots[f"first/{name}"]
        if self.name == "fedavgm":
            slots[f"first/{name}"] = first = np.asarray(self.momentum * first + delta)
            return first
        slots[f"first/{name}"] = first = self.beta1 * first + (1.0 - self.beta1) * delta
        second, square = slots[f"second/{name}"], delta * delta
        match self.name:
            case "fedadagrad":
                second = second + square
            case "fedadam":
                second = self.beta2 * second + (1.0 - self.beta2) * square
            case "fedyogi":
                second = second - (1.0 - self.beta2) * square * np.sign(second - square)
        slots[f"second/{name}"] = second
        return np.asarray(first / (np.sqrt(second) + self.tau))
