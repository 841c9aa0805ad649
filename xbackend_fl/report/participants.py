"""What the page that sums a course up says of the model at each participant."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from pathlib import Path

from xbackend_fl.course import Course
from xbackend_fl.events import Event, ParticipantEvaluated, ParticipantTrained, RoundFinished, from_line
from xbackend_fl.metrics import shown
from xbackend_fl.text import line, shown_names

_ROWS = 30
_COLUMNS = 12


def evaluated_in(events: Path, number: int) -> dict[str, Mapping[str, float]]:
    """Figures of every participant on its validation examples after a round, from a run's events."""
    return {
        event.name: event.metrics
        for event in _events(events, '"event":"participant_evaluated"')
        if isinstance(event, ParticipantEvaluated) and (event.round, event.split) == (number, "validation")
    }


def reported_in(events: Path) -> dict[str, ParticipantTrained]:
    """The last time that each participant trained and its own loop reported figures, by name, from a run's events."""
    return {
        event.name: event
        for event in _events(events, '"event":"participant_trained"')
        if isinstance(event, ParticipantTrained) and event.figures
    }


def _events(path: Path, mark: str) -> Iterator[Event]:
    with path.open(encoding="utf-8") as lines:
        for text in lines:
            if mark in text:
                yield from_line(text)


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
    names = course.figures.labels

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


def reported_table(found: Mapping[str, ParticipantTrained]) -> list[str]:
    """What training loops of participants' own have reported, as they say it."""
    if not found:
        return []
    names = list(dict.fromkeys(name for event in found.values() for name in event.figures))
    chosen = names[:_COLUMNS]
    more = [f"and {shown_names(names[_COLUMNS:])}, in `events.jsonl`", ""] if names[_COLUMNS:] else []
    rows = [
        f"| {_cell(event.name)} | {event.round} | {event.num_examples} | "
        + " | ".join(shown(name, event.figures.get(name)) for name in chosen)
        + " |"
        for event in list(found.values())[:_ROWS]
    ]
    hidden = len(found) - len(rows)
    return [
        f"| training of its own | round | examples | {' | '.join(map(_cell, chosen))} |",
        "|---" * (3 + len(chosen)) + "|",
        *rows,
        *([f"| … and {hidden} more |{' |' * (2 + len(chosen))}"] if hidden > 0 else []),
        "",
        *more,
    ]


def _cell(text: str) -> str:
    return line(text).replace("|", "\\|")
