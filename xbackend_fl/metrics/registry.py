"""All metrics by name, which of them fit a loss, and how a figure is shown."""

from __future__ import annotations

import math
from collections.abc import Mapping

from xbackend_fl.losses import Loss, Targets
from xbackend_fl.metrics import kinds
from xbackend_fl.metrics.metric import Metric
from xbackend_fl.registry import discover_kinds

METRICS: Mapping[str, type[Metric]] = discover_kinds(kinds, "METRIC", Metric)
"""Metric by the name of its file, which courses write."""

LOSS: Metric = METRICS["loss"]("loss")
"""Measured in every course."""

_USUAL: Mapping[Targets, tuple[str, ...]] = {
    "classes": ("accuracy",),
    "shares": ("accuracy",),
    "values": ("mae", "r2", "rmse"),
    "counts": (),
}


def fitting(loss: Loss) -> tuple[str, ...]:
    """Names of the metrics that are defined for the targets of a loss."""
    kind = loss.targets
    return tuple(name for name, metric in METRICS.items() if kind in metric.fits)


def usual_metrics(loss: Loss) -> tuple[Metric, ...]:
    """What is measured with a loss if nothing is asked for, beside the loss itself."""
    return tuple(METRICS[name](name) for name in _USUAL[loss.targets])


def shown(name: str, value: float | None) -> str:
    """A figure for people: shares in percent; a dash where there is none.

    Args:
        name: Its name, perhaps behind that of a head and a slash.
        value: The figure.
    """
    if value is None:
        return "-"
    name = name.rpartition("/")[2]
    if any(metric.unit == "share" and metric.has(name, kind) for kind, metric in METRICS.items()):
        return f"{value:.2%}"
    return (
        f"{value:.4f}"
        if not value or 1e-2 <= abs(value) < 1e5 or not math.isfinite(value)
        else f"{value:.3e}"
    )
