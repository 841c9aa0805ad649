"""Coefficient of determination: the share of the targets' variance that the outputs explain.

Of an output ``[N, K]``, the mean over the K quantities; of any other, one figure over all its values. Means and sums of squared
deviations are merged as Chan, Golub & LeVeque (1979) do: targets far from zero lose no digits. A quantity that never changes has the
figure 1 if it is predicted exactly, else 0, as in scikit-learn.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal, NamedTuple

import numpy as np
from numpy.typing import NDArray

from xbackend_fl.metrics.metric import Figures, Metric, MetricState, Sums
from xbackend_fl.metrics.objective import Shape
from xbackend_fl.metrics.pairs import Pairs, columns_of

Row = NDArray[np.float64]


class _Moments(NamedTuple):
    """By quantity: targets' mean, their squared deviations from it, and the squared errors, summed."""

    mean: Row
    spread: Row
    errors: Row

    def sums(self) -> Sums:
        return {
            f"r2.{kind}.{column}": float(value)
            for kind, row in self._asdict().items()
            for column, value in enumerate(row)
        }


def _moments(sums: Sums) -> _Moments:
    columns = len(sums) // len(_Moments._fields)
    rows = ([sums[f"r2.{kind}.{column}"] for column in range(columns)] for kind in _Moments._fields)
    return _Moments(*(np.array(row, np.float64) for row in rows))


@dataclass(frozen=True)
class R2(Metric):
    """The share of the targets' variance that the outputs explain."""

    fits = frozenset({"values"})
    name: Literal["r2"] = "r2"

    @property
    def higher_is_better(self) -> bool:
        """See :class:`~xbackend_fl.metrics.metric.Metric`."""
        return True

    def max_sums(self, output: Shape) -> int:
        """See :class:`~xbackend_fl.metrics.metric.Metric`."""
        return 3 * columns_of(output)

    def measure(self, pairs: Pairs) -> Sums:
        """See :class:`~xbackend_fl.metrics.metric.Metric`."""
        if not pairs.positions:
            nothing = np.zeros(pairs.targets.shape[1])
            return _Moments(nothing, nothing, nothing).sums()
        # Relative to the first row, so that targets that never change have a spread of exactly zero.
        first = pairs.targets[0]
        moved = pairs.targets - first
        mean = moved.mean(0)
        spread = np.square(moved - mean).sum(0)
        return _Moments(first + mean, spread, np.square(pairs.outputs - pairs.targets).sum(0)).sums()

    def merge(self, one: MetricState, other: MetricState) -> Sums:
        """See :class:`~xbackend_fl.metrics.metric.Metric`."""
        left, right, total = _moments(one.sums), _moments(other.sums), one.positions + other.positions
        if not one.positions or not other.positions:
            return other.sums if other.positions else one.sums
        columns, apart = len(left.mean), right.mean - left.mean
        mean = left.mean + apart * (other.positions / total)
        between = np.square(apart) * (one.positions / columns) * (other.positions / total)
        return _Moments(mean, left.spread + right.spread + between, left.errors + right.errors).sums()

    def figures(self, state: MetricState) -> Figures:
        """See :class:`~xbackend_fl.metrics.metric.Metric`."""
        moments = _moments(state.sums)
        if state.positions < 2 * len(moments.mean):
            return Figures({}, "r2 is not defined for fewer than two examples")
        changing = moments.spread != 0
        ratio = np.divide(moments.errors, moments.spread, out=np.ones_like(moments.errors), where=changing)
        scores = np.where(moments.errors == 0, 1.0, 1.0 - ratio)
        return Figures({self.label: float(scores.mean())})

    def impossible(self, state: MetricState, output: Shape) -> str | None:
        """See :class:`~xbackend_fl.metrics.metric.Metric`."""
        columns = columns_of(output)
        expected = {f"r2.{kind}.{column}" for kind in _Moments._fields for column in range(columns)}
        if state.sums.keys() != expected:
            return f"r2 is not three sums for each of {columns} outputs"
        moments = _moments(state.sums)
        if (moments.spread < 0).any() or (moments.errors < 0).any():
            return "r2 has a negative sum of squares"
        return None


METRIC = R2
