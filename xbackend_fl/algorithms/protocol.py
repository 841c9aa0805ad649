"""What a federated algorithm is: a client's side, a server's side, and the plain data between them.

An algorithm is arithmetic and names. It never sees a framework: the client's side works on :class:`Weights` of one model, in whatever layout
they are, since it computes element by element.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any, Protocol, TypeAlias

from numpy.typing import NDArray

from xbackend_fl.adapter import LocalRule
from xbackend_fl.aggregation import Merged, Update
from xbackend_fl.weights import Weights

State: TypeAlias = Mapping[str, NDArray[Any]]
"""Arrays of the server by ``<slot>/<parameter>``; plain data, so a checkpoint can hold it."""


@dataclass(frozen=True)
class ClientState:
    """What a participant keeps from one of its rounds to the next.

    It counts from when the server has accepted the update that came with it; else the one before stays.

    Attributes:
        vectors: By name, over some parameters of the model; a parameter that is absent is zero.
    """

    vectors: Mapping[str, Weights] = field(default_factory=dict)


@dataclass(frozen=True)
class LocalPlan:
    """How a participant trains.

    Attributes:
        rule: What it does to gradients; ``None`` for nothing at all.
        slots: For every slot of the rule, an array for each trainable parameter.
    """

    rule: LocalRule | None = None
    slots: Mapping[str, Weights] = field(default_factory=dict)


@dataclass(frozen=True)
class Trained:
    """A participant's training.

    Attributes:
        start: Weights before.
        after: Weights after.
        lr_sum: Sum of the learning rates of the steps that lie between.
        num_examples: How many examples it has.
        sent: What the server sent beside the weights.
        state: What the participant kept from its last round; empty if this is its first.
    """

    start: Weights
    after: Weights
    lr_sum: float
    num_examples: int
    sent: Mapping[str, Weights]
    state: ClientState


class ClientAlgorithm(Protocol):
    """A participant's side."""

    def begin(self, start: Weights, sent: Mapping[str, Weights], state: ClientState) -> LocalPlan:
        """How to train from ``start``, given what the server sent beside the weights and what was kept."""
        ...

    def finish(self, trained: Trained) -> tuple[Update, ClientState]:
        """What is given to the server, and what is kept if the server accepts it."""
        ...


class ServerAlgorithm(Protocol):
    """The server's side."""

    def init(self, weights: Weights) -> State:
        """State before the first round."""
        ...

    def vectors(self, weights: Weights, state: State) -> Mapping[str, Weights]:
        """What is sent to participants beside the weights, over trainable parameters only."""
        ...

    def apply(self, weights: Weights, merged: Merged, state: State) -> tuple[Weights, State]:
        """One round.

        Args:
            weights: Global weights that the round started from.
            merged: Means of the participants' vectors.
            state: State from :meth:`init` or the last round.

        Returns:
            The new global weights and the new state.
        """
        ...
