"""The settings of an algorithm, and what they make: one class a file in ``kinds``, found by itself."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import ClassVar

from xbackend_fl.adapter import Optimizer
from xbackend_fl.aggregation import Update, Weighing
from xbackend_fl.algorithms.protocol import (
    ClientAlgorithm,
    ClientState,
    LocalPlan,
    ServerAlgorithm,
    Trained,
)
from xbackend_fl.algorithms.server_optimizer import ServerOptimizer
from xbackend_fl.registry import Registered
from xbackend_fl.weights import Weights


@dataclass(frozen=True)
class Algorithm(Registered):
    """FedAvg's sides, which an algorithm replaces as far as it differs. Its fields are the keys of ``federate.algorithm``.

    Attributes:
        counts_steps: Whether it computes with the number of plain steps that a participant made, so that these must be known.
        name: What courses call it: the name of its file.
        weighing: How often an update counts in the means.
        vectors: Names of what updates have beside the weights.
        local: What stays with its participant: roles and patterns of parameters, beside those of the course.
        keeps_state: Whether a participant keeps something from one of its rounds to the next.
    """

    weighing: ClassVar[Weighing] = "examples"
    vectors: ClassVar[tuple[str, ...]] = ()
    local: ClassVar[tuple[str, ...]] = ()
    keeps_state: ClassVar[bool] = False
    counts_steps: ClassVar[bool] = False
    name: str

    def client(self) -> ClientAlgorithm:
        """A participant's side."""
        return PlainClient()

    def server(self, optimizer: ServerOptimizer, num_participants: int) -> ServerAlgorithm:
        """The server's side.

        Args:
            optimizer: What the mean does to the weights.
            num_participants: How many the course has, whatever the cohort.
        """
        del num_participants
        return optimizer

    def unfit(self, optimizer: Optimizer, server: ServerOptimizer) -> str:
        """Why it is not defined with these optimizers; empty if it is."""
        del optimizer, server
        return ""


class PlainClient:
    """Trains as it is told and gives its weights."""

    def begin(self, start: Weights, sent: Mapping[str, Weights], state: ClientState) -> LocalPlan:
        """Nothing is added to gradients."""
        del start, sent, state
        return LocalPlan()

    def finish(self, trained: Trained) -> tuple[Update, ClientState]:
        """The weights, and nothing to keep."""
        return Update.from_weights(trained.after, trained.num_examples), ClientState()
