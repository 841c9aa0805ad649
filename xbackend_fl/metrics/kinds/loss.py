"""The loss, in float64: a mean over positions, or a weighted one if the loss has weights."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

from xbackend_fl.metrics.metric import ANY, Figures, Metric, Part, Sums
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

    def figures(self, part: Part) -> Figures:
        """See :class:`~xbackend_fl.metrics.metric.Metric`."""
        weight = part.sums.get(WEIGHT, part.positions)
        return Figures({"loss": part.sums["loss"] / weight} if weight else {})

    def impossible(self, part: Part, output: Shape) -> str | None:
        """See :class:`~xbackend_fl.metrics.metric.Metric`."""
        del output
        if part.sums.keys() not in ({"loss"}, {"loss", WEIGHT}):
            return "loss is not one number"
        if part.sums.get(WEIGHT, 0.0) < 0:
            return f"{WEIGHT} is {part.sums[WEIGHT]:.6g}"
        if not part.positions and any(part.sums.values()):
            return f"loss is {part.sums['loss']:.6g} over 0 positions"
        return None


METRIC = LossMetric
