"""Runs a course from start to end, or from a checkpoint to the end."""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence
from contextlib import closing
from dataclasses import dataclass
from pathlib import Path

from xbackend_fl.course import Course, load_course
from xbackend_fl.errors import SchemaError
from xbackend_fl.events import CourseFinished, CourseStarted, Event, Observer, RoundFinished, jsonl
from xbackend_fl.server import CourseState, Prepared, RunFolder, finish, run_rounds
from xbackend_fl.simulation.engine import SimulationEngine
from xbackend_fl.weights import Weights


@dataclass(frozen=True)
class Run:
    """A finished or interrupted run.

    Attributes:
        weights: Global weights after the last round.
        history: One entry per round.
        path: The run folder.
        result: The last event; ``None`` if the run was interrupted before its first round.
    """

    weights: Weights
    history: tuple[RoundFinished, ...]
    path: Path
    result: CourseFinished | None


def run_course(
    course: Course,
    out: str | Path | None = None,
    *,
    observer: Observer | None = None,
    should_stop: Callable[[], bool] | None = None,
    in_process: bool = False,
) -> Run:
    """Simulate a course on this machine.

    A script that calls this needs ``if __name__ == "__main__":``, because workers are spawned processes.

    Args:
        course: From :func:`xbackend_fl.load_course`.
        out: A new folder; ``runs/<time>-<name>`` if left out.
        observer: Told about every event.
        should_stop: Asked between rounds; true ends the course after a complete round.
        in_process: Run the workers in this process, for debugging.

    Raises:
        RefusedInput: The course, a model or the folder cannot be used; nothing was trained.
        RunFailed: The course could not finish; the checkpoint of the last complete round stays.
    """
    with closing(SimulationEngine(course, in_process=in_process)) as engine:
        folder = RunFolder.create(course, None if out is None else Path(out))
        return _run(course, folder, None, engine, observer, should_stop)


def resume_run(
    path: str | Path,
    overrides: Sequence[str] = (),
    *,
    observer: Observer | None = None,
    should_stop: Callable[[], bool] | None = None,
    in_process: bool = False,
) -> Run:
    """Continue a run from its latest checkpoint.

    Args:
        path: The run folder.
        overrides: ``a.b=value`` settings, for example ``rounds=40`` to go on further.
        observer: Told about every event.
        should_stop: Asked between rounds.
        in_process: Run the workers in this process.

    Raises:
        FileError: The folder is not a run, or its checkpoint is corrupt.
        SchemaError: The model has changed since.
    """
    folder = RunFolder.open(Path(path))
    course = load_course(folder.course, overrides)
    state = folder.latest()
    with closing(SimulationEngine(course, in_process=in_process)) as engine:
        return _run(course, folder, state, engine, observer, should_stop)


def _run(
    course: Course,
    folder: RunFolder,
    state: CourseState | None,
    engine: SimulationEngine,
    observer: Observer | None,
    should_stop: Callable[[], bool] | None,
) -> Run:
    began = time.perf_counter()
    record = jsonl(folder.events)

    def tell(event: Event) -> None:
        record(event)
        if observer is not None:
            observer(event)

    tell(
        CourseStarted(
            name=course.name,
            path=str(folder.path),
            participants={p.name: p.backend for p in course.participants},
            rounds=course.rounds,
            resumed_from=state.round if state else 0,
        )
    )
    prepared = engine.prepare(tell)
    state = _start(course, prepared, folder, state)
    asked = should_stop or (lambda: False)
    state = run_rounds(course, engine, state, folder, tell, asked)
    if not state.history:
        return Run(state.weights, (), folder.path, None)
    result = finish(course, engine, prepared, state, folder)
    best, used = state.best, engine.usage()
    assert best is not None
    last = CourseFinished(
        path=str(folder.path),
        rounds=state.round,
        interrupted=state.round < course.rounds,
        best_round=best.round,
        validation_accuracy=best.accuracy,
        test_loss=result.test_loss,
        test_accuracy=result.test_accuracy,
        best_test_accuracy=result.best_test_accuracy,
        onnx_error=result.onnx_error,
        seconds=time.perf_counter() - began,
        peak_memory_bytes={name: usage.peak_bytes for name, usage in used.items()},
        device_memory_bytes={
            n: usage.device_peak_bytes for n, usage in used.items() if usage.device_peak_bytes
        },
    )
    tell(last)
    return Run(state.weights, state.history, folder.path, last)


def _start(course: Course, prepared: Prepared, folder: RunFolder, state: CourseState | None) -> CourseState:
    folder.write_models(prepared)
    if state is None:
        return CourseState(0, prepared.initial, course.federate.server.rule().init(prepared.initial))
    if state.weights.fingerprint != prepared.schema.fingerprint:
        raise SchemaError(
            f"the checkpoint is of schema {state.weights.fingerprint[:12]}, "
            f"the reference model is now {prepared.schema.fingerprint[:12]}",
            hint="the model file changed since the run began; restore it or start a new run",
        )
    return state
