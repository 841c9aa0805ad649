"""A figure that participants report by code of their own: the mean of what they say, each by its examples."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import final

from xbackend_fl.metrics.metric import ANY, Direction, Figures, Metric, MetricState, Sums
from xbackend_fl.metrics.objective import Shape
from xbackend_fl.metrics.pairs import Pairs


@final
@dataclass(frozen=True)
class Reported(Metric):
    """A figure of which the toolkit sees no outputs and no targets.

    Attributes:
        name: Its name in events and tables.
        direction: Where it is better.
    """

    fits = ANY
    everywhere = False
    direction: Direction

    @property
    def higher_is_better(self) -> bool:
        """See :class:`Metric`."""
        return self.direction == "max"

    def to_sums(self, figure: float, num_examples: int) -> Sums:
        """The sums of a figure over some examples."""
        return {self.name: figure * num_examples, self._examples: float(num_examples)}

    def max_sums(self, output: Shape) -> int:
        """See :class:`Metric`."""
        del output
        return 2

    def measure(self, pairs: Pairs) -> Sums:
        """Nothing: it is not of these outputs."""
        del pairs
        return {}

    def figures(self, state: MetricState) -> Figures:
        """See :class:`Metric`."""
        return Figures({self.name: state.sums[self.name] / state.sums[self._examples]})

    def impossible(self, state: MetricState, output: Shape) -> str | None:
        """See :class:`Metric`; whoever reports nothing has no sums."""
        del output
        if not state.sums:
            return None
        if state.sums.keys() != {self.name, self._examples}:
            return f"{self.name} is not a sum and its number of examples"
        examples = state.sums[self._examples]
        if examples < 1 or not examples.is_integer():
            return f"{self.name} is over {examples:g} examples, expected a whole number from 1"
        return None

    def examples(self, sums: Mapping[str, float]) -> float:
        """Over how many examples it is; 0 where nobody reports it."""
        return sums.get(self._examples, 0.0)

    @property
    def _examples(self) -> str:
        return f"{self.name}.examples"
