"""What is said of an evaluation: figures of every participant, and why a figure is not there."""

from __future__ import annotations

from collections.abc import Collection, Mapping

from xbackend_fl.course import Course
from xbackend_fl.events import Noted, Observer, ParticipantEvaluated, RoundFinished
from xbackend_fl.metrics import Choice, Metrics


def emit_evaluations(course: Course, found: Metrics, split: str, number: int, observer: Observer) -> None:
    """Figures of participants, where they are known apart, after a round."""
    backends = {participant.name: participant.backend for participant in course.participants}
    for name, metrics in found.each.items():
        observer(
            ParticipantEvaluated(
                round=number, name=name, backend=backends[name], split=split, metrics=metrics.figures
            )
        )


def emit_undefined(found: Metrics, before: Collection[str] | None, observer: Observer) -> None:
    """Why figures are not there, or of what they are not made: after the first round, and where other figures are there than ``before``."""
    if before is None or found.figures.keys() != {*before}:
        for note in found.notes:
            observer(Noted(backend="server", note=note))


def chosen(entry: RoundFinished, choice: Choice) -> Mapping[str, float]:
    """The figures of a round among which a choice is: of all examples, or of participants."""
    return entry.metrics if choice.over == "all" else entry.participants.get(choice.over, {})


def is_better(entry: RoundFinished, other: RoundFinished | None, choice: Choice) -> bool:
    """Whether a round's figure is better than another's; any is better than none."""
    return other is None or choice.is_better(chosen(entry, choice), chosen(other, choice))
