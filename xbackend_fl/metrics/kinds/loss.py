"""The loss, in float64: a mean over positions, or a weighted one if the loss has weights."""

from __future__ import annotations

from xbackend_fl.metrics.metric import ANY, Metric, Part, Sums
from xbackend_fl.metrics.pairs import Pairs

WEIGHT = "loss.weight"
"""What the sum of the losses is divided by, where that is not the number of positions."""


def _measure(pairs: Pairs) -> Sums:
    weights = {} if pairs.weights is None else {WEIGHT: float(pairs.weights.sum())}
    return {"loss": float(pairs.losses.sum())} | weights


def _value(part: Part) -> float | None:
    weight = part.sums.get(WEIGHT, part.positions)
    return part.sums["loss"] / weight if weight else None


def _impossible(part: Part, columns: int) -> str | None:
    del columns
    if part.sums.keys() not in ({"loss"}, {"loss", WEIGHT}):
        return "loss is not one number"
    if part.sums.get(WEIGHT, 0.0) < 0:
        return f"{WEIGHT} is {part.sums[WEIGHT]:.6g}"
    if not part.positions and any(part.sums.values()):
        return f"loss is {part.sums['loss']:.6g} over 0 positions"
    return None


METRIC = Metric(
    "loss", ANY, higher_is_better=False, unit="number", measure=_measure, value=_value, impossible=_impossible
)
