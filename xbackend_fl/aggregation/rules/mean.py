"""The mean of updates that may have several vectors, each with its own weighing."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Literal, final

from xbackend_fl.aggregation.aggregator import Aggregator, PartialAggregate, Rule, Start
from xbackend_fl.aggregation.online import OnlineMean, Precision
from xbackend_fl.aggregation.update import MODEL, Merged, Update, Weighing
from xbackend_fl.errors import UpdateRefused
from xbackend_fl.weights import Weights


@final
class MeanAggregator:
    """A mean of every vector, one update at a time: memory of one update, whatever the number of participants.

    Args:
        base: Weights that the updates started from.
        vectors: What updates have beside the weights, by name: an example, of which names, shapes and dtypes are read.
        weighing: How often an update counts, in every vector.
        precision: See :class:`~xbackend_fl.aggregation.online.OnlineMean`.
        variances: Names of the parameters of which no value is negative.
    """

    def __init__(
        self,
        base: Weights,
        vectors: Mapping[str, Weights] | None = None,
        weighing: Weighing = "examples",
        precision: Precision = "float32",
        variances: frozenset[str] = frozenset(),
    ) -> None:
        uniform = weighing == "uniform"
        self._means = {MODEL: OnlineMean(base, precision, variances, uniform=uniform)}
        for name, like in (vectors or {}).items():
            self._means[name] = OnlineMean(None, precision, uniform=uniform, like=like)

    @property
    def precision(self) -> Precision:
        """What sums hold."""
        return self._means[MODEL].precision

    @property
    def count(self) -> int:
        """How many updates there are."""
        return self._means[MODEL].count

    @property
    def num_examples(self) -> int:
        """Of all updates."""
        return self._means[MODEL].total

    def add(self, update: Update) -> None:
        """Merge an update: all of its vectors, or none.

        Raises:
            UpdateRefused: A vector is missing, is too many, or cannot be merged.
        """
        if update.vectors.keys() != self._means.keys():
            found, wanted = sorted(update.vectors), sorted(self._means)
            raise UpdateRefused(f"the update has the vectors {found}, expected {wanted}")
        others = [name for name in self._means if name != MODEL]
        for name in others:
            self._means[name].check(update.vectors[name], update.num_examples)
        # The largest last: it is looked at once.
        self._means[MODEL].add(update.model, update.num_examples, given=update.given and not others)
        for name in others:
            self._means[name].add(update.vectors[name], update.num_examples)

    @property
    def partial(self) -> PartialAggregate:
        """What was added up so far; the arrays are the mean's own."""
        return PartialAggregate({name: mean.sums for name, mean in self._means.items()})

    def absorb(self, partial: PartialAggregate) -> None:
        """Go on with what was added up elsewhere, over other participants, from the same base.

        Raises:
            UpdateRefused: It does not fit, or is too large beside what is here.
        """
        for name, mean in self._means.items():
            mean.absorb(partial.sums[name])

    def result(self) -> Merged:
        """The means.

        Raises:
            RunFailed: Nothing was added.
        """
        return Merged({name: mean.result() for name, mean in self._means.items()}, self.count)


@dataclass(frozen=True)
class Mean(Rule):
    """The mean, by examples or as the algorithm weighs updates; memory of one update."""

    name: Literal["mean"] = "mean"

    def make(self, start: Start) -> Aggregator:
        """An aggregator for a round."""
        return MeanAggregator(start.base, start.vectors, start.weighing, start.precision, start.variances)


RULE = Mean
