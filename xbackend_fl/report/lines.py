"""What happens in a run, a line an event."""

from __future__ import annotations

from collections.abc import Mapping

from xbackend_fl.events import (
    CourseFinished,
    CourseStarted,
    Event,
    ModelBound,
    Noted,
    ParticipantEvaluated,
    ParticipantFailed,
    ParticipantTrained,
    RoundCollected,
    RoundFinished,
    RoundStarted,
)
from xbackend_fl.metrics import shown


def describe(event: Event) -> str:
    """An event in one line for people; empty for those that say nothing new."""
    match event:
        case CourseStarted():
            again = f", continuing after round {event.resumed_from}" if event.resumed_from else ""
            count = len(event.participants)
            return f"course {event.name}: {count} participants, {event.rounds} rounds{again} -> {event.path}"
        case ModelBound():
            role = "reference" if event.reference else "proven equal"
            notes = "".join(f"\n  note: {note}" for note in event.notes)
            return f"{event.version}: {role}, largest error {event.largest_error:.1e}{notes}"
        case ParticipantEvaluated():
            figures = ", ".join(f"{name} {shown(name, value)}" for name, value in event.metrics.items())
            return f"  round {event.round} {event.name} ({event.backend}): {figures} ({event.split})"
        case Noted():
            return f"{event.backend}: {event.note}"
        case RoundStarted():
            return ""
        case ParticipantTrained():
            return (
                f"  round {event.round} {event.name} ({event.backend}): {event.num_examples} examples, "
                f"{_listed({'loss': event.loss} | event.figures)}, {event.seconds:.2f} s"
            )
        case ParticipantFailed():
            return f"  round {event.round} {event.name} ({event.backend}): left out: {event.reason}"
        case RoundCollected():
            return _collected_line(event)
        case RoundFinished():
            best = ", best so far" if event.best else ""
            worst = event.participants.get("worst_tenth")
            tenth = f", worst tenth of participants: {_listed(worst)}" if worst else ""
            return f"round {event.round}: {_listed(event.metrics)} (validation{best}){tenth}, {event.seconds:.2f} s"
        case CourseFinished():
            return _last_line(event)


def _collected_line(event: RoundCollected) -> str:
    total = len(event.accepted) + len(event.missing)
    missing = f"; without {', '.join(event.missing)}" if event.missing else ""
    return (
        f"  round {event.round}: {len(event.accepted)} of {total} updates in {event.seconds:.2f} s, "
        f"{event.sent_bytes / 1e6:.1f} MB sent, {event.received_bytes / 1e6:.1f} MB received{missing}"
    )


def _last_line(event: CourseFinished) -> str:
    word = "interrupted" if event.interrupted else "stopped early" if event.stopped_early else "done"
    name = event.metric
    last, best = event.test_metrics, event.best_test_metrics
    chosen = f": {shown(name, best.get(name))}" if best else ""
    return (
        f"{word}: test {name} {shown(name, last.get(name))} after {event.rounds} rounds "
        f"(best on validation, round {event.best_round}{chosen}) "
        f"in {event.seconds:.1f} s; outputs agree within {event.onnx_error:.0e} -> {event.path}"
    )


def _listed(figures: Mapping[str, float | None]) -> str:
    return ", ".join(f"{name} {shown(name, value)}" for name, value in figures.items())
