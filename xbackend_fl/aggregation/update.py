"""What a participant gives, and what came of all of it: plain data that every engine and every way of merging shares."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import Literal, TypeAlias

from xbackend_fl.weights import Weights

MODEL = "model"
"""The vector of the model's weights, which every update has."""

Weighing: TypeAlias = Literal["examples", "uniform"]
"""How often an update counts: once for every example, or once."""


@dataclass(frozen=True)
class Update:
    """What a participant gives.

    Attributes:
        vectors: ``model``, its weights after training; and what else the algorithm sends, over trainable parameters only.
        num_examples: How many examples it has trained on.
        given: Whether its arrays are given away: sums may lie in their memory, and nobody else may read them afterwards.
    """

    vectors: Mapping[str, Weights]
    num_examples: int
    given: bool = False

    @staticmethod
    def from_weights(weights: Weights, num_examples: int) -> Update:
        """An update that is weights only."""
        return Update({MODEL: weights}, num_examples)

    @property
    def model(self) -> Weights:
        """The weights after training."""
        return self.vectors[MODEL]

    def with_model(self, weights: Weights) -> Update:
        """The same update with other weights."""
        return replace(self, vectors={**self.vectors, MODEL: weights})


@dataclass(frozen=True)
class Merged:
    """What came of a round's updates.

    Attributes:
        vectors: What every vector has become over the updates, such as its mean.
        count: How many updates there were.
    """

    vectors: Mapping[str, Weights]
    count: int

    @property
    def model(self) -> Weights:
        """What the weights after training have become."""
        return self.vectors[MODEL]
