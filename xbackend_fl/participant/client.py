"""A participant's side of the algorithm, with one backend's model: what it starts from, how it trains, what it gives and what it keeps."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, final

import numpy as np
from numpy.typing import NDArray

from xbackend_fl.adapter import Tensors
from xbackend_fl.adapter.canonical_model import CanonicalModel
from xbackend_fl.aggregation import MODEL, Update
from xbackend_fl.algorithms import ClientState, LocalPlan, PlainClient, Trained
from xbackend_fl.canonical import Binding, Kind
from xbackend_fl.canonical.layout import leaves
from xbackend_fl.course import Course
from xbackend_fl.errors import ConfigError
from xbackend_fl.participant.failures import possible
from xbackend_fl.weights import Weights

Arrays = Mapping[str, NDArray[Any]]
LOCAL = "local"
"""The vector of a state that holds the participant's own parameters."""
STATE = "state"
"""The part of a state that a training loop of the user's own keeps."""


@dataclass(frozen=True)
class Begun:
    """A participant that is about to train; native layout.

    Attributes:
        start: Its weights, its own parameters among them.
        plan: How it trains.
        sent: What the server sent beside the weights.
        state: What it kept from its last round.
    """

    start: Weights
    plan: LocalPlan
    sent: Mapping[str, Weights]
    state: ClientState


@final
class Client:
    """The algorithm of a course at one model.

    Args:
        course: The course.
        model: The model, before any training: its local parameters start from where they are.

    Attributes:
        local: Names of the canonical parameters that stay here.
        frozen: Names of those that the model would train, and the course does not.
        variances: Native names of the tensors of which no value is negative.
        kinds: Of the canonical parameters in this course.
        plain: Whether everybody trains by one plan from the weights as they came, gives weights only, by its examples, and keeps nothing.

    Raises:
        ConfigError: ``federate.local`` or ``federate.frozen`` does not fit the model.
    """

    def __init__(self, course: Course, model: CanonicalModel) -> None:
        algorithm, schema, binding = course.federate.algorithm, model.schema, model.binding
        self._side = algorithm.client()
        self.kinds = course.kinds(schema)
        self.local = self._of(Kind.LOCAL)
        trained = {p.name for p in schema.parameters if p.kind in {Kind.TRAINABLE, Kind.STATISTIC}}
        self.frozen = self._of(Kind.FROZEN) & trained
        self._binding, self._fingerprint = binding, f"{schema.fingerprint}:{binding.backend}"
        self._native_kinds = {native: self.kinds[owner] for native, owner in binding.owners.items()}
        self._schema = schema
        self.variances = frozenset(n for n, owner in binding.owners.items() if owner in schema.variances)
        self._vectors = binding.subset({n for n, kind in self.kinds.items() if kind is Kind.TRAINABLE})
        self._own_part = binding.subset(self.local)
        _check_apart(binding, self.local, "local")
        _check_apart(binding, self.frozen, "frozen")
        tensors = model.trainer.read() if self.local else {}
        self._own = {name: np.array(tensors[name]) for name in self._own_part.owners}
        # What is given must be the weights: of a class that says something else nothing is known.
        gives = isinstance(self._side, PlainClient) and type(self._side).finish is PlainClient.finish
        apart = algorithm.vectors or algorithm.keeps_state or self.local
        self.plain = gives and algorithm.weighing == "examples" and not apart

    def _of(self, kind: Kind) -> frozenset[str]:
        return frozenset(name for name, found in self.kinds.items() if found is kind)

    def native(self, tensors: Tensors) -> Weights:
        """Native tensors as weights of this binding, so that they merge without conversion."""
        arrays = {name: tensors[name] for name in self._binding.owners}
        return Weights(arrays, self._fingerprint, self._native_kinds)

    def received(self, weights: Weights) -> Weights:
        """Weights that came from the server, in native layout."""
        return self.native(self._binding.restore(weights))

    def sent(self, vectors: Mapping[str, Weights]) -> dict[str, Weights]:
        """What the server sent beside the weights, in native layout."""
        return {name: self._vector(arrays) for name, arrays in vectors.items()}

    def begin(self, start: Weights, sent: Mapping[str, Weights], kept: Arrays) -> Begun:
        """A participant before it trains.

        Args:
            start: The weights of the round, native.
            sent: From :meth:`sent`.
            kept: What it kept from its last round, canonical; empty if this is its first.
        """
        state = self._state(kept)
        mine = self.mine(start, kept)
        return Begun(mine, self._side.begin(mine, sent, state), sent, state)

    @property
    def own_tensors(self) -> frozenset[str]:
        """Native tensors that stay here."""
        return frozenset(self._own)

    def plan(self, start: Weights, sent: Mapping[str, Weights]) -> LocalPlan:
        """How somebody trains that has kept nothing; everybody does, where that is one plan: see :attr:`plain`."""
        return self._side.begin(start, sent, ClientState())

    def mine(self, start: Weights, kept: Arrays) -> Weights:
        """Weights with the participant's own parameters."""
        if not self.local:
            return start
        kept = part_of(kept, LOCAL)
        own = self._own_part.restore(kept) if kept else self._own
        return start.like({**start, **own})

    def finish(self, begun: Begun, after: Tensors, lr_sum: float, num_examples: int) -> tuple[Update, Arrays]:
        """What the participant gives, native; and what it keeps if the server accepts that, canonical."""
        # A loop of somebody's own may have moved what is frozen.
        still = {n: begun.start[n] for n, kind in self._native_kinds.items() if kind is Kind.FROZEN}
        trained = Trained(
            begun.start, self.native({**after, **still}), lr_sum, num_examples, begun.sent, begun.state
        )
        update, state = self._side.finish(trained)
        kept = {
            f"{vector}/{name}": array
            for vector, weights in state.vectors.items()
            for name, array in self._vectors.export(weights).items()
        }
        if self.local:
            # Nobody merges it, and so nobody else would look at it.
            own = possible(
                self._own_part.export({name: after[name] for name in self._own}), self._schema.variances
            )
            kept |= {f"{LOCAL}/{name}": array for name, array in own.items()}
        return update, kept

    def canonical(self, vector: str, arrays: Arrays) -> dict[str, NDArray[Any]]:
        """A vector of an update, or sums of it, in canonical layout."""
        return (self._binding if vector == MODEL else self._vectors).export(arrays)

    def _state(self, kept: Arrays) -> ClientState:
        names = {key.split("/", 1)[0] for key in kept} - {LOCAL, STATE}
        return ClientState({name: self._vector(part_of(kept, name)) for name in names})

    def _vector(self, arrays: Arrays) -> Weights:
        return Weights(self._vectors.restore(arrays), self._fingerprint)


def part_of(kept: Arrays, vector: str) -> Arrays:
    """One vector of what was kept, by parameter."""
    prefix = f"{vector}/"
    return {key.removeprefix(prefix): array for key, array in kept.items() if key.startswith(prefix)}


def _check_apart(binding: Binding, chosen: frozenset[str], word: str) -> None:
    """A tensor of the model is local, or frozen, as a whole, or not at all."""
    where: dict[str, str] = {}
    for name, layout in binding.parameters.items():
        for leaf in leaves(layout):
            other = where.setdefault(leaf.tensor, name)
            if (name in chosen) != (other in chosen):
                raise ConfigError(
                    f"federate.{word}: the {binding.backend} model holds {name!r} and {other!r} in one tensor, {leaf.tensor!r}, "
                    f"and only one of them is {word}",
                    hint=f"make both {word}, or neither",
                )
