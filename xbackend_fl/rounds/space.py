"""A full disk is no fault of the course: it is said, and the run goes on when there is space."""

from __future__ import annotations

import errno
import os
import sqlite3
import tempfile
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TypeVar

from xbackend_fl.errors import DiskFull, RunFailed, XbflError
from xbackend_fl.text import line

T = TypeVar("T")

_FULL = {errno.ENOSPC, errno.EDQUOT}
_POLL_S = 2.0
_LEAST = 1 << 20


def lacks_space(error: BaseException | None) -> bool:
    """Whether a full disk, or a quota, is behind an error."""
    while error is not None:
        if isinstance(error, DiskFull) or (isinstance(error, OSError) and error.errno in _FULL):
            return True
        if isinstance(error, sqlite3.OperationalError) and "full" in str(error):
            return True
        error = error.__cause__
    return False


@contextmanager
def explain_full_disk(folder: Path) -> Iterator[None]:
    """Whatever a full disk raises is one error.

    Args:
        folder: The run's, for the message.

    Raises:
        DiskFull: There was no space.
        RunFailed: A file of the run could not be read or written.
    """
    try:
        yield
    except (OSError, sqlite3.OperationalError, XbflError) as error:
        if isinstance(error, DiskFull) or not lacks_space(error):
            if isinstance(error, OSError) and _is_in(folder, error.filename):
                raise RunFailed(
                    line(f"the run {folder} cannot be written: {error.strerror} ({error.filename})"),
                    hint="mend the disk; --resume goes on after the last complete round",
                ) from error
            raise
        hint = "make space; --resume goes on after the last complete round"
        raise DiskFull(f"no space for the run {folder}: {_reason(error)}", hint=hint) from error


def wait_for_space(folder: Path, should_stop: Callable[[], bool] = lambda: False) -> bool:
    """Wait until twice the folder's largest file can be written.

    Args:
        folder: Where something is to be written.
        should_stop: Asked all the time.

    Returns:
        Whether there is space; false if it was asked to stop.
    """
    sizes = [path.stat().st_size for path in folder.rglob("*") if path.is_file()]
    needed = 2 * max(sizes, default=0) + _LEAST
    while not should_stop():
        # First, so that whoever finds space and cannot write all the same does not try all the time.
        time.sleep(_POLL_S)
        try:
            # A quota is no figure of the disk's, so that only trying tells.
            with tempfile.TemporaryFile(dir=folder) as file:
                os.posix_fallocate(file.fileno(), 0, needed)
        except OSError as error:
            if error.errno not in _FULL:
                raise
        else:
            return True
    return False


def retry_until_space(
    write: Callable[[], T],
    folder: Path,
    on_wait: Callable[[str], None],
    should_stop: Callable[[], bool] = lambda: False,
) -> T:
    """What a function that writes returns, as soon as there is space.

    Args:
        write: Leaves nothing behind if it fails.
        folder: Where it writes.
        on_wait: Told why it has to wait, once for each reason.
        should_stop: Asked all the time; true gives up, with what ``write`` raised last.
    """
    said = ""
    while True:
        try:
            return write()
        except (OSError, XbflError) as error:
            if not lacks_space(error):
                raise
            if (reason := _reason(error)) != said:
                on_wait(reason)
                said = reason
            if not wait_for_space(folder, should_stop):
                raise


def _is_in(folder: Path, name: object) -> bool:
    return isinstance(name, str | Path) and folder in (Path(name), *Path(name).parents)


def _reason(error: Exception) -> str:
    return error.message if isinstance(error, XbflError) else str(error)
