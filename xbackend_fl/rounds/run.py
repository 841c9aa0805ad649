"""A course from start to end, or from a checkpoint to the end, by any engine."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path

from xbackend_fl.canonical import Schema
from xbackend_fl.course import Course
from xbackend_fl.course.notes import settings_notes
from xbackend_fl.errors import SchemaError
from xbackend_fl.events import CourseFinished, CourseStarted, Event, Noted, Observer, RoundFinished, jsonl
from xbackend_fl.rounds.checkpoint import CourseState
from xbackend_fl.rounds.engine import Engine, Prepared
from xbackend_fl.rounds.finish import finish
from xbackend_fl.rounds.folder import RunFolder
from xbackend_fl.rounds.initial import initial_file, initial_weights, keep_initial
from xbackend_fl.rounds.ready import make_ready, require_same_data
from xbackend_fl.rounds.rounds import run_rounds
from xbackend_fl.rounds.watching import stopped
from xbackend_fl.weights import Weights
from xbackend_fl.writing import explain_unwritable


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


def run_with(
    engine: Engine,
    course: Course,
    folder: RunFolder,
    state: CourseState | None,
    observer: Observer | None = None,
    should_stop: Callable[[], bool] | None = None,
) -> Run:
    """Run the rounds that are left, and finish.

    Args:
        engine: Trains the cohorts.
        course: The course.
        folder: Where everything is written.
        state: Where to go on; ``None`` to start.
        observer: Told about every event, after it is on disk.
        should_stop: Asked between rounds; true ends the course after a complete round.

    Raises:
        RefusedInput: A model cannot be used; nothing was trained.
        RunFailed: The course could not finish; the checkpoint of the last complete round stays.
    """
    began, chosen_by = time.perf_counter(), course.chosen_by
    if state is None:
        initial_file(course)
    notes = [*make_ready(folder, state), *settings_notes(course)]
    if state is not None:
        notes += _none_left(course, state)
    with explain_unwritable(folder.path):
        record = jsonl(folder.events)

    def emit(event: Event) -> None:
        record(event)
        if observer is not None:
            observer(event)

    emit(
        CourseStarted(
            name=course.name,
            path=str(folder.path),
            participants={p.name: p.backend for p in course.participants},
            rounds=course.rounds,
            resumed_from=state.round if state else 0,
        )
    )
    for note in notes:
        emit(Noted(backend="server", note=note))
    prepared = engine.prepare(emit)
    if (said := require_same_data(folder, prepared.data, begun=state is not None)) is not None:
        emit(Noted(backend="server", note=said))
    schema, begin = _start(course, engine, prepared, folder, state, emit)
    # Handed over, so that no name here keeps the first weights in memory while later ones are trained.
    handed = [begin]
    del state, begin
    asked = should_stop or (lambda: False)
    state = run_rounds(course, engine, handed.pop(), folder, emit, asked)
    if not state.history:
        return Run(state.weights, (), folder.path, None)
    if early := stopped(course, state.history):
        emit(Noted(backend="server", note=early))
    result = finish(course, engine, schema, state, folder, emit)
    best, used = state.best, engine.usage()
    chosen = {} if result.best_test is None else result.best_test.figures
    assert best is not None
    last = CourseFinished(
        path=str(folder.path),
        rounds=state.round,
        interrupted=state.round < course.rounds and not early,
        stopped_early=early,
        best_round=best.round,
        metric=chosen_by.name,
        validation_metrics=best.metrics,
        test_metrics=result.test.figures,
        best_test_metrics=chosen,
        test_loss=result.test.loss,
        validation_accuracy=best.accuracy,
        test_accuracy=result.test.figures.get("accuracy"),
        best_test_accuracy=chosen.get("accuracy"),
        onnx_error=result.onnx_error,
        seconds=time.perf_counter() - began,
        peak_memory_bytes={name: usage.peak_bytes for name, usage in used.items()},
        device_memory_bytes={
            n: usage.device_peak_bytes for n, usage in used.items() if usage.device_peak_bytes
        },
    )
    emit(last)
    return Run(state.weights, state.history, folder.path, last)


def _none_left(course: Course, state: CourseState) -> Iterator[str]:
    """What is said of a run that goes on and has no round to go on with."""
    again = "none is left to train, and the files of the trained model are written again"
    if state.round >= course.rounds:
        yield f"{state.round} rounds have been run already, and `rounds` is {course.rounds}: {again}"
    elif stopped(course, state.history):
        yield f"{state.round} rounds have been run, and early_stopping ended the course: {again}; a larger early_stopping.patience goes on"


def _start(
    course: Course,
    engine: Engine,
    prepared: Prepared,
    folder: RunFolder,
    state: CourseState | None,
    observer: Observer,
) -> tuple[Schema, CourseState]:
    """The schema, and where the rounds begin; nothing else of what was prepared is kept in memory."""
    folder.write_models(prepared)
    if state is None:
        weights, source = initial_weights(course, engine, prepared.schema, prepared.initial)
        keep_initial(folder, weights, source)
        if course.initial is not None:
            own = "; what is local is each participant's own" if course.local else ""
            observer(Noted(backend="server", note=f"the course begins with {source}{own}"))
        initial = weights.with_kinds(course.kinds(prepared.schema))
        return prepared.schema, CourseState(0, initial, course.server_algorithm.init(initial))
    if state.weights.fingerprint != prepared.schema.fingerprint:
        raise SchemaError(
            f"the checkpoint is of schema {state.weights.fingerprint[:12]}, "
            f"the reference model is now {prepared.schema.fingerprint[:12]}",
            hint="the model file changed since the run began; restore it or start a new run",
        )
    return prepared.schema, state
