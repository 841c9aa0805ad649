"""Forks that stand for Flower's process of a message: cheap, and with one life with what Flower started."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from tests.conftest import Figure
from xbackend_fl.federation.flower import processes

_WAITS = ["--runtime-api-address", "127.0.0.1:1", "--token", "none", "--insecure"]
"""Nobody is there; the program asks again and again."""


@pytest.fixture(params=["flwr-clientapp", pytest.param("flwr-serverapp", marks=pytest.mark.slow)])
def home(tmp_path: Path, request: pytest.FixtureRequest) -> Iterator[tuple[Path, subprocess.Popen[bytes]]]:
    with processes.forkserver(tmp_path, request.param) as process:
        _until((tmp_path / "forkserver").exists)
        yield tmp_path, process


def test_a_message_costs_no_import(home: tuple[Path, subprocess.Popen[bytes]], figure: Figure) -> None:
    where, process = home
    with _started(where) as shim:
        forked = _tried(where, shim.pid, _fork(where, process.pid))
    process.kill()
    process.wait()
    with _started(where) as alone:
        cold = _tried(where, alone.pid)
    figure("message, processor seconds, forked and alone", f"{forked:.2f}, {cold:.2f}")
    assert forked < cold / 5


@pytest.mark.slow
def test_who_is_forsaken_before_the_fork_listened_runs_the_program(
    home: tuple[Path, subprocess.Popen[bytes]],
) -> None:
    where, process = home
    process.send_signal(signal.SIGSTOP)
    with subprocess.Popen([program(where), "--help"], stdout=subprocess.PIPE, text=True) as shim:
        _until(lambda: Path("/proc/net/unix").read_text().count(str(where / "forkserver")) == 2)
        process.kill()
        text, _ = shim.communicate(timeout=60)
    assert "--runtime-api-address" in text
    assert shim.returncode == 0


def test_what_ends_the_shim_ends_the_fork(home: tuple[Path, subprocess.Popen[bytes]]) -> None:
    where, process = home
    with _started(where):
        _fork(where, process.pid)
    _until(lambda: not _children(process.pid))


def test_what_ends_the_shim_s_starter_ends_the_fork(home: tuple[Path, subprocess.Popen[bytes]]) -> None:
    """Even one that does not hear of it: Flower's own way to end can wait without end for a lock that it holds."""
    where, process = home
    starts = "import subprocess, sys; subprocess.run(sys.argv[1:])"
    command = [sys.executable, "-c", starts, str(program(where)), *_WAITS]
    with (
        (where / "reports").open("wb") as file,
        subprocess.Popen(command, stdout=file, stderr=file) as starter,
    ):
        _fork(where, process.pid)
        starter.kill()
    _until(lambda: not _children(process.pid))


def test_what_ends_the_fork_ends_the_shim(home: tuple[Path, subprocess.Popen[bytes]]) -> None:
    where, process = home
    with _started(where) as shim:
        os.kill(_fork(where, process.pid), signal.SIGKILL)
        assert shim.wait(10) == 0


def test_one_thread_when_it_forks(home: tuple[Path, subprocess.Popen[bytes]]) -> None:
    """Others would be gone in the fork, with whatever they held."""
    _, process = home
    assert len(list(Path(f"/proc/{process.pid}/task").iterdir())) == 1


def program(home: Path) -> Path:
    """What Flower finds under the name of its program."""
    (found,) = (home / "bin").iterdir()
    return found


@contextmanager
def _started(home: Path) -> Iterator[subprocess.Popen[bytes]]:
    """What Flower starts, with what it reports in a file, until it is killed."""
    with (
        (home / "reports").open("wb") as file,
        subprocess.Popen([program(home), *_WAITS], stdout=file, stderr=file) as process,
    ):
        try:
            yield process
        finally:
            process.kill()


def _fork(home: Path, forked: int) -> int:
    """The process id of the fork, once it has taken its shim's outputs and so has read what it was asked."""
    _until(
        lambda: [Path(f"/proc/{child}/fd/2").readlink() for child in _children(forked)] == [home / "reports"]
    )
    return _children(forked)[0]


def _tried(home: Path, *processes: int) -> float:
    """Seconds of processor that the processes have used when the program has first asked for its message."""
    _until(lambda: "Connection attempt failed" in (home / "reports").read_text())
    fields = [Path(f"/proc/{process}/stat").read_text().rpartition(")")[2].split() for process in processes]
    return sum(int(user) + int(system) for *_, user, system in (line[:13] for line in fields)) / os.sysconf(
        "SC_CLK_TCK"
    )


def _children(pid: int) -> list[int]:
    return [int(part) for part in Path(f"/proc/{pid}/task/{pid}/children").read_text().split()]


def _until(condition: Callable[[], bool]) -> None:
    deadline = time.monotonic() + 30
    while not condition():
        assert time.monotonic() < deadline
        time.sleep(0.05)
