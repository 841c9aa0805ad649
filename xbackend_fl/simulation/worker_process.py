"""The process of a worker: it is sent calls, and sends events and answers."""

from __future__ import annotations

import errno
import time
import traceback
from dataclasses import dataclass
from multiprocessing.connection import Connection
from typing import Any, TypeAlias, final

from xbackend_fl.course import Course
from xbackend_fl.errors import DiskFull, RunFailed, XbflError
from xbackend_fl.events import Event
from xbackend_fl.participant import MappedFile, PartialSum, Worker
from xbackend_fl.simulation.shared_memory import BufferRef, SharedBuffer, receive, send
from xbackend_fl.text import line

_MOMENT_S = 0.05


@dataclass(frozen=True)
class EventBatch:
    """Events, in their order."""

    events: tuple[Event, ...]


@dataclass(frozen=True)
class Answered:
    """What a call returned; that of a round lies in the worker's buffer until its next one."""

    value: Any


@dataclass(frozen=True)
class Refused:
    """Why the worker refused a call."""

    error: XbflError


@dataclass(frozen=True)
class Raised:
    """The traceback of something unforeseen."""

    text: str


@dataclass(frozen=True)
class Opened:
    """What the worker reads, once it has opened it."""

    mapped: tuple[MappedFile, ...]


Said: TypeAlias = EventBatch | Opened | Answered | Refused | Raised


@final
class _Outgoing:
    """What a worker says; events that come within a moment travel together, and before what is said after them."""

    def __init__(self, connection: Connection) -> None:
        self._connection = connection
        self._events: list[Event] = []
        self._sent = 0.0

    def emit(self, event: Event) -> None:
        self._events.append(event)
        if time.monotonic() - self._sent > _MOMENT_S:
            self._flush()

    def reply(self, answer: Opened | Answered | Refused | Raised) -> None:
        self._flush()
        send(self._connection, answer)

    def _flush(self) -> None:
        if self._events:
            send(self._connection, EventBatch(tuple(self._events)))
            self._events.clear()
        self._sent = time.monotonic()


def serve(connection: Connection, course: Course, backend: str, threads: int) -> None:
    """Answer calls until ``None`` comes."""
    worker: Worker | None = None
    buffer, outgoing = SharedBuffer(), _Outgoing(connection)
    try:
        while (call := receive(connection)) is not None:
            method, arguments, named = call
            try:
                if worker is None:
                    worker = Worker(course, backend, threads, observer=outgoing.emit)
                    if mapped := worker.mapped():
                        outgoing.reply(Opened(mapped))
                value = method(worker, *map(_opened, arguments), **named)
                outgoing.reply(Answered(buffer.write(value) if isinstance(value, PartialSum) else value))
            except XbflError as error:
                outgoing.reply(Refused(error))
            except KeyboardInterrupt:
                raise
            except OSError as error:
                # A disk, a memory of the machine's, a right: no fault of any code.
                where = f" ({error.filename})" if error.filename else ""
                text = line(
                    f"the {backend} worker was refused by the system: {error.strerror or error}{where}"
                )
                kind = DiskFull if error.errno in {errno.ENOSPC, errno.EDQUOT} else RunFailed
                hint = "mend that; --resume goes on after the last complete round"
                outgoing.reply(Refused(kind(text, hint=hint)))
            except BaseException:  # noqa: BLE001  whatever a user's model raises goes to the console as it is
                outgoing.reply(Raised(traceback.format_exc()))
    finally:
        buffer.close()


def _opened(argument: Any) -> Any:
    return argument.read() if isinstance(argument, BufferRef) else argument
