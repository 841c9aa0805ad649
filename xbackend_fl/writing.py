"""Files and folders that are new, whole, or not there."""

from __future__ import annotations

import errno
import fcntl
import os
import re
import secrets
import shutil
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

from xbackend_fl.errors import FileError, XbflError
from xbackend_fl.text import line

_ENDING = ".xbfl.partial"
_LEFT = re.compile(rf"\..*\.[0-9a-f]{{8}}{re.escape(_ENDING)}", re.DOTALL)
"""What :func:`place_beside` calls a place; no other program's."""

_OF_DISK = {errno.ENOSPC, errno.EDQUOT, errno.EFBIG, errno.EIO}


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
    """A place beside ``path`` to write a file or folder to; it is synced and renamed at the end, or removed.

    Where ``path`` is a link, what it leads to is written. What a process that was killed left in this folder is removed first (:func:`place_beside`).

    Raises:
        OSError: What the system said, with the name of the file that was to be made.
    """
    path = followed(path)
    with place_beside(path) as partial_path, naming_file(path, partial_path):
        yield partial_path
        written = [partial_path, *(partial_path.rglob("*") if partial_path.is_dir() else ())]
        for item in written:
            _sync(item)
        partial_path.replace(path)
        _sync(path.parent)


def write_text(path: Path, text: str) -> None:
    """Write a file of text in UTF-8, which is new, whole, or not there.

    Raises:
        OSError: What the system said, with the name of the file.
    """
    with atomic_write(path) as partial_path:
        partial_path.write_text(text, encoding="utf-8")


@contextmanager
def naming_file(path: Path, partial_path: Path | None = None) -> Iterator[None]:
    """Have what the system says name a file that people know.

    It names none when something is written into a file that is open, as when the disk is full.

    Args:
        path: The file or folder that is written.
        partial_path: Where it is written meanwhile.
    """
    try:
        yield
    except OSError as error:
        if error.filename is None and is_of_disk(error):
            error.filename = str(path)
        elif partial_path is not None and isinstance(error.filename, str | Path):
            named = Path(error.filename)
            if partial_path in (named, *named.parents):
                error.filename = str(path / named.relative_to(partial_path))
        raise


def is_of_disk(error: OSError) -> bool:
    """Whether a disk is full, broken or at its limit: no fault of what was asked for."""
    return error.errno in _OF_DISK


@contextmanager
def as_the_system_says(path: Path) -> Iterator[None]:
    """What the system says to writing beside a file, for what a framework raises instead.

    Raises:
        OSError: The system says something; else what was raised stays.
    """
    try:
        yield
    except (OSError, XbflError):
        raise
    except Exception as error:
        if (cause := in_the_way(path)) is not None:
            raise cause from error
        raise


def in_the_way(path: Path) -> OSError | None:
    """What the system says to writing beside a file: frameworks keep it for themselves."""
    try:
        with tempfile.NamedTemporaryFile(dir=path.parent, prefix=f".{path.name}-") as file:
            file.write(bytes(1 << 20))
            file.flush()
        for place in path.parent.glob(f"{path.name}.*"):
            with place.open("ab"):
                pass
    except OSError as error:
        return error
    return None


def followed(path: Path) -> Path:
    """The file or folder that a link leads to, through further links; ``path`` itself if it is none."""
    # A link that leads to itself stays what it is.
    return Path(os.path.realpath(path)) if path.is_symlink() else path


@contextmanager
def place_beside(path: Path) -> Iterator[Path]:
    """A new place beside ``path`` for a file or folder, which is removed at the end if it is still there.

    Whoever has such a place holds a shared lock of the folder, which ends with the process however it ends. Who gets the folder alone knows that
    nobody writes there, and removes what others have left. On file systems that lock no folders nothing is removed: a process on another machine
    may be writing.
    """
    with _locked(path.parent):
        partial_path = path.with_name(f".{path.name}.{secrets.token_hex(4)}{_ENDING}")
        try:
            yield partial_path
        finally:
            _remove(partial_path)


@contextmanager
def _locked(folder: Path) -> Iterator[None]:
    try:
        descriptor = os.open(folder, os.O_RDONLY | os.O_DIRECTORY)
    except OSError:
        # Who writes there will say what is wrong.
        yield
        return
    try:
        with suppress(OSError):
            fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
            _remove_left(folder)
        with suppress(OSError):
            fcntl.flock(descriptor, fcntl.LOCK_SH)
        yield
    finally:
        # A process that was forked meanwhile has the lock too, and keeps it unless it is given back here.
        with suppress(OSError):
            fcntl.flock(descriptor, fcntl.LOCK_UN)
        os.close(descriptor)


def _remove_left(folder: Path) -> None:
    for path in folder.iterdir():
        if _LEFT.fullmatch(path.name):
            # Another user's stays.
            with suppress(OSError):
                _remove(path)


def _remove(path: Path) -> None:
    if path.is_dir() and not path.is_symlink():
        shutil.rmtree(path)
    else:
        # Where a file is in the place of the folder, nothing is in it; whoever wanted to write there says so.
        with suppress(NotADirectoryError):
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
