"""The server's role: the process that leads a course is started, watched, and started again if it ends."""

from __future__ import annotations

import os
import tempfile
import time
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path

from xbackend_fl.course import Course, dump, require_files
from xbackend_fl.errors import FileError, RunFailed
from xbackend_fl.events import (
    CourseFinished,
    Event,
    Noted,
    Observer,
    RoundCollected,
    RoundStarted,
    complete_bytes,
    from_line,
)
from xbackend_fl.federation.job import Job
from xbackend_fl.federation.transport import Gone, Served, Transport
from xbackend_fl.rounds import LEAVING_S, RunFolder, owned

_POLL_S = 0.2
_STATUS_S = 10.0
_AGAIN_S = 3.0


def serve_course(
    course: Course,
    transport: Transport,
    *,
    out: Path | None = None,
    resume: bool = False,
    observer: Observer = lambda _: None,
    should_stop: Callable[[], bool] = lambda: False,
) -> Path:
    """Run a course's server until the course is over.

    Args:
        course: The course; :func:`continued` gives that of a run folder.
        transport: The server's end of the way to silos.
        out: A new run folder; with ``resume``, the one to go on with.
        resume: Continue at the last checkpoint of the folder.
        observer: Told about every event.
        should_stop: Asked all the time; true ends the course after a complete round.

    Returns:
        The run folder.

    Raises:
        RefusedInput: Course or folder cannot be used, or a silo's model is not the reference's.
        RunFailed: The course could not finish; the checkpoint of the last complete round stays.
    """
    require_files(course)
    folder = (out if resume and out is not None else RunFolder.choose_path(course, out)).resolve()
    tally = _Tally(observer)
    # From here on: a process may write before whoever started it looks.
    events = _events(folder / "events.jsonl", complete_bytes(folder / "events.jsonl"))
    while True:
        try:
            _serve_once(course, transport, folder, events, tally, should_stop)
        except RunFailed as error:
            # What never worked is for its reader to mend; what worked is tried again.
            if not isinstance(error, Gone) and not tally.failures:
                raise
            tally.failures += 1
            if tally.failures > course.deployment.max_restarts or should_stop():
                raise
            note = f"{error.message.splitlines()[0]} Starting again ({tally.failures} of {course.deployment.max_restarts})"
            observer(Noted(backend="server", note=note))
            time.sleep(_AGAIN_S)
        else:
            return folder


def continued(run: Path, settings: Sequence[str] = ()) -> Course:
    """The course of a run folder that is to go on.

    Args:
        run: The run folder.
        settings: ``a.b=value`` overrides.

    Raises:
        RefusedInput: It is no run of a deployed course, or another process owns it.
    """
    folder = RunFolder.load(run)
    require_deployed(run)
    # Said before anything is started; the server's process owns the folder then.
    with owned(run, LEAVING_S):
        return folder.continued(settings, deployed=True)


def require_deployed(run: Path) -> None:
    """Refuse the folder of a simulated run, before anything is written there.

    Raises:
        FileError: It is one: a deployed run has a ledger before its first event.
    """
    folder = RunFolder(run)
    if folder.events.exists() and not folder.ledger.exists():
        raise FileError(
            f"{run} is the run of a simulated course", hint=f"xbfl run --resume {run}; silos have other data"
        )


class _Tally:
    """Passes events on, and counts failures since the last complete round."""

    def __init__(self, observer: Observer) -> None:
        self._observer, self.failures = observer, 0

    def __call__(self, event: Event) -> None:
        if isinstance(event, RoundCollected):
            self.failures = 0
        self._observer(event)


def _serve_once(
    course: Course,
    transport: Transport,
    folder: Path,
    events: Iterator[Event | None],
    observer: Observer,
    should_stop: Callable[[], bool],
) -> None:
    with tempfile.TemporaryDirectory(prefix="xbfl-") as home:
        keys = "" if transport.keys is None else str(transport.keys.folder.resolve())
        job = Job(dump(course), str(folder), keys, home, os.getpid())
        with transport.serve(job, observer, should_stop) as served:
            _follow(events, job, served, observer, should_stop)


def _follow(
    events: Iterator[Event | None],
    job: Job,
    served: Served,
    observer: Observer,
    should_stop: Callable[[], bool],
) -> None:
    """Tell what the server's process writes down, until the course is over."""
    checked, took = time.monotonic(), 0.0
    enrolling = True
    while True:
        # Asked before the events are read: what a process wrote last is then seen before its end is.
        ended, gone = job.ended, served.is_gone()
        # Rarely on a slow machine, where the question itself keeps the process from starting.
        if not job.started and time.monotonic() - checked > max(_STATUS_S, 2 * took):
            asked = time.monotonic()
            ended = served.has_ended()
            checked = time.monotonic()
            took = checked - asked
        for event in events:
            if event is None:
                break
            observer(event)
            enrolling = enrolling and not isinstance(event, RoundStarted)
            if isinstance(event, CourseFinished):
                return
        if notice := job.notice():
            observer(Noted(backend="server", note=notice))
        # A process that lost its SuperLink has a reason of its own, which is not the reason.
        if not gone and (failure := job.failure()):
            raise failure
        if ended or gone:
            name = served.name if gone else "the server's process"
            raise Gone(
                f"{name} ended before the course did.\n{served.log()}",
                hint=f"xbfl serve --resume {job.out}",
            )
        if should_stop():
            if enrolling:
                # No round will be complete before all are there.
                raise RunFailed("stopped while waiting for the silos", hint=f"xbfl serve {job.out} --resume")
            job.stop()
        time.sleep(_POLL_S)


def _events(log: Path, start: int) -> Iterator[Event | None]:
    """Events as they are written; ``None`` when there is no other yet."""
    while not log.is_file():
        yield None
    with log.open(encoding="utf-8") as file:
        file.seek(start)
        while True:
            place = file.tell()
            line = file.readline()
            if line.endswith("\n"):
                yield from_line(line)
            else:
                # Read again when it is whole: a line for which there was no space is taken back.
                file.seek(place)
                yield None
