"""The server's own process: which folder it goes on with, and that it ends when it is asked to."""

from __future__ import annotations

import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from tests.federation.campaign import write_course
from xbackend_fl.errors import FileError, RunFailed
from xbackend_fl.federation.flower.transport import SuperLink
from xbackend_fl.federation.job import Job
from xbackend_fl.federation.serving import _events, _follow, continued
from xbackend_fl.rounds import RunFolder

pytestmark = pytest.mark.quick


def test_a_simulated_run_is_not_served_on(tmp_path: Path) -> None:
    folder = RunFolder.create(write_course(tmp_path / "course", rounds=1, silos=2), tmp_path / "run")
    folder.events.write_text("", encoding="utf-8")
    before = sorted(tmp_path.rglob("*"))
    with pytest.raises(FileError, match="is the run of a simulated course"):
        continued(folder.path)
    assert sorted(tmp_path.rglob("*")) == before


@pytest.fixture
def link() -> Iterator[subprocess.Popen[bytes]]:
    with subprocess.Popen([sys.executable, "-c", "input()"], stdin=subprocess.PIPE) as process:
        yield process
        process.kill()


def after(count: int) -> Callable[[], bool]:
    """False so many times; then true, and an error if nobody listens."""
    answers = iter([*[False] * count, True])
    return lambda: next(answers)


def test_a_server_that_waits_for_silos_ends_when_asked(tmp_path: Path, link: subprocess.Popen[bytes]) -> None:
    job = Job("", str(tmp_path / "run"), "", str(tmp_path))
    with pytest.raises(RunFailed, match="stopped while waiting for the silos"):
        _follow(
            _events(tmp_path / "events.jsonl", 0), job, SuperLink(link, tmp_path), lambda _: None, after(2)
        )
