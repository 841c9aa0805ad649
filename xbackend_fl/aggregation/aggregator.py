"""What merges the updates of a round, and what it is made from."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path
from typing import Any, ClassVar, Protocol

from numpy.typing import NDArray

from xbackend_fl.aggregation.online import Precision, Sums
from xbackend_fl.aggregation.update import Merged, Update, Weighing
from xbackend_fl.registry import Registered
from xbackend_fl.weights import Weights


@dataclass(frozen=True)
class PartialAggregate:
    """What came of some of a round's participants: plain data that another process can go on with.

    Attributes:
        sums: By vector, where updates are added up as they come.
        updates: Files of updates in canonical layout and the examples of each, where every one is needed.
    """

    sums: Mapping[str, Sums] = field(default_factory=dict)
    updates: tuple[tuple[Path, int], ...] = ()

    def mapped(
        self, convert: Callable[[str, Mapping[str, NDArray[Any]]], Mapping[str, NDArray[Any]]]
    ) -> PartialAggregate:
        """The same with sums under a linear change of layout, which is given the vector's name and arrays."""
        return PartialAggregate(
            {name: sums.mapped(partial(convert, name)) for name, sums in self.sums.items()}, self.updates
        )


class Aggregator(Protocol):
    """Merges the updates of one round."""

    @property
    def count(self) -> int:
        """How many updates there are."""
        ...

    @property
    def num_examples(self) -> int:
        """Of all updates."""
        ...

    @property
    def partial(self) -> PartialAggregate:
        """What was merged so far, for an aggregator in another process."""
        ...

    def add(self, update: Update) -> None:
        """Merge an update: all of its vectors, or none.

        Raises:
            UpdateRefused: It cannot be merged; everything is as it was.
        """
        ...

    def absorb(self, partial: PartialAggregate) -> None:
        """Go on with what was merged elsewhere, over other participants, from the same base.

        Raises:
            UpdateRefused: It does not fit.
        """
        ...

    def result(self) -> Merged:
        """What came of all updates.

        Raises:
            RunFailed: There are too few.
        """
        ...


@dataclass(frozen=True)
class Start:
    """What a round starts from.

    Attributes:
        base: Weights that updates started from.
        vectors: What updates have beside the weights, by name: an example, of which names, shapes and dtypes are read.
        weighing: How often an update counts.
        precision: Of sums.
        variances: Names of the parameters of which no value is negative.
        folder: Where a rule that needs every update may keep them for the round.
    """

    base: Weights
    vectors: Mapping[str, Weights] = field(default_factory=dict)
    weighing: Weighing = "examples"
    precision: Precision = "float32"
    variances: frozenset[str] = frozenset()
    folder: Path | None = None


@dataclass(frozen=True)
class Rule(Registered, ABC):
    """The settings of a way to merge; its fields are the keys of ``federate.aggregator``.

    Attributes:
        streams: Whether updates are merged as they come, and in any layout; else every one is kept until the round is over, in canonical layout.
        vectors: Whether it merges what algorithms send beside the weights.
        min_updates: So many updates a round needs at least.
        name: What courses call it: the name of its file.
    """

    streams: ClassVar[bool] = True
    vectors: ClassVar[bool] = True
    min_updates: ClassVar[int] = 1
    name: str

    @abstractmethod
    def make(self, start: Start) -> Aggregator:
        """An aggregator for a round."""
