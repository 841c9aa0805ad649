"""What a metric is: sums of a batch that can be merged, and the figures that sums have."""

from __future__ import annotations

import math
from abc import ABC, abstractmethod
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, ClassVar, Literal, NamedTuple, TypeAlias, get_args

import numpy as np
from numpy.typing import NDArray
from pydantic import StrictBool

from xbackend_fl.losses import Targets
from xbackend_fl.metrics.objective import Objective, Shape
from xbackend_fl.metrics.pairs import Pairs
from xbackend_fl.registry import Registered

Sums: TypeAlias = Mapping[str, Any]
"""By name, numbers, and flat int64 arrays of counts; the names of a metric's are its label, or begin with it and a dot."""

Direction: TypeAlias = Literal["max", "min"]
"""Where a figure is better."""

ANY: frozenset[Targets] = frozenset(get_args(Targets))
"""What a metric fits that any course has."""


class MetricState(NamedTuple):
    """A metric's sums over some positions.

    Attributes:
        positions: How many targets were counted.
        sums: The sums.
    """

    positions: int
    sums: Sums


class Figures(NamedTuple):
    """What sums have come to.

    Attributes:
        values: By name, the metric's figure first; one that is not defined is not there.
        note: Why one is not there, or of what one is not made, in a line; empty if there is nothing to say.
    """

    values: Mapping[str, float]
    note: str = ""


@dataclass(frozen=True)
class Metric(Registered, ABC):
    """A figure about a model, from outputs and targets. The fields of a metric are the keys of an entry of ``evaluation.metrics``.

    Attributes:
        name: What courses call it: the name of its file.
        fits: Kinds of targets that it is defined for.
        unit: ``share``: from 0 to 1, shown as a percentage; ``number``: shown as it is.
        counts: Whether its sums are flat arrays of counts, and not numbers.
        everywhere: Whether all that is measured has it; else the figure is of those that have.
    """

    fits: ClassVar[frozenset[Targets]]
    unit: ClassVar[Literal["share", "number"]] = "number"
    counts: ClassVar[bool] = False
    everywhere: ClassVar[bool] = True
    name: str

    @property
    def label(self) -> str:
        """The name of its figure in events and tables."""
        return self.name

    @property
    def higher_is_better(self) -> bool:
        """Its direction."""
        return False

    @classmethod
    def has(cls, figure: str, name: str) -> bool:
        """Whether a figure of this name is one of the metric ``name``, whatever its settings."""
        return figure == name or figure.startswith(f"{name}.")

    def gives(self, figure: str) -> bool:
        """Whether a figure of this name is one that it has."""
        return figure == self.label

    def owns(self, key: str) -> bool:
        """Whether a sum of this name is the metric's."""
        return key == self.label or key.startswith(f"{self.label}.")

    def unfit(self, objective: Objective) -> str:
        """Why it is not defined for an output of this shape; empty if it is."""
        del objective
        return ""

    def max_sums(self, output: Shape) -> int:
        """How many sums it may have, for an output of this shape, the batch not counted."""
        del output
        return 1

    def max_counts(self, output: Shape) -> int:
        """How many counts its arrays may have together, for an output of this shape, the batch not counted."""
        del output
        return 0

    @abstractmethod
    def measure(self, pairs: Pairs) -> Sums:
        """Sums over pairs."""

    @abstractmethod
    def figures(self, state: MetricState) -> Figures:
        """What sums have come to."""

    @abstractmethod
    def impossible(self, state: MetricState, output: Shape) -> str | None:
        """Why no data have these sums, of an output of this shape without the batch axis; ``None`` if some have."""

    def merge(self, one: MetricState, other: MetricState) -> Sums:
        """Sums over the positions of both."""
        return {name: value + other.sums[name] for name, value in one.sums.items()}


class Mean(Metric):
    """A metric that is made of a mean over positions, of numbers from 0 to :attr:`upper_bound`."""

    upper_bound: ClassVar[float] = math.inf
    whole: ClassVar[bool] = False
    """Whether what is averaged is a whole number at every position."""

    @abstractmethod
    def per_position(self, pairs: Pairs) -> NDArray[Any]:
        """What is averaged, at every position."""

    def figure(self, mean: float) -> float:
        """The figure that a mean has; not finite if it is none."""
        return mean

    def measure(self, pairs: Pairs) -> Sums:
        """See :class:`Metric`."""
        return {self.label: float(self.per_position(pairs).sum())}

    def figures(self, state: MetricState) -> Figures:
        """See :class:`Metric`."""
        if not state.positions:
            return Figures({})
        return Figures({self.label: self.figure(state.sums[self.label] / state.positions)})

    def impossible(self, state: MetricState, output: Shape) -> str | None:
        """See :class:`Metric`."""
        del output
        name = self.label
        if state.sums.keys() != {name}:
            return f"{name} is not one number"
        highest = self.upper_bound * state.positions if state.positions else 0
        value = state.sums[name]
        if not 0 <= value <= highest * _ROUNDED:
            return f"{name} is {value:.6g} over {state.positions} positions"
        if self.whole and (value > highest or not float(value).is_integer()):
            return f"{name} is {value!r} hits, expected a whole number"
        return None


class Proportion(Mean):
    """The share of positions at which something holds."""

    unit = "share"
    upper_bound = 1.0
    whole = True

    @property
    def higher_is_better(self) -> bool:
        """What holds is wanted."""
        return True


@dataclass(frozen=True)
class OfClasses(Metric):
    """A mean over classes, or over labels that are each a question of its own, of a share that counts have.

    Attributes:
        per_class: Whether every class has a figure of its own beside the mean, called ``NAME.CLASS``.
    """

    fits = frozenset({"classes", "shares"})
    unit = "share"
    counts = True
    per_class: StrictBool = False

    @property
    def higher_is_better(self) -> bool:
        """See :class:`Metric`."""
        return True

    def gives(self, figure: str) -> bool:
        """See :class:`Metric`."""
        name, dot, place = figure.partition(".")
        return name == self.label and (not dot or (self.per_class and place.isdecimal()))


_ROUNDED = 1.0 + 1e-6
"""No sum in float64 is further from the exact one, as a factor."""


def finite(values: NDArray[np.float64]) -> Mapping[int, float]:
    """The numbers of a row that are finite, by their place."""
    return {int(place): float(values[place]) for place in np.flatnonzero(np.isfinite(values))}
