"""Runs a course from start to end, or from a checkpoint to the end."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from contextlib import closing
from pathlib import Path

from xbackend_fl.course import Course
from xbackend_fl.errors import ConfigError, FileError
from xbackend_fl.events import Observer
from xbackend_fl.participant import ClientStates
from xbackend_fl.rounds import Run, RunFolder, explain_full_disk, owned, run_with
from xbackend_fl.simulation.engine import SimulationEngine

CLIENTS = "clients"
"""The part of a run folder with what participants keep."""


def run_course(
    course: Course,
    out: str | Path | None = None,
    *,
    observer: Observer | None = None,
    should_stop: Callable[[], bool] | None = None,
    in_process: bool = False,
) -> Run:
    """Simulate a course on this machine.

    A script that calls this needs ``if __name__ == "__main__":``, because workers are spawned processes.

    Args:
        course: From :func:`xbackend_fl.load_course`.
        out: A new folder; ``runs/<time>-<name>`` if left out.
        observer: Told about every event.
        should_stop: Asked between rounds; true ends the course after a complete round.
        in_process: Run the workers in this process, for debugging.

    Raises:
        RefusedInput: The course, a model or the folder cannot be used; nothing was trained.
        RunFailed: The course could not finish, as for want of space; the checkpoint of the last complete round stays.
    """
    # Said before workers start; the folder is made when they can.
    place = RunFolder.choose_path(course, None if out is None else Path(out))
    with closing(SimulationEngine(course, in_process=in_process, states=place / CLIENTS)) as engine:
        folder = RunFolder.create(course, place)
        with explain_full_disk(folder.path), owned(folder.path), folder.unless_refused():
            return run_with(engine, course, folder, None, observer, should_stop)


def resume_run(
    path: str | Path,
    overrides: Sequence[str] = (),
    *,
    course: Course | None = None,
    observer: Observer | None = None,
    should_stop: Callable[[], bool] | None = None,
    in_process: bool = False,
) -> Run:
    """Continue a run from its latest checkpoint.

    Args:
        path: The run folder.
        overrides: ``a.b=value`` settings, for example ``rounds=40`` to go on further.
        course: The course as it is to go on, instead of the folder's own: where its objects of Python are needed again, which no folder holds.
        observer: Told about every event.
        should_stop: Asked between rounds.
        in_process: Run the workers in this process.

    Raises:
        FileError: The folder is not a simulation's run, another process owns it, its checkpoint is corrupt or another run's, or what a participant
            keeps is.
        ConfigError: The course is another one.
        SchemaError: The model has changed since.
    """
    folder = RunFolder.load(Path(path))
    if folder.ledger.exists():
        raise FileError(
            f"{path} is the run of a deployed course",
            hint=f"xbfl serve {path} --resume; a simulation has other data",
        )
    with explain_full_disk(folder.path), owned(folder.path):
        if course is None:
            course = folder.continued(overrides)
        elif overrides:
            raise ConfigError("overrides are of the folder's own course", hint="set them in the course")
        else:
            folder.go_on_with(course)
        state = folder.latest()
        if state is not None:
            ClientStates(folder.path / CLIENTS, 0, 0).require(state.states, state.round)
        with closing(SimulationEngine(course, in_process=in_process, states=folder.path / CLIENTS)) as engine:
            return run_with(engine, course, folder, state, observer, should_stop)
