"""What people see of a run: a line per event, or a table in a terminal."""

from __future__ import annotations

import pytest
from rich.console import Console

from xbackend_fl.events import (
    CourseStarted,
    Event,
    ParticipantFailed,
    ParticipantTrained,
    RoundCollected,
    RoundStarted,
)
from xbackend_fl.report import LiveTable, describe

pytestmark = pytest.mark.quick

NAMES = ("amsterdam", "berlin", "cairo")


def trained(name: str) -> ParticipantTrained:
    return ParticipantTrained(round=2, name=name, backend="torch", num_examples=8, loss=0.5, seconds=1.5)


COLLECTED = RoundCollected(
    round=2,
    accepted=("amsterdam",),
    missing=("berlin", "cairo"),
    sent_bytes=78_300_000,
    received_bytes=26_100_000,
    seconds=4.25,
)


def shown(*events: Event) -> str:
    table = LiveTable()
    for event in events:
        table.add(event)
    console = Console(width=120)
    with console.capture() as capture:
        console.print(table.render())
    return capture.get()


def test_a_round_over_a_network_in_one_line() -> None:
    line = "  round 2: 1 of 3 updates in 4.25 s, 78.3 MB sent, 26.1 MB received; without berlin, cairo"
    assert describe(COLLECTED) == line
    assert describe(COLLECTED.model_copy(update={"missing": ()})).endswith("26.1 MB received")


def test_who_is_still_waited_for() -> None:
    started = CourseStarted(name="c", path="runs/c", participants=dict.fromkeys(NAMES, "torch"), rounds=3)
    begun = (started, RoundStarted(round=2, cohort=NAMES))
    assert "round 2: waiting for amsterdam, berlin, cairo …" in shown(*begun)
    failed = ParticipantFailed(round=2, name="berlin", backend="torch", reason="[red]NaN[/red]")
    picture = shown(*begun, trained("amsterdam"), failed)
    assert "round 2: waiting for cairo …" in picture
    assert "[red]NaN[/red]" in picture  # what a silo sends is text, never markup
    assert "78.3 MB sent" in shown(*begun, trained("amsterdam"), COLLECTED)


def test_a_large_cohort_is_not_listed() -> None:
    names = tuple(f"p-{index:03}" for index in range(200))
    assert "p-005 and 194 more …" in shown(RoundStarted(round=1, cohort=names))
