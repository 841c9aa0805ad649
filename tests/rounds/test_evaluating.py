"""What chooses among rounds, and what is said of figures that are not there."""

from __future__ import annotations

import numpy as np
import pytest

from xbackend_fl.events import Event, Noted, RoundFinished
from xbackend_fl.losses import LOSSES
from xbackend_fl.metrics import METRICS, Choice, Metrics, Objective
from xbackend_fl.metrics.participants import Over
from xbackend_fl.rounds.evaluating import emit_undefined, is_better
from xbackend_fl.rounds.watching import losses

pytestmark = pytest.mark.quick


def finished(number: int, everybody: float, mean: float, worst: float) -> RoundFinished:
    figures = {"mean": {"accuracy": mean, "loss": 1.0}, "worst_tenth": {"accuracy": worst, "loss": 1.0}}
    return RoundFinished(
        round=number,
        loss=1.0,
        metrics={"accuracy": everybody, "loss": 1.0},
        participants=figures,
        best=False,
        num_examples=1,
        seconds=0.0,
    )


@pytest.mark.parametrize(("over", "expected"), [("all", True), ("mean", False), ("worst_tenth", True)])
def test_a_choice_is_among_its_own_figures(over: Over, *, expected: bool) -> None:
    one, other = finished(1, 0.5, 0.6, 0.1), finished(2, 0.7, 0.5, 0.2)
    choice = Choice("accuracy", "max", over)
    assert is_better(other, one, choice) is expected
    assert is_better(one, other, choice) is not expected
    assert is_better(one, None, choice)
    assert losses([one, other], choice) == [
        -(one.metrics if over == "all" else one.participants[over])["accuracy"],
        -(other.metrics if over == "all" else other.participants[over])["accuracy"],
    ]


def test_a_figure_that_is_not_there_is_said_when_that_begins() -> None:
    classes = Objective(LOSSES["cross_entropy"]("cross_entropy"), (2,), class_axis=1)
    auc = [METRICS["auc"]("auc")]
    without = Metrics.measured(classes, np.eye(2), np.zeros(2, int), auc)
    there = Metrics.measured(classes, np.eye(2), np.arange(2), auc)
    events: list[Event] = []
    before = None
    for found in (without, without, there, without):
        emit_undefined(found, before, events.append)
        before = found.figures.keys()
    notes = [event.note for event in events if isinstance(event, Noted)]
    assert notes == ["auc is not defined: no class has positions and others beside it"] * 2
