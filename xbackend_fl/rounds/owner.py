"""One owner for a folder that a process writes: a second one is told whose it is."""

from __future__ import annotations

import json
import os
import platform
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from datetime import UTC, datetime
from pathlib import Path

from filelock import FileLock, Timeout

from xbackend_fl.errors import FileError
from xbackend_fl.text import line
from xbackend_fl.writing import explain_unwritable, refuse_folder, write_text

LEAVING_S = 10.0
"""How long a process takes to leave whose starter was killed."""
_SLOWLY_S = 120.0
"""The same on a machine that is ten times slower, where it is known that the starter is gone."""
_LOCK, _OWNER = "owner.lock", "owner.json"


@contextmanager
def owned(folder: Path, patience_s: float = 0.0, starter: int = 0) -> Iterator[None]:
    """Own a folder that exists until the block ends, or the process does, however it ends.

    Args:
        folder: A run's, or a silo's.
        patience_s: How long the process before may take to leave; it has more time if its starter is gone, since it is leaving then.
        starter: Process without which the owner leaves; 0 if it stays by itself.

    Raises:
        FileError: Another process owns the folder, nothing can be written there, or a link lies in it.
    """
    lock = FileLock(folder / _LOCK)
    try:
        _acquire(lock, folder, patience_s)
    except Timeout as error:
        raise FileError(
            f"{folder} is in use by {_owner(folder)}",
            hint="wait until it ends, or end it; what a process that has ended left behind is no obstacle",
        ) from error
    except OSError as error:
        refuse_folder(folder / _LOCK, error)
        raise FileError(f"nothing can be written in {folder}: {error.strerror}") from error
    try:
        _refuse_links(folder)
        with explain_unwritable(folder):
            _sign(folder, starter)
        yield
    finally:
        lock.release()


def _refuse_links(folder: Path) -> None:
    """What is written through a link changes a file outside, and what is read through one may be anybody's."""
    for path in folder.rglob("*"):
        if path.is_symlink():
            raise FileError(
                line(
                    f"{path} is a link to {path.readlink()}; the files of {folder} are written, and must lie there"
                ),
                hint=line(f"take the link away: rm {path}; a link to the whole folder is no obstacle"),
            )


def _acquire(lock: FileLock, folder: Path, patience_s: float) -> None:
    try:
        lock.acquire(timeout=patience_s)
    except Timeout:
        if not patience_s or not _is_leaving(folder):
            raise
        lock.acquire(timeout=_SLOWLY_S)


def _is_leaving(folder: Path) -> bool:
    """Whether the owner was started on this machine by a process that is gone."""
    found = _signed(folder)
    starter = found.get("starter")
    is_here = found.get("host") == platform.node()
    return is_here and isinstance(starter, int) and starter > 0 and not _exists(starter)


def _exists(process: int) -> bool:
    try:
        os.kill(process, 0)
    except PermissionError:
        return True
    except (ProcessLookupError, OverflowError):
        return False
    return True


def _sign(folder: Path, starter: int) -> None:
    found = {
        "pid": os.getpid(),
        "starter": starter,
        "host": platform.node(),
        "since": datetime.now(UTC).isoformat(timespec="seconds"),
    }
    write_text(folder / _OWNER, json.dumps(found))


def _owner(folder: Path) -> str:
    try:
        return line("process {pid} of {host} since {since}".format_map(_signed(folder)))
    except KeyError:
        return "another process"


def _signed(folder: Path) -> Mapping[str, object]:
    """What the owner says of itself; nothing if that cannot be read."""
    try:
        found = json.loads((folder / _OWNER).read_text(encoding="utf-8"))
    except (OSError, ValueError, RecursionError):
        return {}
    return found if isinstance(found, dict) else {}
