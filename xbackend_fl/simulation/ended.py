"""Workers whose process has ended: of a training loop that could not be interrupted, the course may go on without it."""

from __future__ import annotations

from collections.abc import Sequence
from typing import final

from xbackend_fl.course import Course
from xbackend_fl.errors import RunFailed, WorkerDied
from xbackend_fl.events import Event, Observer, ParticipantFailed, ParticipantTrained
from xbackend_fl.participant import ClientStates, has_ended


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

    def by(self, course: Course, names: Sequence[str], number: int, states: ClientStates) -> tuple[str, str]:
        """Which of these participants a process has ended by, and what is said of it.

        Raises:
            WorkerDied: By none: it was ended by something else.
            RunFailed: The course does not go on without an update.
        """
        name = next((one for one in names if has_ended(states.trace(one, number))), None)
        if name is None:
            raise self._errors[0]
        limit, trace = course.trainings[name].timeout_s, states.trace(name, number)
        reason = (
            f"the training of {name} in round {number} did not return within {limit:g} s (training.timeout_s), and could not be interrupted: "
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
