"""Where a worker lives: in a process of its own, or in this one. Both answer the same calls."""

from __future__ import annotations

import errno
import multiprocessing
import os
import signal
import threading
import time
import traceback
from collections.abc import Iterator, Sequence
from contextlib import contextmanager, nullcontext, suppress
from functools import partial
from multiprocessing.connection import Connection, wait
from pathlib import Path
from typing import Any, Protocol, final

from xbackend_fl.course import Course
from xbackend_fl.errors import DiskFull, Refusals, RunFailed, WorkerDied, XbflError
from xbackend_fl.events import Observer
from xbackend_fl.participant.local_training import PartialSum
from xbackend_fl.participant.worker import Worker
from xbackend_fl.simulation.shared_memory import BufferRef, SharedBuffer, receive, send
from xbackend_fl.text import line

_JOIN_S = 2.0
_MOMENT_S = 0.05


class Handle(Protocol):
    """A worker that can be called."""

    backend: str

    def submit(self, method: str, *arguments: Any) -> None:
        """Start a call; :func:`collect` brings its result."""
        ...

    def close(self) -> None:
        """End the worker; safe to call twice."""
        ...


@final
class LocalWorker:
    """A worker in this process, for debugging and for tests."""

    def __init__(self, course: Course, backend: str, threads: int, gpu: str) -> None:
        del gpu  # the process sees what it sees
        self.backend = backend
        self._make = partial(Worker, course, backend, threads)
        self._worker: Worker | None = None
        self._call: tuple[str, tuple[Any, ...]] | None = None

    def submit(self, method: str, *arguments: Any) -> None:
        """Remember the call; it runs when it is collected."""
        self._call = (method, arguments)

    def run(self, observer: Observer) -> Any:
        """Run the remembered call."""
        assert self._call is not None
        result: Any = None
        self._worker = self._worker or self._make()
        for kind, value in _messages(self._worker, *self._call):
            if kind == "event":
                observer(value)
            else:
                result = value
        return result

    def close(self) -> None:
        """Nothing to end."""


@final
class ProcessWorker:
    """A worker in a spawned process of its own (a forked one would hang in the frameworks' thread pools)."""

    def __init__(self, course: Course, backend: str, threads: int, gpu: str) -> None:
        self.backend = backend
        context = multiprocessing.get_context("spawn")
        self.connection, theirs = context.Pipe()
        self._buffer = ""
        self._process = context.Process(
            target=_serve,
            args=(theirs, course, course.base, backend, threads),
            name=f"xbfl-{backend}",
            daemon=True,
        )
        with _worker_environment(threads, gpu), _ignored_interrupts():
            self._process.start()
        theirs.close()

    def submit(self, method: str, *arguments: Any) -> None:
        """Send the call."""
        try:
            send(self.connection, (method, arguments))
        except OSError as error:
            raise self.death() from error

    def receive(self) -> tuple[str, Any]:
        """The next message.

        Raises:
            WorkerDied: The process ended, or the worker raised something unforeseen.
            XbflError: The worker refused.
        """
        try:
            kind, value = receive(self.connection)
        except (EOFError, OSError) as error:
            raise self.death() from error
        if kind == "refused":
            raise value
        if kind == "raised":
            raise WorkerDied(f"the {self.backend} worker raised\n\n{value}")
        if isinstance(value, BufferRef):
            self._buffer = value.buffer
            value = value.open()
        return kind, value

    def death(self) -> WorkerDied:
        """The error for a process that ended by itself."""
        self._process.join(_JOIN_S)
        code = self._process.exitcode
        how = signal.Signals(-code).name if code is not None and code < 0 else f"exit code {code}"
        return WorkerDied(
            f"the {self.backend} worker (process {self._process.pid}) ended with {how}",
            hint="out of memory, or killed from outside; the checkpoint of the last round stays: --resume",
        )

    def close(self) -> None:
        """Ask the process to end, then make it."""
        with suppress(OSError):
            send(self.connection, None)
        self._process.join(_JOIN_S)
        if self._process.is_alive():
            self._process.kill()
            self._process.join()
        self.connection.close()
        if self._buffer:
            Path(self._buffer).unlink(missing_ok=True)


def collect(handles: Sequence[Handle], observer: Observer, refused: Refusals | None = None) -> list[Any]:
    """Results of the submitted calls in the order of ``handles``; events go to ``observer`` as they come.

    Args:
        handles: Workers that were called.
        observer: Told about every event.
        refused: Gathers the refusals of all workers; the result of one that refuses is then ``None``. The first refusal
            is raised if left out.
    """
    results: dict[int, Any] = {}
    waiting: dict[Any, tuple[int, ProcessWorker]] = {}
    kept = nullcontext() if refused is None else refused
    for index, handle in enumerate(handles):
        if isinstance(handle, LocalWorker):
            with kept:
                results[index] = handle.run(observer)
        elif isinstance(handle, ProcessWorker):
            waiting[handle.connection] = (index, handle)
    while waiting:
        for connection in wait(list(waiting)):
            index, handle = waiting[connection]
            kind, value = "result", None
            with kept:
                kind, value = handle.receive()
            if kind == "events":
                for event in value:
                    observer(event)
            else:
                results[index] = value
                del waiting[connection]
    return [results.get(index) for index in range(len(handles))]


def _messages(worker: Worker, method: str, arguments: tuple[Any, ...]) -> Iterator[tuple[str, Any]]:
    """A call as a stream of events with the result last."""
    arguments = tuple(item.open() if isinstance(item, BufferRef) else item for item in arguments)
    if method == "train_round":
        for item in worker.train_round(*arguments):
            yield ("result" if isinstance(item, PartialSum) else "event"), item
        return
    member = getattr(worker, method)
    yield "result", (member(*arguments) if callable(member) else member)


def _serve(connection: Connection, course: Course, base: Any, backend: str, threads: int) -> None:
    """Body of a worker process."""
    worker: Worker | None = None
    buffer = SharedBuffer()
    try:
        while (call := receive(connection)) is not None:
            try:
                worker = worker or Worker(course.with_base(base), backend, threads)
                _answer(connection, buffer, _messages(worker, *call))
            except XbflError as error:
                send(connection, ("refused", error))
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
                send(connection, ("refused", kind(text, hint=hint)))
            except BaseException:  # noqa: BLE001  whatever a user's model raises goes to the console as it is
                send(connection, ("raised", traceback.format_exc()))
    finally:
        buffer.close()


def _answer(connection: Connection, buffer: SharedBuffer, messages: Iterator[tuple[str, Any]]) -> None:
    """Send messages; events that come within a moment travel together."""
    events: list[Any] = []
    sent = time.monotonic()
    for kind, value in messages:
        if kind == "event":
            events.append(value)
        if events and (kind != "event" or time.monotonic() - sent > _MOMENT_S):
            send(connection, ("events", events))
            events, sent = [], time.monotonic()
        if kind != "event":
            send(connection, (kind, buffer.write(value) if isinstance(value, PartialSum) else value))


@contextmanager
def _ignored_interrupts() -> Iterator[None]:
    """A process started inside inherits that Ctrl-C is ignored: it belongs to the parent."""
    if threading.current_thread() is not threading.main_thread():
        yield  # only the main thread may change handlers
        return
    before = signal.signal(signal.SIGINT, signal.SIG_IGN)
    try:
        yield
    finally:
        signal.signal(signal.SIGINT, before)


@contextmanager
def _worker_environment(threads: int, gpu: str) -> Iterator[None]:
    """Environment that must be set before a framework is imported; a spawned process inherits it."""
    wanted = {
        "OMP_NUM_THREADS": str(threads),
        "OMP_WAIT_POLICY": "PASSIVE",
        # To every framework its GPU is the only one, and none is there for a course on processors.
        "CUDA_VISIBLE_DEVICES": gpu,
    }
    before = {name: os.environ.get(name) for name in wanted}
    os.environ.update(wanted)
    try:
        yield
    finally:
        for name, value in before.items():
            if value is None:
                del os.environ[name]
            else:
                os.environ[name] = value
