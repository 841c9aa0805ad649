"""What a metric is: sums of a batch that can be merged, and the value that sums have."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any, Literal, NamedTuple, TypeAlias, get_args

from numpy.typing import NDArray

from xbackend_fl.losses import Targets
from xbackend_fl.metrics.pairs import Pairs

Sums: TypeAlias = Mapping[str, float]
"""Numbers by name; the names of a metric's are its own name, or begin with it and a dot."""


ANY: frozenset[Targets] = frozenset(get_args(Targets))
"""What a metric fits that any course has."""


class Part(NamedTuple):
    """A metric's sums over some positions.

    Attributes:
        positions: How many targets were counted.
        sums: The sums.
    """

    positions: int
    sums: Sums


def added(one: Part, other: Part) -> Sums:
    """Sums that are merged by addition."""
    return {name: value + other.sums[name] for name, value in one.sums.items()}


@dataclass(frozen=True)
class Metric:
    """A figure about a model, from outputs and targets.

    Attributes:
        name: Its name in courses, events and tables.
        targets: Kinds of targets that it fits.
        higher_is_better: Its direction.
        unit: ``share``: from 0 to 1, shown as a percentage; ``number``: shown as it is.
        measure: Sums over pairs.
        value: The figure; ``None`` where it is not defined.
        impossible: Why no data have these sums; ``None`` if some have. ``columns`` is that of :func:`columns_of`.
        merge: Sums over two parts.
    """

    name: str
    targets: frozenset[Targets]
    higher_is_better: bool
    unit: Literal["share", "number"]
    measure: Callable[[Pairs], Sums]
    value: Callable[[Part], float | None]
    impossible: Callable[[Part, int], str | None]
    merge: Callable[[Part, Part], Sums] = added

    def owns(self, key: str) -> bool:
        """Whether a sum of this name is the metric's."""
        return key == self.name or key.startswith(f"{self.name}.")


def mean(
    name: str,
    targets: frozenset[Targets],
    at: Callable[[Pairs], NDArray[Any]],
    *,
    higher_is_better: bool = False,
    unit: Literal["share", "number"] = "number",
    root: bool = False,
    counts: bool = False,
) -> Metric:
    """A metric that is a mean over positions.

    Args:
        name: Its name.
        targets: Kinds of targets that it fits.
        at: What is averaged, 0 or more at every position; at most 1 if the unit is ``share``.
        higher_is_better: Its direction.
        unit: How it is shown.
        root: Whether the figure is the square root of the mean.
        counts: Whether what is averaged is 0 or 1, so that the sum is a whole number.
    """

    def measure(pairs: Pairs) -> Sums:
        return {name: float(at(pairs).sum())}

    def value(part: Part) -> float | None:
        if not part.positions:
            return None
        average = part.sums[name] / part.positions
        return math.sqrt(average) if root else average

    def impossible(part: Part, columns: int) -> str | None:
        del columns
        if part.sums.keys() != {name}:
            return f"{name} is not one number"
        highest = part.positions if unit == "share" else math.inf if part.positions else 0
        if not 0 <= part.sums[name] <= highest:
            return f"{name} is {part.sums[name]:.6g} over {part.positions} positions"
        if counts and not part.sums[name].is_integer():
            return f"{name} is {part.sums[name]!r} hits, expected a whole number"
        return None

    return Metric(name, targets, higher_is_better, unit, measure, value, impossible)
