"""A silo that stays: it holds framework and model, and short-lived processes bring it messages over a socket of this machine.

Flower starts a new process for every message, which would import the framework and build the model each time. That process only carries
a frame here and the answer back, which is why this module imports nothing of the project.
"""

from __future__ import annotations

import logging
import mmap
import socket
import struct
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

from xbackend_fl.deadline import Deadline
from xbackend_fl.federation.silo.silo import Silo

_LOG = logging.getLogger("xbfl")
_LONGEST = (1 << 31) - 1
"""Bytes of a frame at most: what Flower carries."""

_PATIENCE_S = 60.0
"""Seconds for a request to begin, and between two pieces of it: one is answered at a time, and who is silent holds up the others."""
_SLOWEST = 1 << 20
"""Bytes a second that a request must have come at; the socket is of this machine."""
_FULL_S = 0.2
_JOIN_S = 2.0
_SMALL = 1 << 20


def serve(silo: Silo, path: Path, should_stop: Callable[[], bool]) -> None:
    """Answer messages until told to stop; one at a time, as the model can.

    Args:
        silo: Answers.
        path: A path for the socket that nobody uses, in a folder that only this user may enter.
        should_stop: Asked after every message; :func:`wake` sends an empty one.
    """
    with socket.socket(socket.AF_UNIX) as listener:
        listener.bind(str(path))
        try:
            listener.listen()
            while not should_stop():
                try:
                    connection, _ = listener.accept()
                except OSError as error:
                    # No descriptor is free, or whoever came has gone.
                    _LOG.warning("%s: a message could not be taken: %s", silo.name, error)
                    time.sleep(_FULL_S)
                    continue
                with connection:
                    _answer(silo, connection)
        finally:
            path.unlink(missing_ok=True)


@contextmanager
def serving(silo: Silo, path: Path) -> Iterator[Path]:
    """A silo's service in a thread, until the block ends."""
    stop = threading.Event()
    thread = threading.Thread(target=serve, args=(silo, path, stop.is_set), name="xbfl-silo")
    thread.daemon = True
    thread.start()
    try:
        yield path
    finally:
        stop.set()
        with suppress(OSError):
            wake(path)
        # It removes its socket; a model in the middle of an epoch is not waited for.
        thread.join(_JOIN_S)


def _answer(silo: Silo, connection: socket.socket) -> None:
    try:
        connection.settimeout(_PATIENCE_S)
        frame = receive(connection, patience_s=_PATIENCE_S)
        if not frame:
            return
        answer = silo.reply(frame)
        # All of it, as a whole.
        connection.settimeout(_PATIENCE_S + len(answer) / _SLOWEST)
        send(connection, answer)
    except (EOFError, OSError, MemoryError) as error:
        # The other process is gone, or none of ours; the server will ask again, or go on without this answer.
        _LOG.warning("%s: a message was cut off: %s", silo.name, error)


def connect(path: Path) -> socket.socket:
    """A connection to the silo of this machine.

    Raises:
        OSError: It is not there.
    """
    connection = socket.socket(socket.AF_UNIX)
    try:
        connection.connect(str(path))
    except OSError:
        connection.close()
        raise
    return connection


def ask(path: Path, frame: bytes | memoryview) -> memoryview:
    """Bring a frame to the silo of this machine, and its answer back.

    Raises:
        OSError: It is not there.
        EOFError: It went away.
    """
    with connect(path) as connection:
        send(connection, frame)
        return receive(connection)


def wake(path: Path) -> None:
    """Let :func:`serve` ask whether it should stop."""
    with connect(path) as connection:
        send(connection, b"")


def send(connection: socket.socket, frame: bytes | memoryview) -> None:
    """A frame behind its length, eight bytes."""
    connection.sendall(struct.pack("<Q", len(frame)))
    if frame:
        connection.sendall(frame)


def receive(connection: socket.socket, patience_s: float | None = None) -> memoryview:
    """A frame, into memory of its size: pieces that are put together later would be a second one.

    Args:
        connection: Where it comes from.
        patience_s: Seconds for its beginning, and as many and a second a MiB for the rest; any number if left out.

    Raises:
        OSError: It is longer than any frame, or comes too slowly.
        EOFError: The other side went away.
    """
    deadline = None if patience_s is None else Deadline.within(patience_s)
    (length,) = struct.unpack("<Q", _exactly(connection, 8, deadline))
    if length > _LONGEST:
        raise OSError(f"a frame of {length:,} bytes, and none has more than {_LONGEST:,}")
    if deadline is not None:
        deadline = deadline.later(length / _SLOWEST)
    return _exactly(connection, length, deadline)


def _exactly(connection: socket.socket, count: int, deadline: Deadline | None) -> memoryview:
    # Of a mapping, pages that nobody sends anything for are not there.
    frame = memoryview(mmap.mmap(-1, count) if count > _SMALL else bytearray(count))
    at = 0
    while at < count:
        if deadline is not None and deadline.passed:
            raise TimeoutError(f"{at:,} of {count:,} bytes came in time")
        read = connection.recv_into(frame[at:])
        if not read:
            raise EOFError("the other side went away")
        at += read
    return frame.toreadonly()
