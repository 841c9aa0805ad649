"""What follows from the validation figures so far: they are the whole state, and every checkpoint has them."""

from __future__ import annotations

import math
from collections.abc import Sequence
from math import prod

from xbackend_fl.course import Course
from xbackend_fl.events import RoundFinished
from xbackend_fl.metrics import Metric
from xbackend_fl.schedules import Waiting


def watched(course: Course, history: Sequence[RoundFinished]) -> float:
    """What schedules that follow figures multiply the next round's learning rates with."""
    return prod((schedule.reached(losses(history, metric)) for schedule, metric in course.watched), start=1.0)


def stopped(course: Course, history: Sequence[RoundFinished]) -> str:
    """Why the course ends before its last round, in words; empty if it goes on."""
    rule = course.early_stopping
    if rule is None:
        return ""
    metric, waiting = course.metric_called(rule.metric), Waiting(rule.min_delta)
    for loss in losses(history, metric):
        waiting.see(loss)
    if waiting.rounds < rule.patience:
        return ""
    by = f" by more than {rule.min_delta:g}" if rule.min_delta else ""
    return (
        f"early stopping: {metric.name} has not improved{by} for {waiting.rounds} rounds, "
        f"so the course ends after round {history[-1].round} of {course.rounds}"
    )


def losses(history: Sequence[RoundFinished], metric: Metric) -> list[float]:
    """A figure of every round, lower is better; NaN where there is none."""
    sign = -1.0 if metric.higher_is_better else 1.0
    return [sign * entry.metrics.get(metric.name, math.nan) for entry in history]
