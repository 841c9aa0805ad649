"""A machine that is slow or busy: what takes long is waited for and said, and nobody waits for ever."""

from __future__ import annotations

import os
import subprocess
import sys
import time
from pathlib import Path

import pytest

from xbackend_fl.course import load_course
from xbackend_fl.course.address import Address
from xbackend_fl.errors import FileError, RunFailed
from xbackend_fl.events import Event, Noted
from xbackend_fl.federation.flower import processes, rehearsal
from xbackend_fl.federation.flower.door import Flower
from xbackend_fl.federation.flower.processes import Waiting, free_port, start_app, superlink
from xbackend_fl.rounds import owned

SLOW = """#!/bin/sh
echo $$ >> "{folder}/started"
sleep {seconds}
echo done
"""


@pytest.fixture
def programs(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A folder in which Flower's programs are looked for, beside the same Python."""
    folder = tmp_path / "bin"
    folder.mkdir()
    (folder / "python").symlink_to(sys.executable)
    monkeypatch.setattr(sys, "executable", str(folder / "python"))
    return folder


def slow(folder: Path, name: str, seconds: float) -> None:
    (folder / name).write_text(SLOW.format(folder=folder, seconds=seconds))
    (folder / name).chmod(0o755)


def alive(folder: Path) -> list[int]:
    return [n for n in map(int, (folder / "started").read_text().split()) if Path(f"/proc/{n}").exists()]


def test_a_slow_command_is_waited_for_and_said(
    programs: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    slow(programs, "flwr", 1.0)
    monkeypatch.setattr(processes, "_REMIND_S", 0.3)
    said: list[Event] = []
    start_app(Address("127.0.0.1:1"), None, tmp_path / "app", tmp_path, Waiting(said.append))
    assert said
    assert all(
        "still waiting for Flower's command flwr run" in event.note
        for event in said
        if isinstance(event, Noted)
    )
    # A second try could start the course twice.
    assert len((programs / "started").read_text().split()) == 1


def test_nobody_waits_for_ever(programs: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    slow(programs, "flwr", 600)
    monkeypatch.setattr(processes, "_PATIENCE_S", 0.5)
    with pytest.raises(RunFailed, match=r"^gave up after waiting 1 s for Flower's command flwr run$"):
        start_app(Address("127.0.0.1:1"), None, tmp_path / "app", tmp_path)
    assert not alive(programs)
    assert processes.status(tmp_path) == "unknown"


def test_waiting_can_be_stopped(programs: Path, tmp_path: Path) -> None:
    slow(programs, "flwr", 600)
    began = time.monotonic()

    def should_stop() -> bool:
        return time.monotonic() - began > 0.3

    with pytest.raises(RunFailed, match="stopped while waiting for Flower's command"):
        start_app(Address("127.0.0.1:1"), None, tmp_path / "app", tmp_path, Waiting(should_stop=should_stop))
    assert not alive(programs)


def test_a_slow_superlink_is_waited_for_and_a_dead_one_is_not(
    programs: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(processes, "_REMIND_S", 0.3)
    slow(programs, "flower-superlink", 1.0)
    said: list[Event] = []
    with (
        pytest.raises(RunFailed, match="SuperLink did not start at"),
        superlink(Address(f"127.0.0.1:{free_port()}"), None, tmp_path, Waiting(said.append)),
    ):
        pass
    assert said


def test_a_rehearsal_that_was_killed_is_no_obstacle(
    tmp_path: Path, digits: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Keys and folders of the first try are there, half made."""
    left = tmp_path / "run-silos" / "keys"
    left.mkdir(parents=True)
    (left / "ca.key").touch()
    (tmp_path / "run-silos" / "osaka").mkdir()
    reached: list[Path] = []

    def serve(_: object, transport: Flower, **__: object) -> Path:
        assert transport.keys is not None
        reached.append(transport.keys.folder)
        return transport.keys.folder

    monkeypatch.setattr(rehearsal, "serve_course", serve)
    monkeypatch.setattr(rehearsal.processes, "running", lambda *_: subprocess.Popen(["true"]))
    rehearsal.rehearse(load_course(digits / "course.yaml"), out=tmp_path / "run")
    assert (reached[0] / "server.crt").is_file()
    monkeypatch.setattr(rehearsal, "LEAVING_S", 0.5)
    with owned(tmp_path / "run-silos"), pytest.raises(FileError, match=f"process {os.getpid()}"):
        rehearsal.rehearse(load_course(digits / "course.yaml"), out=tmp_path / "run")
