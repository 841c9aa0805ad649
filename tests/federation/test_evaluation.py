"""The shared model at every participant: the same figures in a simulation and over a transport, and nobody's failure ends a course."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from tests import small_models
from tests.federation.campaign import write_course
from tests.federation.links import Passing, deployed, light
from tests.federation.local import LocalLink
from xbackend_fl import Course, load_course, run_course
from xbackend_fl.course.agreed import agreed
from xbackend_fl.errors import ConfigError, RunFailed
from xbackend_fl.events import Event, Noted, ParticipantEvaluated, RoundFinished
from xbackend_fl.federation import Silo
from xbackend_fl.metrics import Metrics
from xbackend_fl.participant import CourseData
from xbackend_fl.simulation import resume_run

EVALUATION = "evaluation={validation: participants, held_out: 0.2, metrics: [accuracy, auc, {name: top_k, k: 2}], best: {metric: accuracy, over: worst_tenth}}"


@pytest.fixture
def course(digits: Path, small: list[str]) -> Course:
    models = [small_models.TORCH, "participants={torch: 3}"]
    return load_course(digits / "course.yaml", [*small, *models, EVALUATION, "training.steps=1"])


def of_rounds(events: list[Event]) -> dict[tuple[int, str], dict[str, float]]:
    return {(e.round, e.name): e.metrics for e in events if isinstance(e, ParticipantEvaluated)}


def test_the_model_at_every_participant_in_both_engines(course: Course, tmp_path: Path) -> None:
    told: list[Event] = []
    expected = run_course(course, tmp_path / "simulated", in_process=True, observer=told.append)
    silos = [Silo.from_course(course, p.name) for p in course.participants]
    run, events = deployed(course, LocalLink(silos), tmp_path / "deployed")
    assert run.weights.digest == expected.weights.digest
    each = of_rounds(told)
    assert of_rounds(events) == each
    names = [participant.name for participant in course.participants]
    assert [*each] == [(number, name) for number in (1, 2) for name in names]
    for one, other in zip(run.history, expected.history, strict=True):
        figures = [each[one.round, name] for name in names]
        for name in ("accuracy", "auc", "top_2", "loss"):
            values = [found[name] for found in figures]
            worst = max(values) if name == "loss" else min(values)
            assert one.participants["mean"][name] == pytest.approx(np.mean(values), rel=1e-12)
            assert one.participants["worst_tenth"][name] == pytest.approx(worst, rel=1e-12)
        assert one.participants == other.participants
        assert one.metrics == pytest.approx(other.metrics, rel=1e-12)
        assert (one.best, one.num_examples) == (other.best, other.num_examples)
    plain = load_course(course.base / "course.yaml", ["participants={torch: 3}"])
    assert run.history[0].num_examples < sum(_sizes(plain).values())
    page = (tmp_path / "deployed" / "summary.md").read_text()
    assert "| worst tenth |" in page
    assert all(f"| {name} |" in page for name in names)


def _sizes(course: Course) -> dict[str, int]:
    source = CourseData(course, "torch")
    return {name: len(data) for name, data in source.parts(source.splits()).items()}


def test_a_silo_with_data_of_its_own_validates_on_them(
    course: Course, tmp_path: Path, files_of: Callable[[Course], Path]
) -> None:
    """Nothing is held out of what it trains on: it has brought both."""
    data = files_of(course)
    silos = [Silo.from_course(course, p.name, data / f"{p.name}.npz") for p in course.participants]
    run, events = deployed(course, LocalLink(silos), tmp_path / "deployed")
    assert run.history[0].num_examples == sum(_sizes(course).values())
    each = of_rounds(events)
    # All three files have the same validation examples.
    assert each[1, "torch-1"] == each[1, "torch-2"] == each[1, "torch-3"]
    assert run.history[0].participants["worst_tenth"] == pytest.approx(run.history[0].participants["mean"])


def test_a_course_that_goes_on_chooses_as_it_would_have(course: Course, tmp_path: Path) -> None:
    whole = run_course(course, tmp_path / "whole", in_process=True)
    stops: list[Any] = []
    half = run_course(
        course,
        tmp_path / "half",
        in_process=True,
        observer=lambda e: stops.append(e) if isinstance(e, RoundFinished) else None,
        should_stop=lambda: bool(stops),
    )
    assert len(half.history) == 1
    rest = resume_run(tmp_path / "half", in_process=True)
    assert rest.weights.digest == whole.weights.digest
    assert [e.participants for e in rest.history] == [e.participants for e in whole.history]
    assert [e.best for e in rest.history] == [e.best for e in whole.history]


def test_whoever_cannot_evaluate_still_trains(tmp_path: Path) -> None:
    more = "evaluation: {validation: participants}\n"
    course = write_course(tmp_path / "course", rounds=3, silos=3, more=more)
    silos = light(course)
    expected, _ = deployed(course, Passing(light(course)), tmp_path / "expected")

    def fails(*_: object) -> Metrics:
        raise RunFailed("the scanner is off")

    silos[1]._learner.evaluate = fails  # type: ignore[method-assign]
    run, events = deployed(course, Passing(silos), tmp_path / "run")
    assert run.weights.digest == expected.weights.digest
    notes = [f"{e.backend}: {e.note}" for e in events if isinstance(e, Noted) and "scanner" in e.note]
    assert notes == [
        f"{silos[1].name}: it is not in the validation figures: the scanner is off",
        f"server: silo {silos[1].name!r} is not in the validation and test figures: the scanner is off",
    ]
    assert {name for _, name in of_rounds(events)} == {silos[0].name, silos[2].name}


def test_a_failure_of_every_round_is_said_once(tmp_path: Path) -> None:
    """A course that may stop early evaluates in messages of its own."""
    more = "early_stopping: {metric: loss, patience: 9}\n"
    course = write_course(tmp_path / "course", rounds=4, silos=3, more=more)
    silos = light(course)

    def fails(*_: object) -> Metrics:
        raise RunFailed("the scanner is off")

    silos[1]._learner.evaluate = fails  # type: ignore[method-assign]
    _, events = deployed(course, Passing(silos), tmp_path / "run")
    notes = [e.note for e in events if isinstance(e, Noted) and "scanner" in e.note]
    assert notes == [
        f"silo {silos[1].name!r} is not in the {splits} figures: the scanner is off"
        for splits in ("validation", "validation and test")
    ]


@pytest.mark.parametrize(
    "setting",
    [
        "evaluation.metrics.1=f1",
        "evaluation.metrics.1={name: auc, bins: 2048}",
        "evaluation.held_out=0.3",
        "evaluation.validation=common",
    ],
)
def test_what_a_silo_measures_is_in_its_first_word(setting: str, course: Course, digits: Path) -> None:
    best = "evaluation.best=accuracy"
    other = load_course(digits / "course.yaml", ["participants={torch: 3}", EVALUATION, best, setting])
    same = load_course(digits / "course.yaml", ["participants={torch: 3}", EVALUATION, best])
    evaluation = [
        {k: v for k, v in agreed(c, "torch-1").items() if k.startswith("evaluation.")}
        for c in (same, course, other)
    ]
    assert evaluation[0] == evaluation[1] != evaluation[2]


@pytest.mark.parametrize(
    ("setting", "key"),
    [
        ("training.loss={name: cross_entropy, label_smoothing: 0.1}", "training.loss.label_smoothing"),
        ("training.ignore_index=3", "training.ignore_index"),
        ("training.class_axis=1", "training.class_axis"),
    ],
)
def test_what_a_silo_minimises_is_in_its_first_word(setting: str, key: str, digits: Path) -> None:
    same, other = (
        agreed(load_course(digits / "course.yaml", ["participants={torch: 3}", *more]), "torch-1")
        for more in ([], [setting])
    )
    assert {k for k in {*same, *other} if same.get(k) != other.get(k)} == {key}


@pytest.mark.parametrize(
    ("settings", "words"),
    [
        (
            ["evaluation.best={over: mean}"],
            "evaluation.best is over participants (mean), who are not evaluated",
        ),
        (["evaluation.held_out=1"], "`evaluation.held_out`: input should be less than 1"),
        (["evaluation.metrics=[auc, auc]"], "evaluation.metrics has auc twice"),
        (["evaluation.metrics=[aucc]"], "did you mean `auc`"),
        (["evaluation.metrics=[{name: top_k, k: 0}]"], "greater than or equal to 1"),
        (["evaluation.metrics=[{name: top_k, k: true}]"], "is a switch"),
        (["evaluation.metrics=[{name: auc, k: 5}]"], "k"),
        (["evaluation.metrics=[mae]"], "mae does not fit the loss cross_entropy, which has accuracy, auc,"),
        (["evaluation.best=f1.3"], "evaluation.best is f1.3, but the loss is cross_entropy, which has"),
        (["evaluation.best={metric: auc, direction: up}"], "'max' or 'min'"),
        (["training.metric=auc"], "`training.metric` is now `evaluation.best`"),
        (
            [
                "evaluation.validation=participants",
                "participants=[{name: a, backend: torch, data: 'data.py:load', train: 'data.py:load'}]",
            ],
            "participant 'a' trains by a loop of its own on data of its own",
        ),
    ],
)
def test_what_is_no_evaluation_is_refused(settings: list[str], words: str, digits: Path) -> None:
    with pytest.raises(ConfigError) as caught:
        load_course(digits / "course.yaml", settings)
    assert words in f"{caught.value.message} {caught.value.hint}"


@pytest.mark.parametrize(
    ("settings", "figure", "direction"),
    [
        ([], "accuracy", "max"),
        (["evaluation.metrics=[auc]"], "loss", "min"),
        (["evaluation.metrics=[auc]", "evaluation.best=auc"], "auc", "max"),
        (["evaluation.best=perplexity"], "perplexity", "min"),
        (["evaluation.metrics=[{name: top_k, k: 3}]", "evaluation.best=top_3"], "top_3", "max"),
        (["evaluation.metrics=[{name: f1, per_class: true}]", "evaluation.best=f1.3"], "f1.3", "max"),
        (["evaluation.best={metric: f1, direction: min}"], "f1", "min"),
    ],
)
def test_what_chooses(settings: list[str], figure: str, direction: str, digits: Path) -> None:
    course = load_course(digits / "course.yaml", settings)
    assert (course.chosen_by.name, course.chosen_by.direction) == (figure, direction)
    assert course.figures.gives(figure)
