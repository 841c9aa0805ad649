"""What the page that sums a course up says of the model at each participant."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

from xbackend_fl.course import Course
from xbackend_fl.events import ParticipantEvaluated, RoundFinished, from_line
from xbackend_fl.metrics import shown
from xbackend_fl.text import line

_ROWS = 30
_MARK = '"event":"participant_evaluated"'


def evaluated_in(events: Path, number: int) -> dict[str, Mapping[str, float]]:
    """Figures of every participant on its validation examples after a round, from a run's events."""
    found: dict[str, Mapping[str, float]] = {}
    with events.open(encoding="utf-8") as lines:
        for text in lines:
            if _MARK not in text:
                continue
            event = from_line(text)
            if isinstance(event, ParticipantEvaluated) and (event.round, event.split) == (
                number,
                "validation",
            ):
                found[event.name] = event.metrics
    return found


def participants_table(
    course: Course, entry: RoundFinished, each: Mapping[str, Mapping[str, float]]
) -> list[str]:
    """The last round's figures: of all, in the mean, of the worst tenth, and of each participant, the worst first.

    Args:
        course: The course.
        entry: The round.
        each: Figures by participant.
    """
    if not entry.participants:
        return []
    names = [metric.label for metric in course.metrics]

    def row(what: str, figures: Mapping[str, float]) -> str:
        return f"| {what} | {' | '.join(shown(name, figures.get(name)) for name in names)} |"

    worst = sorted(each, key=lambda name: course.chosen_by.goodness(each[name]))
    more = [f"| … and {len(worst) - _ROWS} better ones |{' |' * len(names)}"] if len(worst) > _ROWS else []
    return [
        f"| round {entry.round} at participants | {' | '.join(f'validation {name}' for name in names)} |",
        "|---" * (1 + len(names)) + "|",
        row("all examples", entry.metrics),
        row("mean", entry.participants["mean"]),
        row("worst tenth", entry.participants["worst_tenth"]),
        *(row(line(name), each[name]) for name in worst[:_ROWS]),
        *more,
        "",
    ]
