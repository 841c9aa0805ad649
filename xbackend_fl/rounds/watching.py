"""What follows from the validation figures so far: they are the whole state, and every checkpoint has them."""

from __future__ import annotations

from collections.abc import Sequence
from math import prod

from xbackend_fl.course import Course
from xbackend_fl.events import RoundFinished
from xbackend_fl.metrics import Choice
from xbackend_fl.rounds.evaluating import chosen
from xbackend_fl.schedules import Waiting


def watched(course: Course, history: Sequence[RoundFinished]) -> float:
    """What schedules that follow figures multiply the next round's learning rates with."""
    return prod((schedule.reached(losses(history, figure)) for schedule, figure in course.watched), start=1.0)


def stopped(course: Course, history: Sequence[RoundFinished]) -> str:
    """Why the course ends before its last round, in words; empty if it goes on."""
    rule = course.early_stopping
    if rule is None:
        return ""
    figure, waiting = course.figure_called(rule.metric), Waiting(rule.min_delta)
    for loss in losses(history, figure):
        waiting.see(loss)
    if waiting.rounds < rule.patience:
        return ""
    by = f" by more than {rule.min_delta:g}" if rule.min_delta else ""
    return (
        f"early stopping: {figure.name} has not improved{by} for {waiting.rounds} rounds, "
        f"so the course ends after round {history[-1].round} of {course.rounds}"
    )


def losses(history: Sequence[RoundFinished], figure: Choice) -> list[float]:
    """A figure of every round, lower is better; infinite where there is none."""
    return [-figure.goodness(chosen(entry, figure)) for entry in history]
