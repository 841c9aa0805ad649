"""The end of a course: test results, the model in every format, and a page that sums it up."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from xbackend_fl.canonical import Schema
from xbackend_fl.course import Course
from xbackend_fl.course.notes import settings_notes
from xbackend_fl.errors import RefusedInput, RunFailed
from xbackend_fl.events import Noted, Observer
from xbackend_fl.mapping.proof.verify import TOLERANCE, relative_error
from xbackend_fl.report.participants import evaluated_in, reported_in
from xbackend_fl.report.summary import Result, summary
from xbackend_fl.rounds.checkpoint import CourseState
from xbackend_fl.rounds.engine import Engine, Outputs
from xbackend_fl.rounds.evaluating import emit_evaluations
from xbackend_fl.rounds.export import export, writing_of
from xbackend_fl.rounds.folder import RunFolder
from xbackend_fl.rounds.watching import stopped
from xbackend_fl.text import having, line, shown_names
from xbackend_fl.weights import Weights, load_weights
from xbackend_fl.weights.around import are_gone, metadata_of
from xbackend_fl.writing import atomic_write, write_text

_PROBE = 64


def finish(
    course: Course,
    engine: Engine,
    schema: Schema,
    state: CourseState,
    folder: RunFolder,
    observer: Observer,
) -> Result:
    """Evaluate once on the test set and write the trained model.

    Raises:
        RunFailed: ONNX Runtime disagrees about the trained model with somebody whose answer is needed, or with more than it agrees with; or nobody could
            be asked.
    """
    weights = state.weights
    test = engine.evaluate(weights, "test", state.round if course.local else 0)
    emit_evaluations(course, test, "test", state.round, observer)
    chosen, best = state.best, None
    if chosen is not None and chosen.round == state.round:
        best = test
    elif not course.local:
        best = engine.evaluate(load_weights(folder.best, weights.fingerprint), "test")
    answers = engine.outputs(weights, "test", _PROBE)
    expected: Sequence[NDArray[Any]]
    if schema.opaque:
        expected = _usual(answers)
        graph, note = _native_graph(engine, weights, answers.inputs, expected, schema, folder)
        observer(Noted(backend="server", note=note))
    else:
        before = metadata_of(folder.onnx).keys()
        expected = export(folder, answers.inputs, writing_of(course, folder, state.round))
        if gone := before - metadata_of(folder.onnx).keys():
            observer(Noted(backend="server", note=are_gone(folder.onnx, gone)))
        graph = (folder.onnx,)
    agree, disagree = _compared(answers, expected, "the median" if schema.opaque else "ONNX Runtime")
    for name, error in disagree.items():
        observer(
            Noted(
                backend="server",
                note=f"{name} computes the trained model otherwise than {'' if schema.opaque else 'ONNX Runtime and '}{len(agree)} others: by {error:.1e} (relative; {TOLERANCE:g} is rounding)",
            )
        )
    files = (*engine.save_native(weights, folder.path / "model", state.round), *graph)
    result = Result(test, best, max(agree.values()), files, disagree, tuple(_notes(course, state)))
    assert state.best is not None
    last = state.history[-1]
    page = summary(
        course,
        schema,
        state.history,
        state.best,
        state.weights.digest,
        result,
        engine.participation(),
        evaluated_in(folder.events, last.round) if last.participants else {},
        reported_in(folder.events),
    )
    write_text(folder.summary, page)
    return result


def _notes(course: Course, state: CourseState) -> Iterator[str]:
    """What the page says of the course beside its figures."""
    yield from settings_notes(course)
    if early := stopped(course, state.history):
        yield early


def _usual(answers: Outputs) -> list[NDArray[Any]]:
    """What most answer: the median of every number."""
    several = list(answers.answers.values())
    return [np.median(np.stack(found), axis=0) for found in zip(*several, strict=True)]


def _native_graph(
    engine: Engine,
    weights: Weights,
    inputs: Sequence[NDArray[Any]],
    expected: Sequence[NDArray[Any]],
    schema: Schema,
    folder: RunFolder,
) -> tuple[tuple[Path, ...], str]:
    """The ONNX file of a framework's own exporter, if it computes what the backends do, and what is said of it."""
    try:
        with atomic_write(folder.onnx) as path:
            exported = engine.export_native(weights, inputs, path)
            error = max(relative_error(a, b) for a, b in zip(exported.outputs, expected, strict=True))
            if not error <= TOLERANCE:
                raise RefusedInput(f"ONNX Runtime computes it otherwise, by {error:.1e} (relative)")  # noqa: TRY301
    except RefusedInput as refused:
        return (), (
            f"no model.onnx is written: {having(schema.opaque)} no canonical form, and {line(refused.message)}; "
            "backends are compared with each other"
        )
    note = (
        f"model.onnx comes from a framework's own exporter, since {having(schema.opaque)} no canonical form; its opset is {exported.opset}; "
        f"ONNX Runtime agrees with the backends within {error:.1e} (relative)"
    )
    if exported.unnamed:
        note += f"; under native names only: {shown_names(exported.unnamed)}"
    return (folder.onnx,), note


def _compared(
    answers: Outputs, expected: Sequence[NDArray[Any]], judge: str
) -> tuple[Mapping[str, float], Mapping[str, float]]:
    """Relative errors of the answers that agree with what is expected, and of those that do not, by who gave them."""
    errors = {
        name: max(relative_error(a, b) for a, b in zip(outputs, expected, strict=True))
        for name, outputs in answers.answers.items()
    }
    if not errors:
        raise RunFailed("nobody answered with the trained model, so that nobody confirms it")
    # An error that is no number is not within the tolerance either.
    agree = {name: error for name, error in errors.items() if error <= TOLERANCE}
    disagree = {name: error for name, error in errors.items() if name not in agree}
    if disagree and (answers.all_needed or len(disagree) > len(agree)):
        found = ", ".join(f"{name} (by {error:.1e})" for name, error in disagree.items())
        raise RunFailed(f"{judge} disagrees about the trained model with {found}")
    return agree, disagree
