"""One owner for a folder that a process writes: a second one is told whose it is."""

from __future__ import annotations

import json
import os
import platform
from collections.abc import Iterator
from contextlib import contextmanager
from datetime import UTC, datetime
from pathlib import Path

from filelock import FileLock, Timeout

from xbackend_fl.errors import FileError
from xbackend_fl.text import line
from xbackend_fl.weights.store import whole_or_absent

LEAVING_S = 10.0
"""How long a process takes to leave whose starter was killed."""
_LOCK, _OWNER = "owner.lock", "owner.json"


@contextmanager
def owned(folder: Path, patience_s: float = 0.0) -> Iterator[None]:
    """Own a folder that exists until the block ends, or the process does, however it ends.

    Args:
        folder: A run's, or a silo's.
        patience_s: How long the process before may take to leave.

    Raises:
        FileError: Another process owns the folder, or nothing can be written there.
    """
    lock = FileLock(folder / _LOCK, timeout=patience_s)
    try:
        lock.acquire()
    except Timeout as error:
        raise FileError(
            f"{folder} is in use by {_owner(folder)}",
            hint="wait until it ends, or end it; what a process that has ended left behind is no obstacle",
        ) from error
    except OSError as error:
        raise FileError(f"nothing can be written in {folder}: {error.strerror}") from error
    try:
        with unwritable_said(folder):
            _sign(folder)
        yield
    finally:
        lock.release()


@contextmanager
def unwritable_said(folder: Path) -> Iterator[None]:
    """What the system says of a folder that cannot be written, in one line.

    Raises:
        FileError: It said something; a full disk stays its cause.
    """
    try:
        yield
    except OSError as error:
        where = "" if error.filename in {None, str(folder)} else f" ({error.filename})"
        raise FileError(line(f"{folder} cannot be written: {error.strerror or error}{where}")) from error


def _sign(folder: Path) -> None:
    found = {
        "pid": os.getpid(),
        "host": platform.node(),
        "since": datetime.now(UTC).isoformat(timespec="seconds"),
    }
    with whole_or_absent(folder / _OWNER) as path:
        path.write_text(json.dumps(found), encoding="utf-8")


def _owner(folder: Path) -> str:
    try:
        found = json.loads((folder / _OWNER).read_text(encoding="utf-8"))
        return line(f"process {found['pid']} of {found['host']} since {found['since']}")
    except (OSError, ValueError, KeyError, TypeError, RecursionError):
        return "another process"
