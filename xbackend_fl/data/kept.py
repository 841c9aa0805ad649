"""What a source was read into: arrays in files beside the data, which all workers of a machine map."""

from __future__ import annotations

import hashlib
import json
import shutil
from collections.abc import Callable, Iterable
from contextlib import ExitStack
from dataclasses import dataclass
from pathlib import Path
from typing import Any, BinaryIO, final

import numpy as np
from filelock import FileLock

from xbackend_fl.data.column import Array
from xbackend_fl.errors import ConfigError

_FOLDER = ".xbfl-cache"
_VERSION = 2
_FACTS = "facts.json"


@dataclass(frozen=True)
class Kept:
    """Arrays that lie in files.

    Attributes:
        arrays: Mapped, by name.
        facts: What else was found, as JSON has it.
    """

    arrays: dict[str, Array]
    facts: dict[str, Any]


@final
class Writer:
    """Writes arrays piece by piece; no more than a piece is in memory.

    Args:
        folder: Where the files go.
    """

    def __init__(self, folder: Path) -> None:
        self._folder, self._files = folder, ExitStack()
        self._open: dict[str, BinaryIO] = {}
        self.forms: dict[str, tuple[str, list[int]]] = {}

    def add(self, name: str, block: Array) -> None:
        """Append the rows of ``block``, which have the dtype and the shape of those before."""
        if name not in self._open:
            self._open[name] = self._files.enter_context((self._folder / name).open("wb"))
            self.forms[name] = (block.dtype.str, [0, *block.shape[1:]])
        dtype, shape = self.forms[name]
        assert (block.dtype.str, [*block.shape[1:]]) == (dtype, shape[1:])
        self._open[name].write(np.ascontiguousarray(block).data)
        shape[0] += len(block)

    def close(self) -> None:
        """Have everything on disk."""
        self._files.close()


def kept(
    place: Path, key: tuple[object, ...], write: Callable[[Writer], dict[str, Any]], cache: Path | None = None
) -> Kept:
    """What ``write`` wrote, now or at an earlier time; several processes may ask at once.

    Args:
        place: The file or folder that is read.
        key: Everything that decides what is written, stamps of the files among it.
        write: Writes arrays, and returns what else was found.
        cache: Folder for the files; beside the data if left out.

    Raises:
        ConfigError: The folder cannot be written to.
    """
    home = cache or (place if place.is_dir() else place.parent) / _FOLDER
    name = hashlib.sha256(repr((_VERSION, str(place), key)).encode()).hexdigest()[:24]
    folder = home / name
    if not (folder / _FACTS).is_file():
        try:
            home.mkdir(parents=True, exist_ok=True)
            with FileLock(home / f"{name}.lock"):
                if not (folder / _FACTS).is_file():
                    _written(folder, write)
        except OSError as error:
            raise ConfigError(
                f"cannot keep what was read from {place} in {home}: {error}",
                hint="data.cache: a folder with room for all arrays that is writable",
            ) from error
    facts = json.loads((folder / _FACTS).read_text(encoding="utf-8"))
    return Kept({name: _mapped(folder / name, *form) for name, form in facts["forms"].items()}, facts)


def stamps(files: Iterable[Path], base: Path) -> list[tuple[str, int, int]]:
    """Names below ``base``, sizes and times of files: others where a file has changed."""
    found = ((str(file.relative_to(base)), file.stat()) for file in files)
    return [(name, stat.st_size, stat.st_mtime_ns) for name, stat in found]


def _written(folder: Path, write: Callable[[Writer], dict[str, Any]]) -> None:
    shutil.rmtree(folder, ignore_errors=True)
    folder.mkdir()
    writer = Writer(folder)
    try:
        facts = write(writer)
        writer.close()
        # Written last: it says that the others are whole.
        part = folder / f"{_FACTS}.part"
        part.write_text(json.dumps(facts | {"forms": writer.forms}), encoding="utf-8")
        part.replace(folder / _FACTS)
    except BaseException:
        writer.close()
        shutil.rmtree(folder, ignore_errors=True)
        raise


def _mapped(file: Path, dtype: str, shape: list[int]) -> Array:
    if 0 in shape:
        return np.empty(shape, dtype)
    return np.memmap(file, dtype, "r", shape=tuple(shape))
