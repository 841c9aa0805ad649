"""Calls of workers are checked by types, and their answers, events and refusals come the same way from both kinds of workers."""

from __future__ import annotations

import multiprocessing
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from xbackend_fl.errors import ConfigError, Refusals
from xbackend_fl.events import Event, Noted
from xbackend_fl.simulation import worker_process
from xbackend_fl.simulation.calls import Answer, Pending, collect, settle
from xbackend_fl.simulation.shared_memory import receive, send

CALLS = """
from xbackend_fl.canonical import Schema
from xbackend_fl.metrics import Metrics
from xbackend_fl.participant import Worker
from xbackend_fl.simulation.calls import Handle, collect
from xbackend_fl.weights import Weights


def right(worker: Handle, weights: Weights) -> list[Metrics]:
    return collect([worker.submit(Worker.evaluate, weights, "test"), worker.submit(Worker.evaluate, weights, split="test")])


def wrong(worker: Handle, weights: Weights) -> Schema:
    worker.submit(Worker.evalute, weights, "test")
    worker.submit(Worker.evaluate, weights)
    worker.submit(Worker.evaluate, weights, 3)
    worker.submit(Worker.evaluate, weights, "test", kapt={})
    return worker.submit(Worker.evaluate, weights, "test").result
"""


@pytest.mark.slow
def test_a_wrong_call_is_an_error_of_mypy(tmp_path: Path) -> None:
    (tmp_path / "calls.py").write_text(CALLS)
    config = Path(__file__).parents[2] / "pyproject.toml"
    command = [sys.executable, "-m", "mypy", "--config-file", str(config), str(tmp_path / "calls.py")]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    found = [line.split(": ")[0].split(":")[1] for line in done.stdout.splitlines() if ": error:" in line]
    lines = [number for number, text in enumerate(CALLS.splitlines(), 1) if text.startswith("    ")][1:]
    assert found == [str(number) for number in lines], done.stdout


class Echo:
    """Answers as a worker does."""

    def __init__(self, *_: object, observer: Any) -> None:
        self._observer = observer

    def tell(self, count: int) -> int:
        for number in range(count):
            self._observer(Noted(backend="echo", note=str(number)))
        return count

    def mapped(self) -> tuple[()]:
        return ()

    def refuse(self) -> None:
        self.tell(2)
        raise ConfigError("no")

    def raise_(self) -> None:
        raise ZeroDivisionError("by zero")

    def full(self) -> None:
        raise OSError(28, "No space left on device", "/somewhere")


def _asked(monkeypatch: pytest.MonkeyPatch, *calls: Any) -> list[Any]:
    """What a process says to calls."""
    monkeypatch.setattr(worker_process, "Worker", Echo)
    ours, theirs = multiprocessing.Pipe()
    for call in (*calls, None):
        send(ours, call)
    worker_process.serve(theirs, None, "echo", 1)  # type: ignore[arg-type]
    theirs.close()
    said = []
    while ours.poll():
        try:
            said.append(receive(ours))
        except EOFError:
            break
    return said


def test_events_come_before_the_answer_and_before_a_refusal(monkeypatch: pytest.MonkeyPatch) -> None:
    said = _asked(monkeypatch, (Echo.tell, (3,), {}), (Echo.refuse, (), {}), (Echo.tell, (), {"count": 0}))
    shown: list[Any] = []
    for one in said:
        match one:
            case worker_process.EventBatch(events):
                shown += [event.note for event in events if isinstance(event, Noted)]
            case worker_process.Answered(value):
                shown.append(value)
            case worker_process.Refused(error):
                shown.append(error.message)
    assert shown == ["0", "1", "2", 3, "0", "1", "no", 0]


def test_what_is_no_refusal_is_told_apart(monkeypatch: pytest.MonkeyPatch) -> None:
    raised, full = _asked(monkeypatch, (Echo.raise_, (), {}), (Echo.full, (), {}))
    assert "ZeroDivisionError: by zero" in raised.text
    assert (
        full.error.message
        == "the echo worker was refused by the system: No space left on device (/somewhere)"
    )


def test_refusals_are_gathered_and_others_answer() -> None:
    told: list[Event] = []

    def refuse(_: object) -> Answer[int]:
        raise ConfigError("no")

    calls = [Pending(refuse), Pending(lambda _: Answer(2))]
    refused = Refusals()
    settle(calls, told.append, refused)
    assert [call.answered for call in calls] == [False, True]
    assert calls[1].result == 2
    assert [error.message for error in refused.errors] == ["no"]
    with pytest.raises(ConfigError, match="no"):
        collect([Pending(refuse)])
