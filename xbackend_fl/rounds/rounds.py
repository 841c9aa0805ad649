"""The round loop: choose a cohort, train it, merge, evaluate, save. Both engines share it."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator, Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from xbackend_fl.aggregation import is_finite
from xbackend_fl.course import Course
from xbackend_fl.data import cohort
from xbackend_fl.errors import RunFailed, hints_of
from xbackend_fl.events import Noted, Observer, RoundFinished, RoundStarted
from xbackend_fl.metrics import Metrics, over_participants
from xbackend_fl.rounds.back import Ruined, go_back
from xbackend_fl.rounds.checkpoint import CourseState, Pending
from xbackend_fl.rounds.engine import Engine, RoundOutcome
from xbackend_fl.rounds.evaluating import emit_evaluations, emit_undefined, is_better, require_reported
from xbackend_fl.rounds.export import export, writing_of
from xbackend_fl.rounds.folder import RunFolder
from xbackend_fl.rounds.watching import stopped, watched
from xbackend_fl.weights import Weights
from xbackend_fl.weights.around import replace_weights


def run_rounds(
    course: Course,
    engine: Engine,
    state: CourseState,
    folder: RunFolder,
    observer: Observer,
    should_stop: Callable[[], bool],
) -> CourseState:
    """Run the rounds that are left.

    Args:
        course: The course.
        engine: Trains the cohorts; prepared.
        state: Where to start.
        folder: Receives a checkpoint per round, and the best and last weights.
        observer: Told about everything.
        should_stop: Asked between rounds; true ends the course after a complete round.

    Raises:
        RunFailed: Updates were refused and the course's policy is to stop, or none was accepted. The
            checkpoint of the last complete round stays.
    """
    back = engine.take_out is not None
    if back and state.round == 0:
        # So that the first round can be undone too.
        folder.save_checkpoint(state, course.keep_checkpoints, back=True)
    while True:
        try:
            ends = state.round >= course.rounds or bool(stopped(course, state.history))
            if not ends and not should_stop():
                state = _one_round(course, engine, state, folder, observer)
                # Here the mean and the weights before it are gone from memory.
                if course.onnx_every and state.round % course.onnx_every == 0:
                    export(folder, (), writing_of(course, folder, state.round), folder.onnx_of(state.round))
                if not engine.evaluates_with_training or state.round == course.rounds:
                    state = _evaluated(course, engine, state, None, observer)
            elif state.pending is not None:
                state = _evaluated(course, engine, state, None, observer)
            else:
                return state
            folder.save_checkpoint(state, course.keep_checkpoints, back=back)
            _keep_best(folder, state, observer)
        except Ruined as error:
            # Its frames hold the weights of the round.
            state = go_back(engine, folder, state, error.with_traceback(None), observer)


def _one_round(
    course: Course, engine: Engine, state: CourseState, folder: RunFolder, observer: Observer
) -> CourseState:
    number, started = state.round + 1, time.perf_counter()
    names = [participant.name for participant in course.participants]
    chosen = cohort(names, course.federate.cohort or len(names), course.seed, "cohort", number)
    observer(RoundStarted(round=number, cohort=tuple(chosen)))
    algorithm = course.server_algorithm
    vectors = algorithm.vectors(state.weights, state.server)
    outcome = engine.train_round(
        number, state.weights, vectors, chosen, observer, watched(course, state.history)
    )
    strict = course.federate.on_failure == "stop" and not outcome.enough
    if outcome.failed and (strict or outcome.mean.count == 0):
        reasons = "\n".join(f"  participant {name!r}: {reason}" for name, reason in outcome.failed.items())
        raise RunFailed(
            f"round {number}: {len(outcome.failed)} of {len(chosen)} updates were refused:\n{reasons}",
            hint=hints_of(_cures(course, outcome)),
        )
    if state.pending is not None:
        state = _evaluated(course, engine, state, outcome.before, observer)
        _keep_best(folder, state, observer)
    merged = outcome.mean.result()
    with np.errstate(over="ignore", invalid="ignore"):
        weights, server = algorithm.apply(state.weights, merged, state.server)
    _check_finite(number, {**weights, **{f"server state {name}": array for name, array in server.items()}})
    digest = _write(folder.last, weights, observer)
    pending = Pending(outcome.mean.num_examples, time.perf_counter() - started)
    states = {**state.states, **outcome.states}
    return replace(
        state,
        round=number,
        weights=weights,
        server=server,
        pending=pending,
        states=states,
        digest=digest,
    )


def _cures(course: Course, outcome: RoundOutcome) -> Iterator[str]:
    """What can be done about updates that were refused: the reasons' own words first, and what helps in general where a reason has none."""
    yield from outcome.hints.values()
    if outcome.mean.count:
        yield "federate.on_failure: continue goes on with the rest; --resume starts at the last checkpoint"
        return
    loops = {one.name for one in course.participants if course.training_of(one) is not None}
    silent = {name for name in outcome.failed if not outcome.hints.get(name)}
    if silent & loops:
        yield "no update is left to go on with: mend what their own training loops did, and --resume"
    if silent - loops:
        yield "no update is left to go on with: scale inputs and targets to about 1, lower training.optimizer.lr, or set training.clip_norm, in a new run"


def _keep_best(folder: RunFolder, state: CourseState, observer: Observer) -> None:
    """Write the weights of a round that is the best so far, once a checkpoint has them: a run that is killed before finds them there."""
    if state.best is not None and state.best.round == state.round:
        _write(folder.best, state.weights, observer, state.best_digest)


def _write(path: Path, weights: Weights, observer: Observer, known: str = "") -> str:
    digest, gone = replace_weights(path, weights, known)
    if gone:
        observer(Noted(backend="server", note=gone))
    return digest


def _check_finite(number: int, arrays: Mapping[str, NDArray[Any]]) -> None:
    """Nothing that is not finite is saved: the next round, and every one after it, would start from it.

    Updates that could make it so were refused when they came (:data:`~xbackend_fl.aggregation.online.LARGEST`); what is left is the server's rule.
    """
    for name, array in arrays.items():
        if array.dtype.kind == "f" and array.size and not is_finite(array):
            raise RunFailed(
                f"round {number}: the server's step makes {name!r} NaN or infinite; nothing of the round is saved",
                hint="lower federate.server.lr; --resume goes on after the last complete round",
            )


def _evaluated(
    course: Course,
    engine: Engine,
    state: CourseState,
    metrics: Metrics | None,
    observer: Observer,
) -> CourseState:
    """The state with the last round's metrics, evaluated now if nobody has."""
    assert state.pending is not None
    began = time.perf_counter()
    try:
        found = metrics or engine.evaluate(state.weights, "validation", state.round)
    except Ruined:
        raise
    except RunFailed as error:
        error.message = f"round {state.round}: {error.message}"
        raise
    emit_evaluations(course, found, "validation", state.round, observer)
    require_reported(course, found, state.round)
    figures, history = found.figures, state.history
    emit_undefined(found, history[-1].metrics.keys() if history else None, observer)
    entry = RoundFinished(
        round=state.round,
        loss=found.loss,
        accuracy=figures.get("accuracy"),
        metrics=figures,
        participants=over_participants(found),
        best=False,
        num_examples=state.pending.num_examples,
        seconds=state.pending.seconds + time.perf_counter() - began,
    )
    if is_better(entry, state.best, course.chosen_by):
        entry = entry.model_copy(update={"best": True})
    observer(entry)
    return state.evaluated(entry)
