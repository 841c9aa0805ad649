"""What a format of weight files is: its names, its reader, perhaps its writer, and how a file of it is told."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import IO, TypeAlias

from xbackend_fl.formats.archive import Archive, Entry
from xbackend_fl.formats.source import Source

Reader: TypeAlias = Callable[[Path], Archive]
Writer: TypeAlias = Callable[[IO[bytes], Mapping[str, Entry], Mapping[str, str], Callable[[int], None]], None]

HEAD = 512
"""So many bytes of a file are shown to :attr:`Format.matches`, at most."""


def _never(_: object, __: object = None) -> bool:
    return False


@dataclass(frozen=True)
class Format:
    """A kind of weight file: the object that a file of :mod:`xbackend_fl.formats.kinds` calls ``FORMAT``.

    Attributes:
        name: What ``--from`` and ``--to`` call it: the name of its file, with hyphens.
        read: Opens one, and runs nothing that it says.
        suffixes: Endings of its files; of those that fit a name, the longest counts.
        write: Writes one from any tensors; ``None`` where only the model's own framework can.
        read_beside: Opens one with the tensors that it keeps in other files of its folder; ``None`` if it keeps none there.
        matches: Whether a file whose ending is none of a format is one, by its first bytes and, where these do not tell, its content.
        is_at: Whether a path that is a folder, or no file, is one.
    """

    name: str
    read: Reader
    suffixes: tuple[str, ...] = ()
    write: Writer | None = None
    read_beside: Reader | None = None
    matches: Callable[[bytes, Source], bool] = _never
    is_at: Callable[[Path], bool] = _never
