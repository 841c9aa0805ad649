"""A run goes on with what its own participants kept and with its own checkpoints, or not at all."""

from __future__ import annotations

import shutil
from collections.abc import Callable
from pathlib import Path

import pytest

from tests.algorithms.smooth import course_of
from xbackend_fl import run_course
from xbackend_fl.errors import FileError
from xbackend_fl.events import Event, RoundStarted
from xbackend_fl.simulation import resume_run

RUNS = {
    "run": ["federate.algorithm=scaffold"],
    "seed": ["federate.algorithm=scaffold", "seed=4"],
    "fedbn": ["federate.algorithm=fedbn"],
}
LATEST = "checkpoints/round-00003.safetensors"


@pytest.fixture(scope="module")
def runs(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Runs of three rounds, in which everybody takes part."""
    room = tmp_path_factory.mktemp("runs")
    for name, settings in RUNS.items():
        course = course_of(room / "course", ["torch"], "federate.cohort=5", *settings, norm=True, rounds=3)
        run_course(course, room / name, in_process=True)
    return room


def state(run: Path, name: str = "ada", number: int = 3) -> Path:
    """The file of a participant and round."""
    return run / "clients" / name / f"{number:08d}.safetensors"


def deleted(run: Path, _: Path) -> None:
    state(run).unlink()


def all_deleted(run: Path, _: Path) -> None:
    shutil.rmtree(run / "clients" / "ada")


def nothing_left(run: Path, _: Path) -> None:
    shutil.rmtree(run / "clients")


def older(run: Path, _: Path) -> None:
    shutil.copy(state(run, number=2), state(run))


def of_another_participant(run: Path, _: Path) -> None:
    shutil.copy(state(run, "ben"), state(run))


def of_another_seed(run: Path, runs: Path) -> None:
    shutil.copy(state(runs / "seed"), state(run))


def of_another_algorithm(run: Path, runs: Path) -> None:
    other = runs / ("run" if "fedbn" in (run / "course.yaml").read_text() else "fedbn")
    shutil.copy(state(other), state(run))


def of_nobody(run: Path, _: Path) -> None:
    shutil.copytree(run / "clients" / "ada", run / "clients" / "zoe")


def damaged(run: Path, _: Path) -> None:
    state(run).write_bytes(state(run).read_bytes()[:-8])


def empty(run: Path, _: Path) -> None:
    state(run).write_bytes(b"")


HARMS = [
    deleted, all_deleted, nothing_left, older, of_another_participant, of_another_seed, of_another_algorithm,
    of_nobody, damaged, empty,
]  # fmt: skip


@pytest.mark.parametrize("begun", ["run", "fedbn"])
@pytest.mark.parametrize("harm", HARMS)
def test_what_a_participant_did_not_keep_is_refused(
    begun: str, harm: Callable[[Path, Path], None], runs: Path, tmp_path: Path
) -> None:
    run = Path(shutil.copytree(runs / begun, tmp_path / "run"))
    harm(run, runs)
    events: list[Event] = []
    with pytest.raises(FileError) as caught:
        resume_run(run, ["rounds=5"], observer=events.append, in_process=True)
    assert f"{run / 'clients'}" in caught.value.message
    assert caught.value.hint == "put the run's own file back, or start a new run"
    assert not any(isinstance(event, RoundStarted) for event in events)


@pytest.mark.parametrize("other", ["seed", "fedbn"])
def test_checkpoints_of_another_run_are_refused(other: str, runs: Path, tmp_path: Path) -> None:
    run = Path(shutil.copytree(runs / "run", tmp_path / "run"))
    shutil.copy(runs / other / LATEST, run / LATEST)
    with pytest.raises(FileError, match=r"round-00003\.safetensors is a checkpoint of another run") as caught:
        resume_run(run, ["rounds=5"], in_process=True)
    # The cure, tried.
    assert caught.value.hint == "delete it to go on from round-00002.safetensors"
    (run / LATEST).unlink()
    whole = Path(shutil.copytree(runs / "run", tmp_path / "whole"))
    digests = [resume_run(path, ["rounds=4"], in_process=True).weights.digest for path in (run, whole)]
    assert digests[0] == digests[1]
