"""Files that a process has mapped: one that somebody cuts while it is read ends the process, which can say nothing any more."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

from xbackend_fl.data import Dataset, Splits, mapped_file

_SPLITS = ("train", "validation", "test")


@dataclass(frozen=True)
class MappedFile:
    """A file, as it was when it was mapped.

    Attributes:
        path: Where it is.
        size: Its bytes.
        reader: Who reads it, in words.
    """

    path: Path
    size: int
    reader: str

    @property
    def cut(self) -> str:
        """What became of it, in words; empty if it is as long as it was."""
        now = self.path.stat().st_size if self.path.exists() else self.size
        if now >= self.size:
            return ""
        return f"{self.path}, which {self.reader} reads, was cut from {self.size:,} to {now:,} bytes while it was mapped"


def mapped_files(splits: Splits, own: Mapping[str, Dataset]) -> tuple[MappedFile, ...]:
    """The files behind the inputs and targets of data, each once.

    Args:
        splits: The common data.
        own: What participants bring themselves, by their names.
    """
    parts = {f"participant {name!r}": data for name, data in own.items()}
    parts |= {f"the data set ({name})": getattr(splits, name) for name in _SPLITS}
    found: dict[Path, MappedFile] = {}
    for reader, data in parts.items():
        for column in (*data.inputs, data.targets):
            path = mapped_file(column)
            if path is not None and path not in found and path.exists():
                found[path] = MappedFile(path, path.stat().st_size, reader)
    return tuple(found.values())
