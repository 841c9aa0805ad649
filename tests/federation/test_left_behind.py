"""Whatever a script or a rehearsal ends with, nothing that it started goes on running."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path
from textwrap import dedent

import pytest

from tests.federation.test_script import FILES

pytestmark = [pytest.mark.slow, pytest.mark.skipif(sys.platform != "linux", reason="looks into /proc")]

SCRIPT = """
import sys

import net
import xbackend_fl as xb

if __name__ == "__main__":
    with xb.federate(net.build(), "course.yaml", "osaka", rehearse=True, out="here/osaka") as rounds:
        for task in rounds:
            if sys.argv[1] == "raises":
                raise ValueError("broken")
            rounds.report(8)
            break
"""
PATIENCE_S = 240.0


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    for name, text in {**FILES, "fed.py": SCRIPT}.items():
        (tmp_path / name).write_text(dedent(text))
    return tmp_path


def alive(folder: Path) -> list[str]:
    """Commands of the processes that have something of a folder in their command or as their place."""
    found = []
    for place in Path("/proc").glob("[0-9]*"):
        try:
            command = (place / "cmdline").read_bytes().replace(b"\0", b" ").decode()
            here = f"{(place / 'cwd').readlink()}/"
        except OSError:
            continue
        if command and int(place.name) != os.getpid() and (str(folder) in command or str(folder) in here):
            found.append(command)
    return found


def until(done: Callable[[], object], what: str) -> None:
    end = time.monotonic() + PATIENCE_S
    while not done():
        assert time.monotonic() < end, what
        time.sleep(0.1)


def started(folder: Path, *command: str) -> subprocess.Popen[bytes]:
    with (folder / "log").open("wb") as log:
        return subprocess.Popen(
            [sys.executable, *command],
            cwd=folder,
            stdout=log,
            stderr=subprocess.STDOUT,
            start_new_session=True,
        )


@pytest.mark.parametrize("how", ["raises", "leaves"])
def test_a_script_that_ends_in_a_round_ends_its_rehearsal(folder: Path, how: str) -> None:
    process = started(folder, "fed.py", how)
    assert process.wait(PATIENCE_S) == (how == "raises"), (folder / "log").read_text()
    assert ("ValueError: broken" in (folder / "log").read_text()) == (how == "raises")
    assert not alive(folder)


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGKILL, signal.SIGINT])
def test_a_script_that_is_killed_ends_its_rehearsal(folder: Path, number: signal.Signals) -> None:
    process = started(folder, "fed.py", "waits")
    until(lambda: [*folder.glob("here/*-silos/lyon.log")], "no silo was started")
    process.send_signal(number)
    process.wait(PATIENCE_S)
    until(lambda: not alive(folder), "processes go on")


@pytest.mark.parametrize("number", [signal.SIGKILL, signal.SIGHUP])
def test_a_rehearsal_that_is_killed_ends_its_silos(folder: Path, number: signal.Signals) -> None:
    xbfl = str(Path(sys.executable).parent / "xbfl")
    process = started(folder, xbfl, "up", "course.yaml", "--out", "run")
    until(lambda: [*folder.glob("run-silos/lyon.log")], "no silo was started")
    until(lambda: len(alive(folder)) > 3, "no silo was started")
    process.send_signal(number)
    process.wait(PATIENCE_S)
    until(lambda: not alive(folder), "processes go on")
