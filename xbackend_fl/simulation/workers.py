"""Where a worker lives: in a process of its own, or in this one. Both answer the same calls."""

from __future__ import annotations

import multiprocessing
import os
import signal
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from functools import partial
from pathlib import Path
from typing import Any, Concatenate, ParamSpec, TypeVar, final

from xbackend_fl.course import Course
from xbackend_fl.errors import WorkerDied
from xbackend_fl.events import Event, Observer
from xbackend_fl.participant import MappedFile, Worker
from xbackend_fl.simulation.calls import Answer, Pending
from xbackend_fl.simulation.shared_memory import BufferRef, SharedValues, receive, send
from xbackend_fl.simulation.worker_process import Answered, EventBatch, Opened, Raised, Refused, Said, serve

P = ParamSpec("P")
T = TypeVar("T")
_JOIN_S = 2.0


@final
class LocalWorker:
    """A worker in this process, for debugging and for tests."""

    def __init__(self, course: Course, backend: str, threads: int, gpu: str, shared: SharedValues) -> None:
        del gpu, shared  # the process sees what it sees, and has every value already
        self.backend = backend
        self._make = partial(Worker, course, backend, threads, observer=self._emit)
        self._worker: Worker | None = None
        self._observer: Observer = lambda _: None

    def submit(
        self, method: Callable[Concatenate[Worker, P], T], *arguments: P.args, **named: P.kwargs
    ) -> Pending[T]:
        """Remember the call; it runs when it is settled."""

        def receive(observer: Observer) -> Answer[T]:
            self._observer = observer
            self._worker = self._worker or self._make()
            return Answer(method(self._worker, *arguments, **named))

        return Pending(receive)

    def close(self) -> None:
        """Nothing to end."""

    def _emit(self, event: Event) -> None:
        self._observer(event)


@final
class ProcessWorker:
    """A worker in a spawned process of its own (a forked one would hang in the frameworks' thread pools)."""

    def __init__(self, course: Course, backend: str, threads: int, gpu: str, shared: SharedValues) -> None:
        self.backend, self._gpu = backend, gpu
        context = multiprocessing.get_context("spawn")
        self._connection, theirs = context.Pipe()
        self._shared, self._buffer = shared, ""
        self._mapped: tuple[MappedFile, ...] = ()
        self._process = context.Process(
            target=serve, args=(theirs, course, backend, threads), name=f"xbfl-{backend}", daemon=True
        )
        with _worker_environment(threads, gpu), _ignored_interrupts():
            self._process.start()
        theirs.close()

    def submit(
        self, method: Callable[Concatenate[Worker, P], T], *arguments: P.args, **named: P.kwargs
    ) -> Pending[T]:
        """Send the call; of what workers share, where it lies.

        Raises:
            WorkerDied: The process ended.
        """
        try:
            send(self._connection, (method, self._shared.refs(arguments), named))
        except OSError as error:
            raise self._death() from error
        return Pending(self._receive, self._connection)

    def close(self) -> None:
        """Ask the process to end, then make it."""
        with suppress(OSError):
            send(self._connection, None)
        self._process.join(_JOIN_S)
        if self._process.is_alive():
            self._process.kill()
            self._process.join()
        self._connection.close()
        if self._buffer:
            Path(self._buffer).unlink(missing_ok=True)

    def _receive(self, observer: Observer) -> Answer[Any] | None:
        """What the process says next.

        Raises:
            WorkerDied: The process ended, or the worker raised something unforeseen.
            XbflError: The worker refused.
        """
        try:
            said: Said = receive(self._connection)
        except (EOFError, OSError) as error:
            raise self._death() from error
        match said:
            case EventBatch(events):
                for event in events:
                    observer(event)
                return None
            case Opened(mapped):
                self._mapped = mapped
                return None
            case Answered(BufferRef() as ref):
                self._buffer = ref.buffer
                return Answer(ref.read())
            case Answered(value):
                return Answer(value)
            case Refused(refusal):
                raise refusal
            case Raised(text):
                raise WorkerDied(f"the {self.backend} worker raised\n\n{text}")

    def _death(self) -> WorkerDied:
        """The error for a process that ended by itself."""
        self._process.join(_JOIN_S)
        code = self._process.exitcode
        how = signal.Signals(-code).name if code is not None and code < 0 else f"exit code {code}"
        gpu = f", GPU {self._gpu}" if self._gpu else ""
        what = f"the {self.backend} worker (process {self._process.pid}{gpu}) ended with {how}"
        if code == -signal.SIGBUS:
            cut = "; ".join(file.cut for file in self._mapped if file.cut)
            return WorkerDied(
                f"{what}: {cut or 'a file that it had mapped was cut while it was read, or its disk has an error'}",
                hint="write a file anew beside the old one, and rename it over that; the checkpoint of the last round stays: --resume",
            )
        return WorkerDied(
            what,
            hint="out of memory, or killed from outside; the checkpoint of the last round stays: --resume",
        )


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
