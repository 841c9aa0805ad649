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
from pathlib import Path
from typing import Any, final

from xbackend_fl.errors import FileError
from xbackend_fl.weights.formats.limits import MAX_HEADER, declared_limit
from xbackend_fl.weights.formats.source import Source
from xbackend_fl.weights.formats.strict_json import parse

_PROGRAM = Path(__file__).with_name("hdf5_child.py")
_SECONDS = 1.0
_BYTES_PER_SECOND = 20 << 20
_PATIENCE = 30.0
"""Seconds to wait for an answer. Processor time is limited in the child; this is for a machine that is stuck."""


@final
class Reply:
    """One file in a process of its own.

    Attributes:
        header: What the process says about the file.
    """

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
        (length,) = struct.unpack("<Q", self._receive(8))
        if length > MAX_HEADER:
            source.refuse("header-too-large", f"its description has {length} bytes", limit=MAX_HEADER)
        self.header: dict[str, Any] = parse(source, bytes(self._receive(length)), "the parser's answer")

    def __del__(self) -> None:
        self._connection.close()

    def data(self, index: int, length: int) -> memoryview:
        """The bytes of one dataset."""
        with self._lock:
            try:
                self._connection.sendall(struct.pack("<L", index))
            except OSError:
                self._stopped()
            return self._receive(length)

    def _receive(self, length: int) -> memoryview:
        content = memoryview(bytearray(length))
        at = 0
        while at < length:
            try:
                count = self._connection.recv_into(content[at:])
            except OSError:
                count = 0
            if not count:
                self._stopped()
            at += count
        return content

    def _stopped(self) -> None:
        self._source.refuse(
            "parser-stopped", "its parser ended: it crashed, or asked for more than it is allowed"
        )


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
