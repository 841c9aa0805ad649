"""Messages between processes of one machine: objects by pipe, their arrays by shared memory.

A pipe copies every array four times. Here the sender copies it once, into a file in memory, and the receiver's arrays are that file
(pickle protocol 5, PEP 574). Both ends are processes of this program; nothing of it leaves the machine.

What is sent every round goes through a shared buffer: a file that stays. New pages cost more than the copy (26 MB: 17 ms instead of 3), and several
workers read the same weights.
"""

from __future__ import annotations

import functools
import mmap
import os
import pickle
import tempfile
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from multiprocessing.connection import Connection
from pathlib import Path
from typing import Any, final

import numpy as np

_LARGE = 1 << 20
"""Bytes of arrays from which a file is worth it."""

_MEMORY = Path("/dev/shm")  # noqa: S108  a file system in memory, not a place for temporary files
_ALIGNMENT = 64
_PIECE = 1 << 21
"""Bytes that one thread copies at a time."""

_mapped: dict[str, mmap.mmap] = {}
"""Buffers of other processes that this one reads."""


@dataclass(frozen=True)
class BufferRef:
    """A message in a shared buffer; its arrays are readable until the buffer is used again.

    Attributes:
        buffer: Path of the buffer's file; empty if all of the message is in ``content``.
        places: Start and length of every array.
        content: The rest.
    """

    buffer: str
    places: tuple[tuple[int, int], ...]
    content: bytes

    def read(self) -> Any:
        """The message."""
        if not self.buffer:
            return pickle.loads(self.content)  # noqa: S301  from our own process
        if self.buffer not in _mapped:
            for gone in [path for path in _mapped if not Path(path).exists()]:
                del _mapped[gone]
            with Path(self.buffer).open("r+b") as file:
                _mapped[self.buffer] = mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ)
        view = memoryview(_mapped[self.buffer])
        parts = [view[start : start + length] for start, length in self.places]
        return pickle.loads(self.content, buffers=parts)  # noqa: S301


@final
class SharedBuffer:
    """Memory for the messages of one sender, one at a time."""

    def __init__(self) -> None:
        self._path: Path | None = None
        self._memory: mmap.mmap | None = None

    def write(self, message: Any) -> BufferRef:
        """Put a message into the buffer, where the last one is overwritten."""
        content, views = _parts(message)
        places, size = _places(views)
        if size < _LARGE or not _MEMORY.is_dir():
            return BufferRef("", (), pickle.dumps(message, protocol=5))
        if self._memory is None or len(self._memory) < size:
            self.close()
            self._path, self._memory = _new(size)
        _copy(views, places, self._memory)
        return BufferRef(str(self._path), places, content)

    def close(self) -> None:
        """Remove the file; who reads it can go on reading."""
        if self._path is not None:
            self._path.unlink(missing_ok=True)
        self._path = self._memory = None


@final
class SharedValues:
    """What several workers are called with: written once, however many calls carry it.

    A value that was not shared is sent by value, to every worker anew.
    """

    def __init__(self) -> None:
        self._slots: list[_Slot] = []

    def publish(self, *values: Any) -> None:
        """Let calls carry these values; the first takes the place of the first of before, and so on.

        Args:
            values: Nothing in them may change, and no worker may still read those whose places they take.
        """
        self._slots += [_Slot() for _ in values[len(self._slots) :]]
        for slot, value in zip(self._slots, values, strict=False):
            if slot.value is not value:
                slot.value, slot.ref = value, None

    def refs(self, arguments: tuple[Any, ...]) -> tuple[Any, ...]:
        """Arguments of a call, as they are sent: where those lie that are shared."""
        return tuple(
            next((slot.write() for slot in self._slots if slot.value is argument), argument)
            for argument in arguments
        )

    def close(self) -> None:
        """Remove the memory; who reads it can go on reading."""
        for slot in self._slots:
            slot.buffer.close()


@dataclass
class _Slot:
    """A place for a shared value."""

    buffer: SharedBuffer = field(default_factory=SharedBuffer)
    value: Any = None
    ref: BufferRef | None = None

    def write(self) -> BufferRef:
        """Where the value lies; it is written when the first call needs that."""
        self.ref = self.ref or self.buffer.write(self.value)
        return self.ref


def send(connection: Connection, message: Any) -> None:
    """Send a message; its arrays must not change until it is received.

    Raises:
        OSError: The other side is gone.
    """
    content, views = _parts(message)
    places, size = _places(views)
    if size < _LARGE or not _MEMORY.is_dir():
        connection.send((None, (), pickle.dumps(message, protocol=5)))
        return
    path, memory = _new(size)
    with memory:
        _copy(views, places, memory)
    try:
        connection.send((str(path), places, content))
    except OSError:
        path.unlink(missing_ok=True)
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


def _copy(views: list[memoryview], places: tuple[tuple[int, int], ...], memory: mmap.mmap) -> None:
    """Arrays to their places, large ones by several threads: one alone is far from the speed of memory."""
    into = np.frombuffer(memory, np.uint8)
    moves = [
        (
            into[start + first : start + min(first + _PIECE, length)],
            np.frombuffer(view, np.uint8)[first : first + _PIECE],
        )
        for view, (start, length) in zip(views, places, strict=True)
        for first in range(0, length, _PIECE)
    ]
    list(_threads().map(lambda move: np.copyto(*move), moves))


@functools.cache
def _threads() -> ThreadPoolExecutor:
    return ThreadPoolExecutor(min(4, os.cpu_count() or 1), "xbfl-shared")


def _parts(message: Any) -> tuple[bytes, list[memoryview]]:
    buffers: list[pickle.PickleBuffer] = []
    content = pickle.dumps(message, protocol=5, buffer_callback=buffers.append)
    return content, [buffer.raw() for buffer in buffers]


def _places(views: list[memoryview]) -> tuple[tuple[tuple[int, int], ...], int]:
    """Where every array begins, and how much all of them need."""
    places, end = [], 0
    for view in views:
        places.append((end, len(view)))
        end += len(view) + -len(view) % _ALIGNMENT
    return tuple(places), end


def _new(size: int) -> tuple[Path, mmap.mmap]:
    """A file in memory."""
    descriptor, path = tempfile.mkstemp(prefix="xbfl-", dir=_MEMORY)
    try:
        os.ftruncate(descriptor, size)
        return Path(path), mmap.mmap(descriptor, size)
    finally:
        os.close(descriptor)
