"""Kills of a simulation at any point, and what it ends with when it goes on.

``python -m tests.simulation.kills 200 1 streams`` ends a run so many times, each time in a random round at a random moment, drawn with seed 1, goes on, and compares
everything that it ends with (last weights, history, best weights) with an undisturbed run. ``everything`` and ``controls`` are the other courses.
PyTorch is imported once, with what it imports when a model is described: each attempt is a process that is forked.
"""

from __future__ import annotations

import json
import os
import random
import signal
import sys
import tempfile
import time
import traceback
from collections.abc import Callable, Iterator
from contextlib import suppress
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch.utils.data import DataLoader, TensorDataset

from xbackend_fl import describe
from xbackend_fl.course import load_course
from xbackend_fl.events import Event, RoundStarted
from xbackend_fl.rounds import RunFolder
from xbackend_fl.simulation import resume_run, run_course

COURSE = """\
name: killed
seed: 3
rounds: {rounds}
models: {{torch: "{file}:build"}}
input: ["1,8"]
data: {{source: "{file}:shared", transform: "{file}:noisy"}}
participants:
  - {{name: alone, backend: torch, data: "{file}:{first}"}}
  - {{name: batches, backend: torch, data: "{file}:{second}", training: {{batch_size: 8}}}}
  - {{name: shares, backend: torch}}
  - {{name: others, backend: torch}}
training: {{batch_size: 16, loss: cross_entropy, {training}}}
federate: {{{federate}}}
{more}
"""
_SCHEDULE = "schedule: [{name: plateau, patience: 1, gamma: 0.5}, {name: warmup, per: step, length: 3}]"
_STOPS = "early_stopping: {patience: 3, metric: loss}"
COURSES = {
    # Whoever brings batches of their own, in an order that they keep, and in one that they shuffle.
    "streams": {
        "rounds": 20,
        "first": "shuffled",
        "second": "iterator",
        "training": "optimizer: {name: adam, lr: 0.01}",
        "federate": "",
        "more": "",
    },
    "everything": {
        "rounds": 30,
        "first": "shuffled",
        "second": "items",
        "training": f"optimizer: {{name: momentum, lr: 0.1}}, {_SCHEDULE}",
        "federate": 'frozen: ["0.bias"], server: {name: fedavgm}',
        "more": _STOPS,
    },
    "controls": {
        "rounds": 12,
        "first": "arrays",
        "second": "items",
        "training": f"optimizer: {{name: sgd, lr: 0.2}}, {_SCHEDULE}",
        "federate": 'algorithm: scaffold, frozen: ["2.bias"], cohort: 3',
        "more": "",
    },
}
_PATIENCE_S = 300.0


def build() -> torch.nn.Module:
    """With dropout, whose random numbers are the framework's."""
    nn = torch.nn
    return nn.Sequential(nn.Linear(8, 16), nn.ReLU(), nn.Linear(16, 16), nn.Dropout(0.2), nn.Linear(16, 3))


def _made(seed: int, count: int) -> tuple[np.ndarray, np.ndarray]:
    inputs = np.random.default_rng(seed).standard_normal((count, 8)).astype(np.float32)
    return inputs, (inputs[:, 0] > 0).astype(np.int64) + (inputs[:, 1] > 0.3)


def shared() -> dict[str, Any]:
    """Arrays that two participants share."""
    return {"train": _made(0, 90), "validation": _made(1, 40), "test": _made(2, 40)}


def arrays() -> Any:
    """Of one participant."""
    return _made(3, 50)


def items() -> Any:
    """Examples by number."""
    return TensorDataset(*map(torch.from_numpy, _made(4, 60)))


def shuffled() -> Any:
    """Batches in an order that follows PyTorch's generator."""
    return DataLoader(TensorDataset(*map(torch.from_numpy, _made(5, 50))), batch_size=16, shuffle=True)


class _Iterator:
    def __iter__(self) -> Iterator[tuple[np.ndarray, np.ndarray]]:
        inputs, targets = _made(6, 45)
        for start in range(0, 45, 10):
            yield inputs[start : start + 10], targets[start : start + 10]


def iterator() -> Any:
    """Batches of another size than the course's, and a last one of another."""
    return _Iterator()


def noisy(inputs: np.ndarray, targets: np.ndarray, rng: np.random.Generator) -> Any:
    """A transform."""
    return inputs + 0.1 * rng.standard_normal(inputs.shape), targets


def kills(folder: Path, count: int, seed: int, course: str) -> str:
    """Kill runs of a course, so many times in all, and compare what they end with.

    Raises:
        AssertionError: A run did not go on, or ended with something else.
    """
    folder.mkdir(parents=True, exist_ok=True)
    file = folder / "course.yaml"
    file.write_text(COURSE.format(file=Path(__file__).resolve(), **COURSES[course]))
    began = time.monotonic()
    whole = _attempt(file, folder / "whole", None)
    assert whole is not None
    taken, draw = time.monotonic() - began, random.Random(seed)
    killed = runs = 0
    before = list[int]()
    while killed < count:
        runs += 1
        run = folder / f"run{runs}"
        while killed < count:
            first = _rounds(run)
            if first == whole["rounds"]:
                break
            # Up to what comes after the last round.
            point = draw.randint(first, whole["rounds"])
            # Before the first round much is to do.
            seconds = draw.uniform(0, taken / 2 if point == first else 2 * taken / whole["rounds"])
            if _attempt(file, run, (point - first, seconds)) is not None:
                break
            killed += 1
            before.append(_rounds(run))
        found = _attempt(file, run, None)
        assert found == whole, f"{course}, run {runs}, killed after rounds {before}:\n{found}\n{whole}"
    return f"{killed} in {runs} runs, after rounds {', '.join(map(str, before))}: the same bits"


def _rounds(run: Path) -> int:
    """Complete rounds of a run."""
    state = RunFolder(run).latest() if (run / "course.yaml").exists() else None
    return 0 if state is None else state.round


def _attempt(file: Path, run: Path, kill: tuple[int, float] | None) -> dict[str, Any] | None:
    """What a run ends with; ``None`` if it was killed before.

    Args:
        file: The course.
        run: Its folder; if there is one, the run goes on.
        kill: In which of the rounds that it makes now, from 1, and how long after that began, it is killed; 0 is before the first. Never if left
            out.
    """
    answer = file.parent / f"{run.name}.json"
    answer.unlink(missing_ok=True)
    reader, writer = os.pipe()
    child = os.fork()
    if not child:
        _in_child(lambda: _ended(file, run, writer), answer)
    os.close(writer)
    os.set_blocking(reader, False)
    deadline = time.monotonic() + (kill[1] if kill and not kill[0] else _PATIENCE_S)
    started = 0
    while not os.waitpid(child, os.WNOHANG)[0]:
        with suppress(BlockingIOError):
            for _ in os.read(reader, 100):
                started += 1
                if kill and started == kill[0]:
                    deadline = time.monotonic() + kill[1]
        if time.monotonic() > deadline:
            os.kill(child, signal.SIGKILL)
            os.waitpid(child, 0)
            os.close(reader)
            assert kill is not None, f"{run} did not end"
            return None
        time.sleep(0.0005)
    os.close(reader)
    found = json.loads(answer.read_text())
    assert "error" not in found, found["error"]
    return dict(found)


def _in_child(work: Callable[[], dict[str, Any]], answer: Path) -> None:
    """Do something in this process, which then is gone."""
    try:
        found = work()
    except BaseException:  # noqa: BLE001  the parent says it
        found = {"error": traceback.format_exc()}
    part = answer.with_suffix(".part")
    part.write_text(json.dumps(found))
    part.replace(answer)
    os._exit(0)


def _ended(file: Path, run: Path, rounds: int) -> dict[str, Any]:
    def observer(event: Event) -> None:
        if isinstance(event, RoundStarted):
            os.write(rounds, b".")

    if (run / "course.yaml").exists():
        done = resume_run(run, observer=observer, in_process=True)
    else:
        done = run_course(load_course(file), run, observer=observer, in_process=True)
    folder = RunFolder(run)
    state = folder.latest()
    assert state is not None
    return {
        "weights": done.weights.digest,
        "rounds": len(done.history),
        "figures": [entry.metrics for entry in done.history],
        "best": folder.best.read_bytes().hex()[-64:],
    }


def main() -> None:
    """The command."""
    count, seed, course = [*sys.argv[1:], *["20", "1", "everything"][len(sys.argv) - 1 :]]
    with tempfile.TemporaryDirectory() as home:
        print(kills(Path(home), int(count), int(seed), course))


if __name__ == "__main__":
    torch.set_num_threads(1)
    describe(build(), (np.zeros((1, 8), np.float32),))
    main()
