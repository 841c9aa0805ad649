"""A course that ends early: when Keras's callback would end it, in both engines, and how it goes on."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest

from tests.algorithms.smooth import course_of
from tests.federation.conftest import files_of  # noqa: F401  a fixture
from tests.federation.links import deployed
from tests.federation.local import LocalLink
from xbackend_fl import Course, load_course, run_course
from xbackend_fl.course.early_stopping import EarlyStopping
from xbackend_fl.errors import ConfigError
from xbackend_fl.events import CourseFinished, Event, Noted, RoundFinished
from xbackend_fl.federation import Silo
from xbackend_fl.rounds.watching import stopped
from xbackend_fl.simulation import resume_run

RULE = "early_stopping={patience: 2, min_delta: 0.5, metric: loss}"


@pytest.mark.parametrize("seed", range(6))
def test_it_ends_when_keras_would(seed: int, tmp_path: Path) -> None:
    import keras

    figures = np.random.default_rng(seed).random(40)
    callback = keras.callbacks.EarlyStopping("loss", min_delta=0.05, patience=4, mode="min")
    model = keras.Sequential()
    model.stop_training = False
    callback.set_model(model)
    callback.on_train_begin()
    rule = EarlyStopping(patience=4, min_delta=0.05, metric="loss")
    course = course_of(tmp_path, ["torch"], rounds=40).model_copy(update={"early_stopping": rule})
    history: list[RoundFinished] = []
    for epoch, figure in enumerate(figures):
        callback.on_epoch_end(epoch, {"loss": figure})
        history.append(
            RoundFinished(
                round=epoch + 1, loss=figure, metrics={"loss": figure}, best=False, num_examples=1, seconds=1
            )
        )
        assert bool(stopped(course, history)) == model.stop_training
        if model.stop_training:
            return
    raise AssertionError("it never ends")


def test_it_ends_in_both_engines_and_goes_on(tmp_path: Path, files_of: Callable[[Course], Path]) -> None:  # noqa: F811
    settings = ("federate.precision=exact", "federate.cohort=5")
    course = course_of(tmp_path / "course", ["torch"], RULE, *settings, rounds=6)
    events: list[Event] = []
    run = run_course(course, tmp_path / "run", in_process=True, observer=events.append)
    last = events[-1]
    assert isinstance(last, CourseFinished)
    assert (last.rounds, last.interrupted) == (3, False)
    reason = "loss has not improved by more than 0.5 for 2 rounds, so the course ends after round 3 of 6"
    assert reason in last.stopped_early
    assert any(reason in event.note for event in events if isinstance(event, Noted))
    assert reason in (tmp_path / "run" / "summary.md").read_text()
    data = files_of(course)
    silos = [
        Silo.from_course(course, p.name, data / f"{p.name}.npz", out=tmp_path / p.name)
        for p in course.participants
    ]
    real, told = deployed(course, LocalLink(silos), tmp_path / "deployed")
    assert real.weights.digest == run.weights.digest
    assert isinstance(told[-1], CourseFinished)
    assert told[-1].stopped_early == last.stopped_early
    events.clear()
    again = resume_run(tmp_path / "run", in_process=True, observer=events.append)
    assert again.weights.digest == run.weights.digest
    assert any(
        "early_stopping ended the course" in event.note for event in events if isinstance(event, Noted)
    )
    on = resume_run(tmp_path / "run", ["early_stopping.patience=3"], in_process=True)
    assert on.history[-1].round == 4


def test_a_figure_that_there_is_not_is_refused(tmp_path: Path) -> None:
    course_of(tmp_path, ["torch"])
    with pytest.raises(ConfigError, match=r"watches 'accuracy'; evaluation\.metrics has loss, mae"):
        load_course(tmp_path / "course.yaml", ["early_stopping={metric: accuracy}"])
