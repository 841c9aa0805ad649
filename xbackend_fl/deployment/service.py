"""A silo that stays: it holds framework and model, and short-lived processes bring it messages over a socket of this machine.

Flower starts a new process for every message, which would import the framework and build the model each time. That process only carries
a frame here and the answer back, which is why this module imports nothing of the project.
"""

from __future__ import annotations

import logging
import socket
import struct
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from xbackend_fl.deployment.silo import Silo

_LOG = logging.getLogger("xbfl")
_LONGEST = (1 << 31) - 1
"""Bytes of a frame at most: what Flower carries."""


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
                connection, _ = listener.accept()
                with connection:
                    _answer(silo, connection)
        finally:
            path.unlink(missing_ok=True)


def _answer(silo: Silo, connection: socket.socket) -> None:
    try:
        frame = receive(connection)
        if not frame:
            return
        send(connection, silo.reply(frame))
    except (EOFError, OSError) as error:
        # The other process is gone; the server will ask again, or go on without this answer.
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


def ask(path: Path, frame: bytes | memoryview) -> bytes:
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


def receive(connection: socket.socket) -> bytes:
    """A frame, into memory of its size: pieces that are put together later would be a second one.

    Raises:
        OSError: It is longer than any frame.
        EOFError: The other side went away.
    """
    (length,) = struct.unpack("<Q", _exactly(connection, 8))
    if length > _LONGEST:
        raise OSError(f"a frame of {length:,} bytes, and none has more than {_LONGEST:,}")
    return _exactly(connection, length)


def _exactly(connection: socket.socket, count: int) -> bytes:
    parts = []
    while count:
        # All at once, unless a signal comes in between.
        part = connection.recv(count, socket.MSG_WAITALL)
        if not part:
            raise EOFError("the other side went away")
        parts.append(part)
        count -= len(part)
    return parts[0] if len(parts) == 1 else b"".join(parts)
