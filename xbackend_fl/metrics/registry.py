"""All metrics by name, and which of them fit a loss."""

from __future__ import annotations

import math
from collections.abc import Mapping

from xbackend_fl.locate import of_each_file
from xbackend_fl.losses import Loss
from xbackend_fl.metrics import kinds
from xbackend_fl.metrics.metric import Metric
from xbackend_fl.metrics.own import MetricFile

_FOUND: list[Metric] = [*of_each_file(kinds, "METRIC").values()]
METRICS: Mapping[str, Metric] = {
    metric.name: metric for metric in sorted(_FOUND, key=lambda metric: (metric.name != "loss", metric.name))
}
"""Metric name to metric: the loss, then the others in alphabetic order."""


def metrics_for(loss: Loss, own: MetricFile | None = None) -> tuple[Metric, ...]:
    """What is measured in a course with this loss: the loss itself first, and a metric of the user's own last."""
    fitting = tuple(metric for metric in METRICS.values() if loss.targets in metric.targets)
    return fitting if own is None else (*fitting, own.metric)


def default_metric(loss: Loss) -> Metric:
    """What chooses the best weights of a course with this loss."""
    return METRICS[loss.metric]


def shown(name: str, value: float | None) -> str:
    """A figure for people: shares in percent; a dash where there is none."""
    if value is None:
        return "-"
    if name in METRICS and METRICS[name].unit == "share":
        return f"{value:.2%}"
    return (
        f"{value:.4f}"
        if not value or 1e-2 <= abs(value) < 1e5 or not math.isfinite(value)
        else f"{value:.3e}"
    )


def is_better(metric: Metric, figures: Mapping[str, float], others: Mapping[str, float]) -> bool:
    """Whether figures are better than others by a metric, or by the loss if that is equal; NaN is worst."""
    return _goodness(metric, figures) > _goodness(metric, others)


def _goodness(metric: Metric, figures: Mapping[str, float]) -> list[float]:
    values = [(figures.get(item.name, math.nan), item.higher_is_better) for item in (metric, METRICS["loss"])]
    return [-math.inf if math.isnan(value) else value if higher else -value for value, higher in values]
