"""Workers whose process has ended: of code of a participant's own that could not be interrupted, the course may go on without it."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import final

from xbackend_fl.course import Course
from xbackend_fl.errors import RunFailed, WorkerDied
from xbackend_fl.events import Event, Observer, ParticipantFailed, ParticipantTrained
from xbackend_fl.participant import has_ended


@final
class Ended:
    """Gathers what is said of processes that ended: ``with ended: ...``."""

    def __init__(self) -> None:
        self._errors: list[WorkerDied] = []

    def __enter__(self) -> None:
        """Begin a block whose process may end."""

    def __exit__(self, _: object, error: BaseException | None, __: object) -> bool:
        """Keep that it has, and go on behind the block."""
        if isinstance(error, WorkerDied):
            self._errors.append(error)
            return True
        return False

    def by(self, course: Course, traces: Mapping[str, tuple[str, Path]]) -> tuple[str, str]:
        """Which participant a process has ended by, and what is said of it.

        Args:
            course: The course.
            traces: By participant, what its code was to do, in words, and where a process writes that it ends by it.

        Raises:
            WorkerDied: By none: it was ended by something else.
            RunFailed: The course does not go on without an update.
        """
        name = next((one for one, (_, trace) in traces.items() if has_ended(trace)), None)
        if name is None:
            raise self._errors[0]
        limit, (what, trace) = course.trainings[name].timeout_s, traces[name]
        reason = (
            f"{what} did not return within {limit:g} s (training.timeout_s), and could not be interrupted: "
            f"its process was ended (traceback: {trace.parent.name}/{trace.name})"
        )
        if course.federate.on_failure == "stop":
            raise RunFailed(
                reason,
                hint="federate.on_failure: continue goes on with the rest; --resume starts at the last checkpoint",
            )
        return name, reason


@final
class Once:
    """Passes on events, and what became of a participant in a round once: who shared a process that has ended trains again.

    Args:
        observer: Told about every event.
    """

    def __init__(self, observer: Observer) -> None:
        self._observer, self._said = observer, set[str]()

    def __call__(self, event: Event) -> None:
        """Pass an event on."""
        if isinstance(event, ParticipantTrained | ParticipantFailed):
            if event.name in self._said:
                return
            self._said.add(event.name)
        self._observer(event)
