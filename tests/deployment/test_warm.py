"""Forks that stand for Flower's process of a message: cheap, and with one life with what Flower started."""

from __future__ import annotations

import os
import subprocess
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from xbackend_fl.deployment import processes

_WAITS = ["--runtime-api-address", "127.0.0.1:1", "--token", "none", "--insecure"]
"""Nobody is there; the program asks again and again."""


@pytest.fixture
def home(tmp_path: Path) -> Iterator[tuple[Path, subprocess.Popen[bytes]]]:
    with processes.warmed(tmp_path) as process:
        _until((tmp_path / "warm").exists)
        yield tmp_path, process


def test_a_message_costs_no_import(home: tuple[Path, subprocess.Popen[bytes]]) -> None:
    where, process = home
    warm, text = _help(where)
    process.kill()
    process.wait()
    cold, same = _help(where)
    assert "--runtime-api-address" in text
    assert text == same, "without the process, Flower's own program runs"
    assert warm < cold / 5


def test_what_ends_the_visitor_ends_the_fork(home: tuple[Path, subprocess.Popen[bytes]]) -> None:
    where, process = home
    visitor = _visit(where)
    _until(lambda: len(_children(process.pid)) == 1)
    visitor.kill()
    visitor.wait()
    _until(lambda: not _children(process.pid))


def test_what_ends_the_fork_ends_the_visitor(home: tuple[Path, subprocess.Popen[bytes]]) -> None:
    where, process = home
    visitor = _visit(where)
    _until(lambda: len(_children(process.pid)) == 1)
    os.kill(_children(process.pid)[0], 9)
    assert visitor.wait(10) == 0


def _help(home: Path) -> tuple[float, str]:
    """Seconds of processor of what Flower would start, and what it printed."""
    before = os.times()
    program = str(home / "bin" / "flwr-clientapp")
    done = subprocess.run([program, "--help"], capture_output=True, text=True, timeout=60, check=False)
    after = os.times()
    used = after.children_user + after.children_system - before.children_user - before.children_system
    return used, done.stdout


def _visit(home: Path) -> subprocess.Popen[bytes]:
    return subprocess.Popen([home / "bin" / "flwr-clientapp", *_WAITS], stdout=subprocess.DEVNULL)


def _children(pid: int) -> list[int]:
    return [int(part) for part in Path(f"/proc/{pid}/task/{pid}/children").read_text().split()]


def _until(condition: Callable[[], bool]) -> None:
    deadline = time.monotonic() + 30
    while not condition():
        assert time.monotonic() < deadline
        time.sleep(0.05)
