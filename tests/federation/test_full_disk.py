"""A disk that is full: nothing is torn, it is said, and the course goes on when there is space, with the same bits."""

from __future__ import annotations

import errno
import json
import os
import sqlite3
import subprocess
import sys
from collections.abc import Callable
from importlib import import_module
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from tests.federation.campaign import undisturbed, write_course
from tests.federation.light import Linear
from tests.federation.links import deployed, light
from tests.federation.local import LocalLink
from xbackend_fl import load_course, run_course
from xbackend_fl.course import dump
from xbackend_fl.errors import DiskFull, RunFailed
from xbackend_fl.events import CourseStarted, Event, Noted, from_line
from xbackend_fl.federation import Silo
from xbackend_fl.federation.flower import server
from xbackend_fl.federation.job import Job
from xbackend_fl.federation.server import ledger as ledger_module
from xbackend_fl.federation.silo import outbox as outbox_module
from xbackend_fl.rounds import RunFolder, explain_full_disk, export, space, wait_for_space
from xbackend_fl.simulation import resume_run
from xbackend_fl.weights import load_weights, store
from xbackend_fl.writing import atomic_write

_WHOLE = atomic_write


@pytest.fixture(autouse=True)
def _impatient(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(space, "_POLL_S", 0.01)


def full_for(names: dict[str, int]) -> Callable[[Path], Any]:
    """The disk is full for so many attempts to write files with these beginnings."""

    def whole(path: Path) -> Any:
        for name, left in names.items():
            if path.name.startswith(name) and left:
                names[name] -= 1
                raise OSError(errno.ENOSPC, "No space left on device")
        return _WHOLE(path)

    return whole


def test_a_full_disk_is_waited_for(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The first attempts to write fail as a full disk does; the course goes on when there is space, with the same weights."""
    course = write_course(tmp_path / "course", rounds=2, silos=2)
    expected = undisturbed(course, tmp_path / "undisturbed")
    monkeypatch.setattr(ledger_module, "atomic_write", full_for({"": 2}))
    run, events = deployed(course, LocalLink(light(course)), tmp_path / "run")
    assert run.weights.digest == expected
    (note,) = (event.note for event in events if isinstance(event, Noted))
    assert "No space left on device" in note
    assert not list((tmp_path / "run").rglob("*.partial"))


def test_a_disk_that_stays_full_ends_the_course(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    more = "deployment: {round_timeout_s: 0.1}\n"
    course = write_course(tmp_path / "course", rounds=1, silos=1, more=more)
    monkeypatch.setattr(ledger_module, "atomic_write", full_for({"": 1000}))
    with pytest.raises(RunFailed, match=r"could not be written: .*No space left"):
        deployed(course, LocalLink(light(course)), tmp_path / "run")


def test_the_server_waits_wherever_the_disk_is_full(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """In checkpoints, the best and the last weights and the ONNX file; every time it goes on after the last complete round."""
    course = write_course(tmp_path / "course", rounds=5, silos=2)
    expected = undisturbed(course, tmp_path / "undisturbed")
    fails = {"best": 2, "round-00003": 1, "last": 1}
    monkeypatch.setattr(store, "atomic_write", full_for(fails))
    attempts = iter([1, 2, 3])

    def exported(*arguments: Any) -> Any:
        if next(attempts, None) == 1:
            raise RunFailed("could not be written") from OSError(errno.EDQUOT, "Disk quota exceeded")
        return export.export(*arguments)

    monkeypatch.setattr(import_module("xbackend_fl.rounds.finish"), "export", exported)
    silos = light(course)
    monkeypatch.setattr(server, "FlowerLink", lambda *_: LocalLink(silos))
    (tmp_path / "home").mkdir()
    job = Job(dump(course), str(tmp_path / "run"), home=str(tmp_path / "home"))
    server.main(SimpleNamespace(), SimpleNamespace(run_config={"xbfl": job.write()}))
    assert not any(fails.values())
    assert load_weights(tmp_path / "run" / "last.safetensors").digest == expected
    assert "could not be written; waiting for space" in job.notice()
    assert job.failure() is None
    events = [from_line(line) for line in (tmp_path / "run" / "events.jsonl").read_text().splitlines()]
    starts = [event.resumed_from for event in events if isinstance(event, CourseStarted)]
    assert len(starts) == 1 + 4 + 1
    assert starts == sorted(starts)
    assert not list((tmp_path / "run").rglob("*.partial"))


def test_a_server_that_waits_can_be_stopped(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    course = write_course(tmp_path / "course", rounds=2, silos=2)
    silos = light(course)
    monkeypatch.setattr(store, "atomic_write", full_for({"best": 1}))
    monkeypatch.setattr(server, "FlowerLink", lambda *_: LocalLink(silos))
    (tmp_path / "home").mkdir()
    job = Job(dump(course), str(tmp_path / "run"), home=str(tmp_path / "home"))

    def allocate(*_: int) -> None:
        job.stop()
        raise OSError(errno.ENOSPC, "full")

    monkeypatch.setattr(os, "posix_fallocate", allocate)
    with pytest.raises(DiskFull):
        server.main(SimpleNamespace(), SimpleNamespace(run_config={"xbfl": job.write()}))
    assert "No space left on device; waiting for space" in job.notice()
    assert job.notice() == ""
    failure = job.failure()
    assert isinstance(failure, RunFailed)
    assert "--resume" in str(failure.hint)


def test_a_silo_waits_too(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    course = write_course(tmp_path / "course", rounds=2, silos=2)
    expected = undisturbed(course, tmp_path / "undisturbed")
    answers, models = {"binding": 1, "answer": 3}, {"model.safetensors": 2}
    monkeypatch.setattr(outbox_module, "atomic_write", full_for(answers))
    names = [participant.name for participant in course.participants]
    silos = [Silo(course, n, Linear(n, course), out=tmp_path / n) for n in names]
    monkeypatch.setattr(store, "atomic_write", full_for(models))
    run, _ = deployed(course, LocalLink(silos), tmp_path / "run")
    assert run.weights.digest == expected
    assert not any([*answers.values(), *models.values()])
    # Once for each file, however long it takes.
    assert [record.message.count("No space left on device); waiting") for record in caplog.records] == [1] * 3
    assert all((tmp_path / name / "model.safetensors").is_file() for name in names)


def test_a_simulation_says_what_to_do(
    digits: Path, tmp_path: Path, small: list[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    alone = ["models={torch: torch_model.py:build}", "participants={torch: 2}", "rounds=2"]
    course = load_course(digits / "course.yaml", [*small, *alone])
    expected = run_course(course, tmp_path / "undisturbed", in_process=True)
    monkeypatch.setattr(store, "atomic_write", full_for({"round-00002": 1}))
    with pytest.raises(DiskFull, match=r"no space for the run .*No space left on device") as caught:
        run_course(course, tmp_path / "run", in_process=True)
    assert "--resume" in str(caught.value.hint)
    resumed = resume_run(tmp_path / "run", in_process=True)
    assert resumed.weights.digest == expected.weights.digest


@pytest.mark.parametrize("size", [0, 4 << 20])
def test_what_the_disk_says_to_whoever_writes_onnx(tmp_path: Path, size: int) -> None:
    """This process, or another one for a large model."""
    folder = RunFolder(tmp_path)
    folder.last.write_bytes(bytes(size))
    with pytest.raises(RunFailed, match="No such file or directory") as caught:
        export.export(folder, ())
    assert isinstance(caught.value.__cause__, OSError)
    assert caught.value.__cause__.errno == errno.ENOENT


@pytest.mark.parametrize(
    ("error", "kind"),
    [
        (OSError(errno.ENOSPC, "full"), DiskFull),
        (OSError(errno.EDQUOT, "quota"), DiskFull),
        (sqlite3.OperationalError("database or disk is full"), DiskFull),
        (OSError(errno.EIO, "broken"), OSError),
        (sqlite3.OperationalError("database is locked"), sqlite3.OperationalError),
        (RunFailed("full"), RunFailed),
    ],
)
def test_only_a_full_disk_is_one(error: Exception, kind: type[Exception], tmp_path: Path) -> None:
    with pytest.raises(kind) as caught, explain_full_disk(tmp_path):
        raise error
    assert type(caught.value) is kind


def test_space_for_twice_the_largest_file(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "model").write_bytes(bytes(3 << 20))
    asked: list[int] = []

    def allocate(_: int, __: int, size: int) -> None:
        asked.append(size)
        if len(asked) < 3:
            raise OSError(errno.ENOSPC, "full")

    monkeypatch.setattr(os, "posix_fallocate", allocate)
    assert wait_for_space(tmp_path)
    assert asked == [7 << 20] * 3
    assert not wait_for_space(tmp_path, lambda: True)


def test_an_event_for_which_there_is_no_space_is_not_there(tmp_path: Path) -> None:
    """The kernel writes the beginning of a line up to a limit on the file's size."""
    program = """
import resource, sys
from pathlib import Path
from xbackend_fl.events import Noted, jsonl
observe = jsonl(Path(sys.argv[1]))
resource.setrlimit(resource.RLIMIT_FSIZE, (1000, 1000))
for number in range(100):
    observe(Noted(backend="server", note=str(number)))
"""
    path = tmp_path / "events.jsonl"
    done = subprocess.run(
        [sys.executable, "-c", program, str(path)], capture_output=True, text=True, check=False
    )
    assert "No space left on device" in done.stderr
    assert path.read_text().endswith("\n")
    events: list[Event] = [from_line(line) for line in path.read_text().splitlines()]
    assert [event.note for event in events if isinstance(event, Noted)] == [
        str(n) for n in range(len(events))
    ]
    assert 5 < len(events) < 100
    assert json.loads(path.read_text().splitlines()[-1])["event"] == "noted"
