"""Courses whose learning rate changes: against float64 NumPy, after an interruption, over a transport."""

from __future__ import annotations

import math
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest

from tests.algorithms.smooth import course_of
from tests.algorithms.test_reference import ALGORITHMS, BACKENDS, LR, Reference
from tests.federation.conftest import files_of  # noqa: F401  a fixture
from tests.federation.links import deployed
from tests.federation.local import LocalLink
from xbackend_fl import Course, load_course, run_course
from xbackend_fl.errors import ConfigError
from xbackend_fl.federation import Silo
from xbackend_fl.participant import Worker
from xbackend_fl.rounds.watching import watched
from xbackend_fl.simulation import resume_run

BOTH = "training.schedule=[{name: cosine, length: 6, floor: 0.2}, {name: warmup, per: step, length: 9}]"
PLATEAU = "training.schedule={name: plateau, patience: 1, gamma: 0.5, min_delta: 0.5, metric: loss}"


def rate(number: int, step: int) -> float:
    """What the settings above say, written once more."""
    over = 0.2 + 0.8 * (1 + math.cos(math.pi * (number - 1) / 6)) / 2
    return LR * over * (0.1 + 0.9 * min(step / 9, 1))


@pytest.mark.parametrize("algorithm", ["fedavg", "scaffold"])
@pytest.mark.parametrize("backends", ["torch", pytest.param("mixed", marks=pytest.mark.slow)])
def test_rates_over_rounds_and_steps(backends: str, algorithm: str, tmp_path: Path) -> None:
    settings = [f"federate.algorithm={ALGORITHMS[algorithm]}", "data.partition.kind=quantity", BOTH]
    course = course_of(tmp_path / "course", BACKENDS[backends], *settings, rounds=4)
    initial = {k: v.astype(np.float64) for k, v in Worker(course, course.reference, 1).initial().items()}
    run = run_course(course, tmp_path / "run", in_process=True)
    reference = Reference(course, algorithm, initial, rate)
    for number in range(1, 5):
        reference.round(number)
    for key, value in reference.w.items():
        np.testing.assert_allclose(run.weights[key], value, rtol=0, atol=1e-6)


@pytest.mark.parametrize("schedule", [pytest.param(BOTH, marks=pytest.mark.slow), PLATEAU])
def test_silos_and_whoever_goes_on_end_with_the_same_bits(
    schedule: str,
    tmp_path: Path,
    files_of: Callable[[Course], Path],  # noqa: F811
) -> None:
    settings = (schedule, "federate.precision=exact", "federate.cohort=5")
    course = course_of(tmp_path / "course", ["torch"], *settings, rounds=4)
    run = run_course(course, tmp_path / "whole", in_process=True)
    assert watched(course, run.history) == (0.125 if schedule == PLATEAU else 1.0)
    short = course_of(tmp_path / "course", ["torch"], *settings, rounds=2)
    run_course(short, tmp_path / "half", in_process=True)
    assert resume_run(tmp_path / "half", ["rounds=4"], in_process=True).weights.digest == run.weights.digest
    data = files_of(course)
    silos = [
        Silo.from_course(course, p.name, data / f"{p.name}.npz", out=tmp_path / p.name)
        for p in course.participants
    ]
    real, _ = deployed(course, LocalLink(silos), tmp_path / "deployed")
    assert real.weights.digest == run.weights.digest


@pytest.mark.parametrize(
    ("setting", "words"),
    {
        "{name: step, every: 1, gamma: 1.0e-9}": "round 6 is 1e-46, which is 0 in float32",
        "{name: plateau, metric: acuracy}": "watches 'acuracy'; evaluation.metrics has",
        "{name: cosin}": "there are cosine, exponential, plateau, step, warmup",
        "{name: plateau, per: step}": "per",
    }.items(),
)
def test_what_is_no_schedule_is_refused(setting: str, words: str, tmp_path: Path) -> None:
    course_of(tmp_path, ["torch"])
    with pytest.raises(ConfigError, match=words):
        load_course(tmp_path / "course.yaml", [f"training.schedule={setting}", "rounds=6"])
