"""A file from a stranger, as bytes that are bounds-checked, and never more."""

from __future__ import annotations

import mmap
import os
import stat
import weakref
from dataclasses import dataclass
from pathlib import Path
from typing import NoReturn

from xbackend_fl.errors import FileError, FormatRefused
from xbackend_fl.text import line

_MAPPED: weakref.WeakSet[mmap.mmap] = weakref.WeakSet()


def forget_pages() -> None:
    """Give back the memory of what was read from mapped files; reading it again fetches it again.

    Mapped pages count as this process's memory, and a large file that is read once would fill it.
    """
    if hasattr(mmap, "MADV_DONTNEED"):
        for mapping in list(_MAPPED):
            mapping.madvise(mmap.MADV_DONTNEED)


class Descriptor:
    """An open file, closed when nobody holds it any more."""

    def __init__(self, fd: int) -> None:
        self.fd = fd

    def __del__(self) -> None:
        os.close(self.fd)


@dataclass(frozen=True, eq=False)
class Source:
    """The content of one regular file, mapped read-only.

    Attributes:
        path: Where it is, for messages.
        view: All bytes.
        file: The open file, for a reader in another process; ``None`` for bytes in memory.
        start: Offset of ``view`` in the file: not 0 for a member of an archive.
    """

    path: Path
    view: memoryview
    file: Descriptor | None
    start: int = 0

    @property
    def size(self) -> int:
        """Number of bytes."""
        return len(self.view)

    def read(self, offset: int, length: int, what: str) -> memoryview:
        """Bytes ``[offset, offset + length)``.

        Raises:
            FormatRefused: They are not all there (``truncated``).
        """
        if offset < 0 or length < 0 or offset + length > self.size:
            self.refuse(
                "truncated",
                f"{what} would lie at bytes {offset} to {offset + length} of {self.size}",
                offset=offset,
                value=length,
                limit=self.size,
            )
        return self.view[offset : offset + length]

    def window(self, offset: int, length: int, what: str) -> Source:
        """A file inside this one."""
        return Source(self.path, self.read(offset, length, what), self.file, self.start + offset)

    def refuse(self, code: str, message: str, **details: int) -> NoReturn:
        """Raise :class:`FormatRefused` about this file."""
        raise FormatRefused(code, self.path, message, **details)


def open_source(path: Path, directory: int | None = None) -> Source:
    """Map a regular file.

    Args:
        path: The file; a symbolic link is followed only without ``directory``.
        directory: Descriptor of the folder that must hold the last component of ``path``.

    Raises:
        FileError: It is missing or may not be read.
        FormatRefused: It is no regular file (``not-a-file``), or empty (``empty``).
    """
    # Without O_NONBLOCK, opening a pipe would wait for a writer that never comes.
    flags = os.O_RDONLY | os.O_NONBLOCK | os.O_CLOEXEC
    try:
        if directory is None:
            fd = os.open(path, flags)
        else:
            fd = os.open(path.name, flags | os.O_NOFOLLOW, dir_fd=directory)
    except FileNotFoundError as error:
        raise FileError(f"no such file: {path}") from error
    except (OSError, ValueError) as error:
        raise FileError(f"cannot read {path}: {error}") from error
    file = Descriptor(fd)
    status = os.fstat(fd)
    if not stat.S_ISREG(status.st_mode):
        raise FormatRefused("not-a-file", path, "is not a regular file")
    if directory is not None and status.st_nlink != 1:
        raise FormatRefused("outside", path, f"has {status.st_nlink} names; one may lie in another folder")
    if status.st_size == 0:
        raise FormatRefused("empty", path, "is empty")
    mapping = mmap.mmap(fd, 0, access=mmap.ACCESS_READ)
    _MAPPED.add(mapping)
    view = memoryview(mapping)
    return Source(path, view, file)


def open_beside(path: Path, relative: str) -> Source:
    """Map a file that ``path`` names, if it lies in the folder of ``path`` or below.

    Every component is opened without following links, so no name leads outside.

    Raises:
        FileError: It is missing.
        FormatRefused: The name leads elsewhere (``outside``).
    """
    parts = Path(relative).parts
    bad = not parts or Path(relative).is_absolute() or ".." in parts or "\0" in relative or "\\" in relative
    if bad:
        raise FormatRefused("outside", path, f"names the file {shown(relative)}, outside its own folder")
    folder = os.open(path.parent, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
    try:
        for part in parts[:-1]:
            flags = os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW | os.O_CLOEXEC
            inner = os.open(part, flags, dir_fd=folder)
            os.close(folder)
            folder = inner
        return open_source(path.parent.joinpath(*parts), folder)
    except FileNotFoundError as error:
        raise FileError(f"{path} names the file {shown(relative)}, which is missing") from error
    except FileError as error:
        if isinstance(error, FormatRefused) or "no such file" in error.message:
            raise
        raise FormatRefused("outside", path, f"names the file {shown(relative)}, a link") from error
    except OSError as error:
        raise FormatRefused("outside", path, f"names the file {shown(relative)}, behind a link") from error
    finally:
        os.close(folder)


def shown(text: object, limit: int = 60) -> str:
    """A stranger's text as Python writes it, short, and fit to be shown (:func:`~xbackend_fl.text.line`)."""
    return line(repr(text), limit)
