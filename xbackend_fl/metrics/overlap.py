"""Metrics of what was found, chosen and there: three counts for every class, or for every label that is a question of its own."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Annotated, Any

import numpy as np
from annotated_types import Ge
from numpy.typing import NDArray
from pydantic import StrictInt

from xbackend_fl.metrics.metric import Figures, MetricState, OfClasses, Sums, finite
from xbackend_fl.metrics.objective import Objective, Shape
from xbackend_fl.metrics.pairs import Pairs, columns_of

Row = NDArray[Any]


@dataclass(frozen=True)
class Overlap(OfClasses):
    """A mean over classes of a figure that is made of three counts over all positions.

    A class that is neither in the targets nor chosen has no figure, and is not in the mean.

    Attributes:
        background: A class that is not in the mean, such as what is no organ; none if left out.
    """

    background: Annotated[StrictInt, Ge(0)] | None = None

    def score(self, found: Row, chosen: Row, there: Row) -> Row:
        """The figure of every class, ``2 TP / (2 TP + FP + FN)`` unless a metric says otherwise; NaN where it is not defined.

        Args:
            found: Positions of the class that were chosen, float64.
            chosen: Positions that were chosen.
            there: Positions of the class.
        """
        return np.asarray(2 * found / (chosen + there))

    def unfit(self, objective: Objective) -> str:
        """A background must be a class."""
        classes = objective.num_classes or columns_of(objective.output)
        if self.background is None or (self.background < classes and classes > 1):
            return ""
        return f"{self.label}: background is {self.background}, and there are the classes 0 to {classes - 1}"

    def max_counts(self, output: Shape) -> int:
        """See :class:`~xbackend_fl.metrics.metric.Metric`."""
        return 3 * max(output, default=1)

    def measure(self, pairs: Pairs) -> Sums:
        """See :class:`~xbackend_fl.metrics.metric.Metric`."""
        if pairs.objective.class_axis is not None:
            classes, there, chosen = pairs.objective.num_classes, pairs.targets, pairs.outputs.argmax(1)
            found = there[there == chosen]
        else:
            classes = columns_of(pairs.objective.output)
            is_there, is_chosen = pairs.targets[:, 0] > 0.5, pairs.outputs[:, 0] > 0
            labels = np.zeros(len(is_there), np.intp) if pairs.labels is None else pairs.labels
            found, chosen, there = labels[is_there & is_chosen], labels[is_chosen], labels[is_there]
        counted = [np.bincount(kind, minlength=classes) for kind in (found, chosen, there)]
        return {self.label: np.concatenate(counted).astype(np.int64)}

    def figures(self, state: MetricState) -> Figures:
        """See :class:`~xbackend_fl.metrics.metric.Metric`."""
        with np.errstate(divide="ignore", invalid="ignore"):
            scores = self.score(*state.sums[self.label].reshape(3, -1).astype(np.float64))
        each = finite(scores)
        kept = [value for place, value in each.items() if place != self.background]
        if not kept:
            return Figures({}, f"{self.label} is not defined: no class is in the targets or chosen")
        shown = {f"{self.label}.{place}": value for place, value in each.items()} if self.per_class else {}
        return Figures({self.label: float(np.mean(kept))} | shown)

    def impossible(self, state: MetricState, output: Shape) -> str | None:
        """See :class:`~xbackend_fl.metrics.metric.Metric`."""
        counted: Row = state.sums.get(self.label, np.zeros(0))
        if len(state.sums) != 1 or len(counted) not in {3, *(3 * n for n in output)}:
            return f"{self.label} is not three counts for each class"
        found, chosen, there = counted.reshape(3, -1)
        if found.min() < 0 or (found > np.minimum(chosen, there)).any():
            return f"{self.label} has more positions found than there are"
        if max(chosen.max(), there.max()) > state.positions:
            return f"{self.label} has more positions than the {state.positions} that count"
        return None
