"""A weight file as a lazy mapping of name to array, whatever its format."""

from __future__ import annotations

from collections.abc import Callable, Hashable, Iterator, Mapping
from dataclasses import dataclass, field, replace
from functools import partial
from math import prod
from pathlib import Path
from typing import Any, final

import numpy as np
from numpy.typing import NDArray

from xbackend_fl.errors import FormatRefused
from xbackend_fl.formats.dtypes import DType
from xbackend_fl.formats.limits import MAX_NAME, MAX_RANK, MAX_TENSORS, MAX_VALUES
from xbackend_fl.formats.source import shown

Array = NDArray[Any]


@dataclass(frozen=True)
class Entry:
    """One tensor of a file, not yet read.

    Attributes:
        shape: Its shape.
        dtype: Its dtype, little-endian.
        read: Returns it, read-only, C order not promised: a view of the file where the format allows.
        identity: Equal for entries that are the same bytes by the file's own word: tied weights.
    """

    shape: tuple[int, ...]
    dtype: DType
    read: Callable[[], Array]
    identity: Hashable = None

    @property
    def num_bytes(self) -> int:
        """Size of the array."""
        return prod(self.shape) * self.dtype.itemsize

    @staticmethod
    def from_array(array: Array) -> Entry:
        """An entry in memory."""
        little = array.dtype.newbyteorder("=")
        held = array if array.dtype == little else array.astype(little)
        return Entry(held.shape, held.dtype, lambda: held)


@final
@dataclass(frozen=True, eq=False)
class Archive(Mapping[str, Array]):
    """The tensors of one file. Reading one reads nothing else.

    Attributes:
        path: The file or folder.
        format: Name of its format.
        entries: Tensors by name, in the order of the file.
        metadata: Text that the file says about itself: who wrote it, fingerprint.
        notes: What a reader should know: what was left out, how it was guarded.
    """

    path: Path
    format: str
    entries: Mapping[str, Entry]
    metadata: Mapping[str, str] = field(default_factory=dict)
    notes: tuple[str, ...] = ()

    def __getitem__(self, name: str) -> Array:
        array = self.entries[name].read()
        if array.flags.writeable:
            array = array.view()
            array.flags.writeable = False
        return array

    def __iter__(self) -> Iterator[str]:
        return iter(self.entries)

    def __len__(self) -> int:
        return len(self.entries)

    def __repr__(self) -> str:
        return f"<Archive {self.path} ({self.format}): {len(self)} tensors, {self.num_bytes:,} bytes>"

    @property
    def num_bytes(self) -> int:
        """Bytes of all tensors, aliases counted once."""
        aliases = self.aliases
        return sum(entry.num_bytes for name, entry in self.entries.items() if name not in aliases)

    @property
    def aliases(self) -> dict[str, str]:
        """Names of tied tensors, each to the first name of the same tensor."""
        return aliases_of(self.entries)


def aliases_of(entries: Mapping[str, Entry]) -> dict[str, str]:
    """Names of tied tensors, each to the first name of the same tensor."""
    first: dict[Hashable, str] = {}
    result: dict[str, str] = {}
    for name, entry in entries.items():
        if entry.identity is not None:
            owner = first.setdefault(entry.identity, name)
            if owner != name:
                result[name] = owner
    return result


def checked(archive: Archive) -> Archive:
    """The archive, if its names and shapes are within the limits.

    Raises:
        FormatRefused: ``too-many-tensors``, ``bad-name`` or ``bad-shape``; on reading, ``bad-boolean``.
    """
    check_count(archive.path, len(archive.entries))
    entries = dict(archive.entries)
    for name, entry in archive.entries.items():
        if not name or len(name) > MAX_NAME or not name.isprintable():
            what = f"a name of {len(name)} characters" if len(name) > MAX_NAME else "no printable name"
            raise FormatRefused("bad-name", archive.path, f"tensor {shown(name)} has {what}")
        check_shape(archive.path, name, entry.shape)
        if entry.dtype == np.bool_:
            entries[name] = replace(entry, read=partial(_booleans, archive.path, name, entry.read))
    return replace(archive, entries=entries)


def _booleans(path: Path, name: str, read: Callable[[], Array]) -> Array:
    array = read()
    if array.view(np.uint8).max(initial=0) > 1:
        raise FormatRefused(
            "bad-boolean", path, f"tensor {shown(name)} holds truth values other than 0 and 1"
        )
    return array


def check_count(path: Path, count: int) -> None:
    """Refuse more tensors than any model has.

    Raises:
        FormatRefused: ``too-many-tensors``.
    """
    if count > MAX_TENSORS:
        message = f"holds {count} tensors, more than {MAX_TENSORS}"
        raise FormatRefused("too-many-tensors", path, message, limit=MAX_TENSORS, value=count)


def check_shape(path: Path, name: str, shape: tuple[int, ...]) -> int:
    """Number of values of a tensor whose shape a file declares.

    Raises:
        FormatRefused: ``bad-shape``.
    """
    # A zero does not make the other sizes small: NumPy multiplies them too.
    large = prod(max(size, 1) for size in shape) > MAX_VALUES
    if len(shape) > MAX_RANK or any(size < 0 for size in shape) or large:
        plain = shown(list(shape))
        raise FormatRefused("bad-shape", path, f"tensor {shown(name)} cannot have the shape {plain}")
    return prod(shape)


def array_of(view: memoryview, dtype: DType, shape: tuple[int, ...]) -> Array:
    """A read-only array over bytes: without a copy, if they are aligned."""
    array = np.frombuffer(view, dtype).reshape(shape)
    if not array.flags.aligned:
        array = array.copy()
        array.flags.writeable = False
    return array
