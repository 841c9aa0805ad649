"""The loss, in float64: a mean over positions, or a weighted one if the loss has weights."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

from xbackend_fl.metrics.metric import ANY, Figures, Metric, MetricState, Sums
from xbackend_fl.metrics.objective import Shape
from xbackend_fl.metrics.pairs import Pairs

WEIGHT = "loss.weight"
"""What the sum of the losses is divided by, where that is not the number of positions."""


@dataclass(frozen=True)
class LossMetric(Metric):
    """The loss of every position that counts, divided by their weights."""

    fits = ANY
    name: Literal["loss"] = "loss"

    def measure(self, pairs: Pairs) -> Sums:
        """See :class:`~xbackend_fl.metrics.metric.Metric`."""
        weights = {} if pairs.weights is None else {WEIGHT: float(pairs.weights.sum())}
        return {"loss": float(pairs.losses.sum())} | weights

    def figures(self, state: MetricState) -> Figures:
        """See :class:`~xbackend_fl.metrics.metric.Metric`."""
        weight = state.sums.get(WEIGHT, state.positions)
        return Figures({"loss": state.sums["loss"] / weight} if weight else {})

    def impossible(self, state: MetricState, output: Shape) -> str | None:
        """See :class:`~xbackend_fl.metrics.metric.Metric`."""
        del output
        if state.sums.keys() not in ({"loss"}, {"loss", WEIGHT}):
            return "loss is not one number"
        if state.sums.get(WEIGHT, 0.0) < 0:
            return f"{WEIGHT} is {state.sums[WEIGHT]:.6g}"
        if not state.positions and any(state.sums.values()):
            return f"loss is {state.sums['loss']:.6g} over 0 positions"
        return None


METRIC = LossMetric
