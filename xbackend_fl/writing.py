"""Files and folders that are new, whole, or not there."""

from __future__ import annotations

import errno
import os
import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from xbackend_fl.errors import FileError
from xbackend_fl.text import line


def check_new(path: Path, hint: str, what: str = "") -> None:
    """Raise if something lies at ``path``, a link that leads nowhere too.

    Args:
        path: A file or folder that is to be made.
        hint: What to do if it is there.
        what: What it is, before the path in the message.

    Raises:
        FileError: It is there, or cannot be looked at.
    """
    with explain_unwritable(path):
        # A folder without rights is no answer: Python 3.11 says that nothing is there.
        taken = path.exists() or path.is_symlink()
    if taken:
        raise FileError(line(f"{what} {path} exists".strip()), hint=hint)


@contextmanager
def atomic_write(path: Path) -> Iterator[Path]:
    """A place beside ``path`` to write a file or folder to; it is synced and renamed at the end, or removed."""
    partial_path = path.with_name(f".{path.name}.{os.getpid()}.partial")
    # A process of this number may have been killed here: in a container they all have the same.
    _remove(partial_path)
    try:
        yield partial_path
        written = [partial_path, *(partial_path.rglob("*") if partial_path.is_dir() else ())]
        for item in written:
            _sync(item)
        partial_path.replace(path)
        _sync(path.parent)
    finally:
        _remove(partial_path)


def _remove(path: Path) -> None:
    if path.is_dir():
        shutil.rmtree(path)
    else:
        path.unlink(missing_ok=True)


def _sync(path: Path) -> None:
    descriptor = os.open(path, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


@contextmanager
def explain_unwritable(folder: Path) -> Iterator[None]:
    """What the system says of a folder that cannot be written, in one line.

    Raises:
        FileError: It said something; a full disk stays its cause.
    """
    try:
        yield
    except OSError as error:
        # What is renamed has two names, and the second one is in the way.
        refuse_folder(Path(error.filename2 or error.filename or folder), error)
        where = "" if error.filename in {None, str(folder)} else f" ({error.filename})"
        raise FileError(line(f"{folder} cannot be written: {error.strerror or error}{where}")) from error


def refuse_folder(place: Path, error: OSError) -> None:
    """Say that a folder is in the way of a file, if that is what the system says.

    Raises:
        FileError: It is.
    """
    if error.errno == errno.EISDIR:
        raise FileError(
            line(f"{place} is a folder, and a file belongs there"),
            hint=line(f"move it away: mv {place} {place}.moved"),
        ) from error
