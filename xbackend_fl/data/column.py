"""What an input of a data set may be: an array, in memory or mapped from a file, or what reads rows when it is asked for them."""

from __future__ import annotations

import mmap
import weakref
from collections.abc import Iterator
from math import prod
from pathlib import Path
from typing import Any, Protocol, final, runtime_checkable

import numpy as np
from numpy.lib.array_utils import byte_bounds
from numpy.typing import NDArray

from xbackend_fl.errors import ConfigError, shortened

Array = NDArray[Any]
Rows = NDArray[np.intp]

_BLOCK_BYTES = 16 << 20
_HELD_BYTES = 256 << 20
_PAGES_BYTES = 256 << 20
_FAULT_BYTES = 2 << 20
"""The system maps up to this much of a file at once, however little was asked for: 1.3 MiB for a row of 12 KiB were measured on ext4."""

_read: weakref.WeakKeyDictionary[mmap.mmap, int] = weakref.WeakKeyDictionary()
_held: weakref.WeakKeyDictionary[Sliced, Array] = weakref.WeakKeyDictionary()


class Column(Protocol):
    """One input of all examples, in ONNX layout without being in memory; an array is one."""

    @property
    def shape(self) -> tuple[int, ...]:
        """Number of examples, and the shape of one."""
        ...

    @property
    def dtype(self) -> np.dtype[Any]:
        """The dtype of what is read."""
        ...

    @property
    def nbytes(self) -> int:
        """What all of it would take in memory."""
        ...

    def __len__(self) -> int: ...

    def __getitem__(self, rows: slice | Rows, /) -> Array:
        """Some examples, in the order in which they are asked for."""
        ...


@runtime_checkable
class Sequential(Protocol):
    """A column that is read from its beginning, in blocks of its own."""

    def blocks(self) -> Iterator[tuple[int, Array]]:
        """All of it, each block with the place of its first row."""
        ...


def is_steady(column: Column) -> bool:
    """Whether it has the same values whenever it is read; code of a user's may draw them at random."""
    return not getattr(column, "is_random", False)


@final
class Sliced:
    """An array of a library that reads it from files piece by piece (zarr, HDF5), with rows in any order.

    Where single rows are asked for, as in training, all of it is read once and held, as long as what a process holds so takes 256 MiB at most:
    zarr takes 0.3 to 0.9 ms of a processor for every chunk, however small.

    Args:
        stored: Has a shape and a NumPy dtype, and gives an array for a slice of rows.
        where: What messages call it.
    """

    def __init__(self, stored: Any, where: str = "an array") -> None:
        self._stored, self._where = stored, where
        self.shape: tuple[int, ...] = tuple(map(int, stored.shape))
        self.dtype: np.dtype[Any] = stored.dtype.newbyteorder("=")
        self.nbytes = prod(self.shape) * self.dtype.itemsize

    def __len__(self) -> int:
        return self.shape[0]

    def __getitem__(self, rows: slice | Rows, /) -> Array:
        if isinstance(rows, slice):
            return self._sliced(rows)
        if (whole := self._whole()) is not None:
            return whole[rows]
        asked, places = np.unique(rows, return_inverse=True)
        if hasattr(self._stored, "oindex"):
            # Of zarr, which reads several pieces at a time.
            try:
                found = np.asarray(self._stored.oindex[asked]).astype(self.dtype, copy=False)
            except Exception as error:  # whatever a library raises
                raise self._unread(asked, error) from error
            return np.asarray(found[places])
        found = np.empty((len(asked), *self.shape[1:]), self.dtype)
        # Libraries differ in which lists of rows they take; a slice they all take.
        for run in np.split(np.arange(len(asked)), np.flatnonzero(np.diff(asked) > 1) + 1):
            if len(run):
                found[run] = self._sliced(slice(int(asked[run[0]]), int(asked[run[-1]]) + 1))
        return np.asarray(found[places])

    def _sliced(self, rows: slice) -> Array:
        try:
            return np.asarray(self._stored[rows]).astype(self.dtype, copy=False)
        except Exception as error:  # whatever a library raises
            raise self._unread(np.arange(*rows.indices(len(self))), error) from error

    def _unread(self, rows: Rows, error: Exception) -> ConfigError:
        """The refusal that names the first of some rows that cannot be read."""
        low, high = 0, len(rows)
        while high - low > 1:
            middle = (low + high) // 2
            try:
                for row in rows[low:middle].tolist():
                    self._stored[row : row + 1]
            except Exception as found:  # noqa: BLE001  as above
                high, error = middle, found
            else:
                low = middle
        return ConfigError(
            f"{self._where}: row {rows[low]} cannot be read: {type(error).__name__}: {shortened(error)}",
            hint="the file that it lies in is damaged: write it again, or hand over the other rows alone",
        )

    def _whole(self) -> Array | None:
        """All of it, if there is room."""
        if self not in _held and sum(array.nbytes for array in _held.values()) + self.nbytes <= _HELD_BYTES:
            _held[self] = self._sliced(slice(None))
        return _held.get(self)


def is_stored(value: object) -> bool:
    """Whether a library reads ``value`` from somewhere: it has a shape, a NumPy dtype and rows by place, and is no array in memory."""
    return (
        not isinstance(value, np.ndarray | np.generic)
        and isinstance(getattr(value, "dtype", None), np.dtype)
        and isinstance(getattr(value, "shape", None), tuple)
        and len(getattr(value, "shape", ())) > 0
        and hasattr(value, "chunks")
        and hasattr(value, "__getitem__")
    )


def blocks(column: Column, rows: Rows | None = None) -> Iterator[tuple[int, Array]]:
    """Parts of a column along its first axis, small enough to be in memory, each with the place of its first row.

    Args:
        column: What is read.
        rows: Which of its examples, in this order; all if left out.
    """
    if isinstance(column, Sequential):
        yield from column.blocks()
        return
    size = max(1, column.nbytes // max(len(column), 1))
    step = max(1, _BLOCK_BYTES // size)
    for start in range(0, len(column if rows is None else rows), step):
        yield start, read(column, slice(start, start + step) if rows is None else rows[start : start + step])


def read(column: Column, rows: slice | Rows) -> Array:
    """Some examples of a column; pages of a mapped file are given back after a while.

    Mapped pages count as this process's memory, and a large file would fill it.
    """
    found = column[rows]
    # What may stay in memory whole is left there.
    if not isinstance(column, np.ndarray) or column.nbytes <= _PAGES_BYTES:
        return found
    if (mapping := _mapping(column)) is not None:
        touched = found.nbytes if isinstance(rows, slice) else max(found.nbytes, len(rows) * _FAULT_BYTES)
        _read[mapping] = _read.get(mapping, 0) + touched
        if _read[mapping] > _PAGES_BYTES:
            _read[mapping] = 0
            mapping.madvise(mmap.MADV_DONTNEED)
    return found


def prefetch(column: Column, rows: Rows) -> None:
    """Let the system read some examples of a mapped file while something else is computed; of other columns nothing happens.

    Without it each row waits for the disk by itself: 1 to 3 ms were measured, against 10 µs.
    """
    if not isinstance(column, np.ndarray) or column.nbytes <= _PAGES_BYTES:
        return
    if (mapping := _mapping(column)) is None:
        return
    first = np.frombuffer(mapping, np.uint8, 1).__array_interface__["data"][0]
    low, high = byte_bounds(column[:1])
    for row in rows.tolist():
        start = low - first + row * column.strides[0]
        page = start - start % mmap.PAGESIZE
        mapping.madvise(mmap.MADV_WILLNEED, page, start + high - low - page)


def is_read(column: Column) -> bool:
    """Whether its rows are read by code that takes time, and has nothing to do with the thread that runs it.

    What draws at random would share a framework's generators with the training; mapped files are read by the system.
    """
    return not isinstance(column, np.ndarray) and is_steady(column)


def mapped_file(column: Column) -> Path | None:
    """The file that NumPy has mapped for an array; ``None`` if none is behind it."""
    base: Any = column
    while isinstance(base, np.ndarray):
        if isinstance(base, np.memmap) and base.filename is not None:
            return Path(base.filename)
        base = base.base
    return None


def _mapping(array: Array) -> mmap.mmap | None:
    """The file behind an array, if its pages can be had again: changes that are in memory alone would be lost."""
    mode = ""
    base: Any = array
    while isinstance(base, np.ndarray):
        mode = base.mode if isinstance(base, np.memmap) else mode
        base = base.base
    shared = mode in {"r", "r+"} and hasattr(mmap, "MADV_DONTNEED")
    return base if shared and isinstance(base, mmap.mmap) else None
