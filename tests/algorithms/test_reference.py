"""Courses against the algorithms' formulas, written out once more in float64 NumPy."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest

from tests.algorithms.smooth import NAMES, Array, Model, course_of, steps_of
from xbackend_fl import Course, run_course
from xbackend_fl.data import cohort
from xbackend_fl.participant import ClientStates, CourseData, Worker
from xbackend_fl.rounds import RunFolder

Weights = dict[str, Array]
LR = 0.1
BACKENDS = {"torch": ["torch"], "tensorflow": ["tensorflow"], "mixed": ["torch", "tensorflow"]}
ALGORITHMS = {
    "fedavg": "fedavg",
    "fedprox": "{name: fedprox, mu: 0.5}",
    "scaffold": "scaffold",
}


def controls(folder: RunFolder, name: str, after: int) -> Weights:
    """What a participant keeps after a round, by parameter."""
    kept = ClientStates(folder.path / "clients", 0, 1000).read(name, after + 1)
    return {key.removeprefix("control/"): array.astype(np.float64) for key, array in kept.items()}


class Reference:
    """The course in float64; the sums of an algorithm are those of its paper, not of the code."""

    def __init__(
        self,
        course: Course,
        algorithm: str,
        initial: Weights,
        rate: Callable[[int, int], float] = lambda number, step: LR,  # noqa: ARG005  of every step
    ) -> None:
        self.course, self.algorithm, self.w, self.rate = course, algorithm, initial, rate
        splits = CourseData(course, course.reference).splits()
        self.data = {}
        for backend in course.backends:
            for name, shard in CourseData(course, backend).parts(splits).items():
                own = shard.gather(np.arange(len(shard)))
                self.data[name] = own.inputs[0].astype(np.float64), own.targets.astype(np.float64)
        self.c = {key: np.zeros_like(value) for key, value in initial.items()}
        self.own = {name: {k: v.copy() for k, v in self.c.items()} for name in NAMES}

    def round(self, number: int) -> None:
        names = [p.name for p in self.course.participants]
        chosen = cohort(names, 3, self.course.seed, "cohort", number)
        ends, sizes, moves = {}, {}, {}
        for name in chosen:
            x, y = self.data[name]
            local, path = {k: v.copy() for k, v in self.w.items()}, 0.0
            for step, rows in enumerate(steps_of(self.course, number, name, len(x))):
                found = Model.gradient(local, x[rows], y[rows])
                for key, value in local.items():
                    if self.algorithm == "fedprox":
                        found[key] = found[key] + 0.5 * (value - self.w[key])
                    if self.algorithm == "scaffold":
                        found[key] = found[key] - self.own[name][key] + self.c[key]
                lr = self.rate(number, step)
                local = {key: value - lr * found[key] for key, value in local.items()}
                path += lr
            ends[name], sizes[name] = local, len(x)
            if self.algorithm == "scaffold":
                new = {k: self.own[name][k] - self.c[k] + (self.w[k] - local[k]) / path for k in local}
                moves[name] = {k: new[k] - self.own[name][k] for k in new}
                self.own[name] = new
        total = sum(sizes.values())
        share = {n: 1 / 3 if self.algorithm == "scaffold" else sizes[n] / total for n in chosen}
        self.w = {k: sum(share[n] * ends[n][k] for n in chosen) for k in self.w}  # type: ignore[misc]
        for move in moves.values():
            for key in self.c:
                self.c[key] = self.c[key] + move[key] / len(names)


@pytest.mark.parametrize("algorithm", ALGORITHMS)
@pytest.mark.parametrize(
    "backends",
    [
        pytest.param("torch", marks=pytest.mark.slow),
        pytest.param("tensorflow", marks=pytest.mark.slow),
        "mixed",
    ],
)
def test_twenty_rounds(algorithm: str, backends: str, tmp_path: Path) -> None:
    settings = [f"federate.algorithm={ALGORITHMS[algorithm]}", "data.partition.kind=quantity"]
    course = course_of(tmp_path / "course", BACKENDS[backends], *settings)
    initial = {k: v.astype(np.float64) for k, v in Worker(course, course.reference, 1).initial().items()}
    run = run_course(course, tmp_path / "run", in_process=True)
    folder = RunFolder(tmp_path / "run")
    reference = Reference(course, algorithm, initial)
    for number in range(1, 21):
        reference.round(number)
        state = folder.readable(number)
        assert state is not None
        if algorithm == "scaffold":
            summed = {k: sum(controls(folder, name, number).get(k, 0.0) for name in NAMES) for k in initial}
            for key, value in summed.items():
                np.testing.assert_allclose(state.server[f"control/{key}"], value, rtol=0, atol=2e-6)
    assert max(np.abs(reference.w[k] - initial[k]).max() for k in initial) > 0.1
    for key, value in reference.w.items():
        np.testing.assert_allclose(run.weights[key], value, rtol=0, atol=1e-6)
    if algorithm == "scaffold":
        assert state is not None
        for key, value in reference.c.items():
            np.testing.assert_allclose(state.server[f"control/{key}"] / len(NAMES), value, rtol=0, atol=2e-6)
            for name in NAMES:
                kept = controls(folder, name, 20)[key]
                np.testing.assert_allclose(kept, reference.own[name][key], rtol=0, atol=2e-6)
