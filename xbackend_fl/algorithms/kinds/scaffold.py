"""SCAFFOLD (Karimireddy et al. 2020, algorithm 1, option II): control variates take the drift of a participant out of its steps.

With ``c`` the server's control and ``c_i`` the participant's, both zero at first, a step follows ``g - c_i + c``. After steps of rates ``lr_k`` from
``w`` to ``y``::

    c_i' = c_i - c + (w - y) / sum(lr_k)        with one rate for K steps, K * lr
    w'   = w + lr_server * mean(y - w)          over the cohort, everybody once
    c'   = c + |cohort| / N * mean(c_i' - c_i)

so that ``c`` stays the mean of all ``c_i``. Only a plain step makes ``(w - y) / sum(lr_k)`` a mean of gradients: momentum and Adam are refused.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Literal

import numpy as np

from xbackend_fl.adapter import Optimizer
from xbackend_fl.aggregation import MODEL, Merged, Update
from xbackend_fl.algorithms.algorithm import Algorithm
from xbackend_fl.algorithms.protocol import (
    ClientAlgorithm,
    ClientState,
    LocalPlan,
    ServerAlgorithm,
    State,
    Trained,
)
from xbackend_fl.algorithms.server_optimizer import ServerOptimizer
from xbackend_fl.algorithms.vectors import trainable, vector, zeros
from xbackend_fl.weights import Weights

CONTROL = "control"


@dataclass(frozen=True)
class ControlRule:
    """``g - own + common``."""

    @property
    def slots(self) -> tuple[str, ...]:
        """The participant's control and the server's."""
        return ("own", "common")

    def gradient(self, gradient: Any, value: Any, slots: Sequence[Any]) -> Any:
        """See :class:`~xbackend_fl.adapter.rules.LocalRule`."""
        del value
        own, common = slots
        return gradient - own + common

    def term(self, value: Any, slots: Sequence[Any]) -> Any:
        """``(common - own) * x``."""
        own, common = slots
        return (common - own) * value


@dataclass(frozen=True)
class ScaffoldClient:
    """A participant's side."""

    def begin(self, start: Weights, sent: Mapping[str, Weights], state: ClientState) -> LocalPlan:
        """Steps are corrected by both controls."""
        own = state.vectors.get(CONTROL) or zeros(start)
        return LocalPlan(ControlRule(), {"own": own, "common": sent[CONTROL]})

    def finish(self, trained: Trained) -> tuple[Update, ClientState]:
        """The weights and the change of the participant's control, which it keeps."""
        start, common = trainable(trained.start), trained.sent[CONTROL]
        own = trained.state.vectors.get(CONTROL) or zeros(start)
        scale = np.float32(1.0 / trained.lr_sum)
        new = {name: own[name] - common[name] + (start[name] - trained.after[name]) * scale for name in start}
        change = vector(start, {name: new[name] - own[name] for name in start})
        vectors = {MODEL: trained.after, CONTROL: change}
        return Update(vectors, trained.num_examples), ClientState({CONTROL: vector(start, new)})


@dataclass(frozen=True)
class ScaffoldServer:
    """The server's side.

    Attributes:
        optimizer: FedAvg, with the server's rate.
        num_participants: How many the course has.
    """

    optimizer: ServerOptimizer
    num_participants: int

    def init(self, weights: Weights) -> State:
        """The sum of all participants' controls, which are zero: participants may come later, and the mean is then over them too."""
        return {f"{CONTROL}/{name}": array for name, array in zeros(weights).items()}

    def vectors(self, weights: Weights, state: State) -> Mapping[str, Weights]:
        """The mean of all participants' controls."""
        share = np.float32(1.0 / self.num_participants)
        return {CONTROL: vector(weights, {n: state[f"{CONTROL}/{n}"] * share for n in trainable(weights)})}

    def apply(self, weights: Weights, merged: Merged, state: State) -> tuple[Weights, State]:
        """See :class:`~xbackend_fl.algorithms.protocol.ServerAlgorithm`."""
        new, _ = self.optimizer.apply(weights, merged, {})
        changes, count = merged.vectors[CONTROL], np.float32(merged.count)
        return new, {f"{CONTROL}/{n}": state[f"{CONTROL}/{n}"] + count * changes[n] for n in changes}


@dataclass(frozen=True)
class Scaffold(Algorithm):
    """Steps without the participants' drift, for the price of a second vector in either direction."""

    weighing = "uniform"
    vectors = (CONTROL,)
    keeps_state = True
    counts_steps = True
    name: Literal["scaffold"] = "scaffold"

    def client(self) -> ClientAlgorithm:
        """A participant's side."""
        return ScaffoldClient()

    def server(self, optimizer: ServerOptimizer, num_participants: int) -> ServerAlgorithm:
        """The server's side."""
        return ScaffoldServer(optimizer, num_participants)

    def unfit(self, optimizer: Optimizer, server: ServerOptimizer) -> str:
        """It is defined for plain steps, on both sides."""
        if not optimizer.plain:
            return (
                f"scaffold is defined for plain steps, and training.optimizer is {optimizer.name}: after {optimizer.name} "
                "the way that a participant went is no sum of gradients"
            )
        if server.name != "fedavg":
            return f"scaffold has a server step of its own, and federate.server is {server.name}"
        return ""


ALGORITHM = Scaffold
