"""Silos without a framework that cannot train from weights that are too far away, as a deep net cannot; and a server that is killed at a line of its own."""

from __future__ import annotations

import math
import multiprocessing
import os
import signal
import sys
from collections.abc import Callable, Mapping
from contextlib import closing
from dataclasses import replace
from pathlib import Path
from types import CodeType, FrameType
from typing import Any

import numpy as np

from tests.federation.light import Linear
from tests.federation.links import Passing
from xbackend_fl.course import Course
from xbackend_fl.errors import Diverged
from xbackend_fl.events import Event
from xbackend_fl.federation import DeploymentEngine, Dispatcher, Ledger, Message, Silo
from xbackend_fl.federation.server import verdict
from xbackend_fl.federation.transport import Reply
from xbackend_fl.metrics import Metrics
from xbackend_fl.rounds import RunFolder, back, ready, run_with
from xbackend_fl.weights import Weights

_ENDS = 1.6
"""Mean magnitude of the weights from which nothing trains; it is 0.8 at first."""
FAR = 9.0
"""What a bad silo adds to every weight: a quarter of it is too much for the mean."""


def is_ruined(weights: Weights) -> bool:
    values = np.concatenate([array.reshape(-1) for array in weights.values()])
    return float(np.abs(values).mean()) > _ENDS


class Fragile(Linear):
    """A participant that finds NaN in training, and in evaluation."""

    def step(self, number: int, weights: Weights, name: str) -> tuple[Weights, Metrics]:
        if is_ruined(weights):
            raise Diverged("the training loss is nan")
        return super().step(number, weights, name)

    def evaluate(self, weights: Weights, split: str, *_: object) -> Metrics:
        found = super().evaluate(weights, split)
        return Metrics(20, {"loss": math.nan, "accuracy": 0.0}) if is_ruined(weights) else found


class Bad(Passing):
    """A link on which silos' updates of some rounds are far away.

    Args:
        silos: All.
        rounds: By silo, the rounds in which its update is.
        far: What is added, by silo; :data:`FAR` if it is left out.
    """

    def __init__(
        self, silos: list[Silo], rounds: Mapping[str, range], far: Mapping[str, float] | None = None
    ) -> None:
        super().__init__(silos)
        self._rounds, self._far = rounds, far or {}
        self.sent: list[tuple[str, int]] = []

    def replies(self) -> Any:
        for reply in super().replies():
            answer = Message.from_bytes(reply.frame, reply.name)
            if answer.kind == "trained":
                self.sent.append((reply.name, answer.fields["round"]))
            if answer.kind != "trained" or answer.fields["round"] not in self._rounds.get(reply.name, ()):
                yield reply
                continue
            far = np.float32(self._far.get(reply.name, FAR))
            arrays = {name: array + far for name, array in answer.arrays.items()}
            yield Reply(reply.name, replace(answer, arrays=arrays).to_bytes())


def fragile(course: Course, out: Path | None = None) -> list[Silo]:
    """All silos of a course."""
    names = [participant.name for participant in course.participants]
    return [
        Silo(course, name, Fragile(name, course), out=None if out is None else out / name) for name in names
    ]


def led(
    course: Course,
    folder: Path,
    rounds: Mapping[str, range],
    observer: Callable[[Event], None] = lambda _: None,
) -> str:
    """Lead a course, or go on with it; the digest of the last weights."""
    out = folder / "run"
    run = RunFolder.load(out) if out.is_dir() else RunFolder.create(course, out)
    link = Bad(fragile(course, folder / "silos"), rounds)
    with closing(DeploymentEngine(course, Dispatcher(link), Ledger(run))) as engine:
        return run_with(engine, course, run, run.latest(), observer).weights.digest


_GOING_BACK: frozenset[CodeType] = frozenset(
    {
        back.go_back.__code__,
        ready.put_back.__code__,
        RunFolder.drop_checkpoint.__code__,
        verdict.take_out.__code__,
        Ledger.take_out.__code__,
        Ledger.begin.__code__,
        RunFolder.save_checkpoint.__code__,
    }
)


def _counted(at: int, done: list[int]) -> Any:
    """A trace function that kills the process at the ``at``-th line of what goes back."""

    def line(_: FrameType, what: str, __: object) -> Any:
        if what == "line":
            done[0] += 1
            if done[0] == at:
                os.kill(os.getpid(), signal.SIGKILL)
        return line

    return lambda frame, _, __: line if frame.f_code in _GOING_BACK else None


def _lead_until(course: Course, folder: Path, rounds: Mapping[str, range], at: int) -> None:
    done = [0]
    sys.settrace(_counted(at, done))
    led(course, folder, rounds)
    sys.settrace(None)
    (folder / "lines").write_text(str(done[0]), encoding="utf-8")


def killed_at(course: Course, folder: Path, rounds: Mapping[str, range], at: int) -> bool:
    """Lead a course in a process of its own that is killed at such a line, if there are so many; whether it was."""
    folder.mkdir()
    process = multiprocessing.get_context("fork").Process(
        target=_lead_until, args=(course, folder, rounds, at)
    )
    process.start()
    process.join()
    assert process.exitcode in {0, -signal.SIGKILL}
    return process.exitcode != 0
