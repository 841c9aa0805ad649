"""What is said of an evaluation: figures of every participant, and why a figure is not there."""

from __future__ import annotations

from collections.abc import Collection, Mapping

from xbackend_fl.course import Course
from xbackend_fl.errors import RunFailed
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


def require_reported(course: Course, found: Metrics, number: int) -> None:
    """Refuse to go on by a figure that a round has not, since nobody reports it.

    Raises:
        RunFailed: What chooses the best weights, or what early stopping or a schedule watches, is not there.
    """
    rule = course.early_stopping
    followed = [("evaluation.best", course.chosen_by)]
    followed += [] if rule is None else [("early_stopping", course.figure_called(rule.metric))]
    followed += [("training.schedule", choice) for _, choice in course.watched]
    for key, choice in followed:
        if choice.name in course.evaluation.reported and choice.name not in found.figures:
            raise RunFailed(
                f"round {number}: {key} follows {choice.name!r}, and no participant reports it",
                hint=f'let the `evaluate` of a participant return "{choice.name}", or follow another figure',
            )


def chosen(entry: RoundFinished, choice: Choice) -> Mapping[str, float]:
    """The figures of a round among which a choice is: of all examples, or of participants."""
    return entry.metrics if choice.over == "all" else entry.participants.get(choice.over, {})


def is_better(entry: RoundFinished, other: RoundFinished | None, choice: Choice) -> bool:
    """Whether a round's figure is better than another's; any is better than none."""
    return other is None or choice.is_better(chosen(entry, choice), chosen(other, choice))
