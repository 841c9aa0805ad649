"""Speaks to the confined process that parses HDF5; trusts nothing that it answers."""

from __future__ import annotations

import atexit
import json
import os
import socket
import struct
import subprocess
import sys
import threading
import zlib
from pathlib import Path
from typing import Any, NoReturn, final

from xbackend_fl.errors import FileError
from xbackend_fl.formats.limits import MAX_HEADER, declared_limit
from xbackend_fl.formats.source import Source, shown
from xbackend_fl.formats.strict_json import parse
from xbackend_fl.text import line

_PROGRAM = Path(__file__).with_name("hdf5_child.py")
_FRAME = struct.Struct("<cLQL")
_ANSWER, _DATA = b"A", b"D"
_CODES = frozenset(
    {
        "bad-hdf5",
        "dtype",
        "expansion",
        "hdf5-external",
        "hdf5-filter",
        "hdf5-links",
        "parser-stopped",
        "size-mismatch",
        "too-many-tensors",
    }
)
"""What the parser may refuse a file for."""
_SECONDS = 1.0
_BYTES_PER_SECOND = 20 << 20
_PATIENCE = 30.0
_MESSAGE = 300
"""Seconds to wait for an answer. Processor time is limited in the child; this is for a machine that is stuck."""


@final
class Reply:
    """One file in a process of its own.

    Attributes:
        header: What the process says about the file.
    """

    header: dict[str, Any]

    def __init__(self, source: Source) -> None:
        assert source.file is not None
        self._source = source
        self._lock = threading.Lock()
        ours, theirs = socket.socketpair()
        self._connection = ours
        ours.settimeout(_PATIENCE)
        request = {
            "start": source.start,
            "size": source.size,
            "declared": declared_limit(source.size),
            "seconds": _SECONDS + source.size / _BYTES_PER_SECOND,
        }
        with theirs:
            _send(json.dumps(request).encode(), [source.file.fd, theirs.fileno()])
        self.header = self._answer(*self._frame())

    def __del__(self) -> None:
        self._connection.close()

    def data(self, index: int, length: int) -> memoryview:
        """The bytes of one dataset.

        Raises:
            FormatRefused: The parser refused the dataset, ended, or answered something else.
        """
        content = memoryview(bytearray(length))
        with self._lock:
            if not length:
                return content
            try:
                self._connection.sendall(struct.pack("<L", index))
            except OSError:
                self._stopped()
            at = 0
            while at < length:
                kind, about, size, checksum = self._frame()
                if kind == _ANSWER:
                    self.refuse(self._answer(kind, about, size, checksum))
                if kind != _DATA or about != index or size > length - at:
                    self._stopped("it sent what nobody asked for")
                self._receive(content[at : at + size], checksum)
                at += size
        return content

    def refuse(self, answer: dict[str, Any]) -> NoReturn:
        """Pass on a refusal of the parser's."""
        code, message = str(answer.get("code")), line(answer.get("message"), _MESSAGE)
        if code not in _CODES:
            self._stopped(f"it refused the file as {shown(code)}, which is no reason")
        self._source.refuse(code, message)

    def _answer(self, kind: bytes, about: int, length: int, checksum: int) -> dict[str, Any]:
        """What the process says, where that is expected."""
        if kind != _ANSWER or about != 0:
            self._stopped("it sent what nobody asked for")
        if length > MAX_HEADER:
            self._source.refuse("header-too-large", f"its description has {length} bytes", limit=MAX_HEADER)
        content = memoryview(bytearray(length))
        self._receive(content, checksum)
        return parse(self._source, bytes(content), "the parser's answer")

    def _frame(self) -> tuple[bytes, int, int, int]:
        """Kind, dataset, length and CRC-32 of what comes next."""
        head = memoryview(bytearray(_FRAME.size))
        self._fill(head)
        kind, index, length, checksum = _FRAME.unpack(head)
        return kind, index, length, checksum

    def _receive(self, content: memoryview, checksum: int) -> None:
        self._fill(content)
        if zlib.crc32(content) != checksum:
            self._stopped("what it sent does not match its checksum")

    def _fill(self, content: memoryview) -> None:
        at = 0
        while at < len(content):
            try:
                count = self._connection.recv_into(content[at:])
            except OSError:
                count = 0
            if not count:
                self._stopped()
            at += count

    def _stopped(self, why: str = "it crashed, or asked for more than it is allowed") -> NoReturn:
        # What comes later could be the rest of this answer.
        self._connection.close()
        self._source.refuse("parser-stopped", f"its parser ended: {why}")


class _Server:
    """The process that forks a child per file; started on first use, once."""

    lock = threading.Lock()
    control: socket.socket | None = None
    owner = 0


def _send(message: bytes, descriptors: list[int]) -> None:
    with _Server.lock:
        for attempt in (1, 2):
            # A fork of this process must not share the server with it.
            if _Server.control is None or _Server.owner != os.getpid():
                _Server.control, _Server.owner = _start(), os.getpid()
            try:
                socket.send_fds(_Server.control, [message], descriptors)
            except OSError as error:
                _Server.control = None
                if attempt == 2:
                    raise FileError("cannot start the process that parses HDF5 files") from error
            else:
                return


def _start() -> socket.socket:
    ours, theirs = socket.socketpair()
    environment = {
        **os.environ,
        "HDF5_PLUGIN_PATH": "::",
        "HDF5_USE_FILE_LOCKING": "FALSE",
        "OPENBLAS_NUM_THREADS": "1",
        "OMP_NUM_THREADS": "1",
    }
    with theirs:
        process = subprocess.Popen(  # noqa: S603  our own program
            [sys.executable, "-P", str(_PROGRAM)],
            stdin=theirs.fileno(),
            stdout=subprocess.DEVNULL,
            stderr=subprocess.DEVNULL,
            cwd="/",
            env=environment,
        )
    atexit.register(_stop, ours, process)
    return ours


def _stop(control: socket.socket, process: subprocess.Popen[bytes]) -> None:
    control.close()
    try:
        process.wait(timeout=5)
    except subprocess.TimeoutExpired:
        process.kill()
        process.wait()
