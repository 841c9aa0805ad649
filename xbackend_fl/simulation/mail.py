"""Messages between processes of one machine: objects by pipe, their arrays by shared memory.

A pipe copies every array four times. Here the sender copies it once, into a file in memory, and the receiver's arrays are that file
(pickle protocol 5, PEP 574). Both ends are processes of this program; nothing of it leaves the machine.
"""

from __future__ import annotations

import mmap
import os
import pickle
import tempfile
from multiprocessing.connection import Connection
from pathlib import Path
from typing import Any

_LARGE = 1 << 20
"""Bytes of arrays from which a file is worth it."""

_MEMORY = Path("/dev/shm")  # noqa: S108  a file system in memory, not a place for temporary files
_ALIGNMENT = 64


def send(connection: Connection, message: Any) -> None:
    """Send a message; its arrays must not change until it is received.

    Raises:
        OSError: The other side is gone.
    """
    buffers: list[pickle.PickleBuffer] = []
    content = pickle.dumps(message, protocol=5, buffer_callback=buffers.append)
    views = [buffer.raw() for buffer in buffers]
    if sum(map(len, views)) < _LARGE or not _MEMORY.is_dir():
        connection.send((None, (), pickle.dumps(message, protocol=5)))
        return
    places, end = [], 0
    for view in views:
        places.append((end, len(view)))
        end += len(view) + -len(view) % _ALIGNMENT
    descriptor, path = tempfile.mkstemp(prefix="xbfl-", dir=_MEMORY)
    try:
        os.ftruncate(descriptor, max(end, 1))
        with mmap.mmap(descriptor, max(end, 1)) as shared:
            for view, (start, length) in zip(views, places, strict=True):
                shared[start : start + length] = view
    finally:
        os.close(descriptor)
    try:
        connection.send((path, tuple(places), content))
    except OSError:
        Path(path).unlink(missing_ok=True)
        raise


def receive(connection: Connection) -> Any:
    """The next message; its large arrays are the sender's file, which has no name any more.

    Raises:
        EOFError: The other side is gone.
    """
    path, places, content = connection.recv()
    if path is None:
        return pickle.loads(content)  # noqa: S301  from our own process
    with Path(path).open("r+b") as file:
        # Changes stay in this process.
        shared = mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_COPY)
    Path(path).unlink()
    view = memoryview(shared)
    return pickle.loads(content, buffers=[view[start : start + length] for start, length in places])  # noqa: S301
