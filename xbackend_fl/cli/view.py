"""Shows a run as it happens: a live table, plain lines, or one JSON object a line."""

from __future__ import annotations

from collections import deque
from collections.abc import Iterator, Mapping
from contextlib import contextmanager

from rich.console import Console, Group
from rich.live import Live
from rich.markup import escape
from rich.table import Table
from rich.text import Text

from xbackend_fl.cli.console import answer, say
from xbackend_fl.events import (
    CourseFinished,
    CourseStarted,
    Event,
    ModelBound,
    Noted,
    Observer,
    ParticipantEvaluated,
    ParticipantFailed,
    ParticipantTrained,
    RoundCollected,
    RoundFinished,
    RoundStarted,
    to_line,
)
from xbackend_fl.metrics import shown

_ROUNDS_SHOWN = 8
_PARTICIPANTS_SHOWN = 12
_COLLECTED_SHOWN = 3
_AWAITED_SHOWN = 6


@contextmanager
def view(*, as_json: bool) -> Iterator[Observer]:
    """The observer that fits where the output goes."""
    console = Console()
    if as_json:
        yield lambda event: answer(to_line(event))
    elif not console.is_terminal:
        yield _print_line
    else:
        table = LiveTable()
        with Live(table.render(), console=console, refresh_per_second=8) as live:

            def observe(event: Event) -> None:
                table.add(event)
                live.update(table.render())

            yield observe


def _print_line(event: Event) -> None:
    line = describe(event)
    if line:
        say(line)


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
                f"loss {shown('loss', event.loss)}, {event.seconds:.2f} s"
            )
        case ParticipantFailed():
            return f"  round {event.round} {event.name} ({event.backend}): left out: {event.reason}"
        case RoundCollected():
            return _collected_line(event)
        case RoundFinished():
            best = ", best so far" if event.best else ""
            return f"round {event.round}: {_listed(event.metrics)} (validation{best}), {event.seconds:.2f} s"
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
    word = "interrupted" if event.interrupted else "done"
    name = event.metric
    last, best = event.test_metrics, event.best_test_metrics
    chosen = f": {shown(name, best.get(name))}" if best else ""
    return (
        f"{word}: test {name} {shown(name, last.get(name))} after {event.rounds} rounds "
        f"(best on validation, round {event.best_round}{chosen}) "
        f"in {event.seconds:.1f} s; outputs agree within {event.onnx_error:.0e} -> {event.path}"
    )


def _listed(figures: Mapping[str, float]) -> str:
    return ", ".join(f"{name} {shown(name, value)}" for name, value in figures.items())


class LiveTable:
    """What is known so far."""

    def __init__(self) -> None:
        self._head: list[str] = []
        self._backends: dict[str, str] = {}
        self._rounds: list[RoundFinished] = []
        self._participants: dict[str, ParticipantTrained | ParticipantFailed] = {}
        self._state = "starting workers, importing frameworks, proving the models equal …"
        self._round = 0
        self._cohort: dict[str, None] = {}
        self._traffic: deque[str] = deque(maxlen=_COLLECTED_SHOWN)
        self._last = ""

    def add(self, event: Event) -> None:
        """Take in one event."""
        match event:
            case CourseStarted():
                self._backends = event.participants
                self._head.append(describe(event))
            case ModelBound() | Noted():
                self._head.append(describe(event))
            case RoundStarted():
                self._round, self._cohort = event.round, dict.fromkeys(event.cohort)
                self._state = self._progress()
            case ParticipantTrained() | ParticipantFailed():
                self._participants[event.name] = event
                self._cohort.pop(event.name, None)
                self._state = self._progress()
            case RoundCollected():
                self._traffic.append(describe(event).strip())
            case RoundFinished():
                self._rounds.append(event)
            case CourseFinished():
                self._last, self._state = describe(event), ""

    def render(self) -> Group:
        """The whole picture."""
        head = [Text(line) for line in self._head]
        tail = [Text(self._last, style="bold green")] if self._last else [Text(self._state, style="dim")]
        traffic = [Text(line) for line in self._traffic]
        return Group(*head, self._round_table(), self._participant_table(), *traffic, *tail)

    def _progress(self) -> str:
        """Who is still waited for."""
        names = list(self._cohort)
        more = f" and {len(names) - _AWAITED_SHOWN} more" if len(names) > _AWAITED_SHOWN else ""
        return f"round {self._round}: waiting for {', '.join(names[:_AWAITED_SHOWN])}{more} …"

    def _round_table(self) -> Table:
        rounds = self._rounds[-_ROUNDS_SHOWN:]
        # A metric may be defined in some rounds only.
        names = list(dict.fromkeys(name for entry in rounds for name in entry.metrics)) or ["loss"]
        table = Table("round", *names, "seconds", title="validation", title_justify="left")
        for entry in rounds:
            style = "bold" if entry.best else None
            values = [shown(name, entry.metrics.get(name)) for name in names]
            table.add_row(str(entry.round), *values, f"{entry.seconds:.2f}", style=style)
        return table

    def _participant_table(self) -> Table:
        table = Table("participant", "backend", "round", "examples", "loss", "seconds")
        names = sorted(self._participants)[:_PARTICIPANTS_SHOWN]
        for name in names:
            event = self._participants[name]
            if isinstance(event, ParticipantFailed):
                table.add_row(
                    name, event.backend, str(event.round), "refused", escape(event.reason), style="red"
                )
                continue
            table.add_row(
                name,
                event.backend,
                str(event.round),
                str(event.num_examples),
                shown("loss", event.loss),
                f"{event.seconds:.2f}",
            )
        hidden = len(self._participants) - len(names)
        if hidden > 0:
            table.caption = f"and {hidden} more"
        return table
