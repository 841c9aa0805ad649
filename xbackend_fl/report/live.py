"""A run as a table that lives as long as it does."""

from __future__ import annotations

from collections import deque

from rich.console import Group
from rich.markup import escape
from rich.table import Table
from rich.text import Text

from xbackend_fl.events import (
    CourseFinished,
    CourseStarted,
    Event,
    ModelBound,
    Noted,
    ParticipantFailed,
    ParticipantTrained,
    RoundCollected,
    RoundFinished,
    RoundStarted,
)
from xbackend_fl.metrics import shown
from xbackend_fl.report.lines import describe

_ROUNDS_SHOWN = 8
_PARTICIPANTS_SHOWN = 12
_COLLECTED_SHOWN = 3
_AWAITED_SHOWN = 6


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
