"""Looks at every value of an array, block by block: what is no number, and what another dtype cannot hold."""

from __future__ import annotations

import hashlib
import weakref
from collections.abc import Sequence
from math import prod
from typing import Any, Protocol, final

import numpy as np
from blake3 import blake3
from numpy.typing import NDArray

from xbackend_fl.data.column import Array, Column, Rows, blocks, is_steady, read
from xbackend_fl.text import number_of

_SAMPLED = 64
_WIDEST = 8
_COLUMNS = 32


def not_finite(array: Column) -> str | None:
    """How many values of an array are NaN or infinite, and where the first is; ``None`` if none is."""
    return None if array.dtype.kind != "f" else _seen(array, _Finite)


def not_held(array: Column, dtype: np.dtype[Any]) -> str | None:
    """How many finite values of an array another dtype cannot hold, and where the first is; ``None`` if it holds all."""
    if np.can_cast(array.dtype, dtype, "safe"):
        return None
    count, first = 0, ""
    for start, block in blocks(array):
        lost = ~_held(block, dtype)
        if lost.any():
            where = tuple(np.argwhere(lost)[0])
            count += int(lost.sum())
            first = first or f"{block[where]!s} at {shown_index(where, start)}"
    return f"{count} of {number_of(prod(array.shape), 'value')}, as {first}" if count else None


def out_of_range(array: Column, low: float, high: float) -> str | None:
    """The first value of an array that is below ``low`` or above ``high``, and where it is; ``None`` if none is."""
    for start, block in blocks(array):
        wrong = (block < low) | (block > high)
        if wrong.any():
            where = tuple(np.argwhere(wrong)[0])
            return f"{block[where]!s} at {shown_index(where, start)}"
    return None


def shown_index(index: Sequence[int] | Array, start: int = 0) -> str:
    """An index in words: ``row 3, column 5``."""
    row, *rest = map(int, index)
    words = f"row {row + start}"
    if len(rest) == 1:
        return f"{words}, column {rest[0]}"
    return f"{words}, position {rest}" if rest else words


def extreme_values(array: Column, rows: Rows | None = None) -> list[int]:
    """Places among ``rows`` (all rows if left out) of the smallest and largest numbers of an array of floats, and of the one closest to zero.

    Of an array of integers, those of the smallest and largest ones in each column: they look something up, each column perhaps
    in a table of its own. A row of more than 32 integers counts as one column. None of other arrays.
    """
    if array.dtype.kind not in "fiu" or not prod(array.shape[1:]):
        return []
    found: list[int] = _seen(array, _Extremes, rows)
    return found


def digest(arrays: Sequence[Column]) -> str:
    """Of the shapes, the dtypes and some rows of arrays: other data have another one, whatever differs in every row.

    Of what is drawn at random, no rows.
    """
    found = hashlib.sha256()
    for array in arrays:
        found.update(f"{array.shape} {_form(array.dtype)};".encode())
        rows = np.unique(np.linspace(0, len(array) - 1, min(len(array), _SAMPLED)).astype(np.intp))
        if not is_steady(array):
            continue
        sample = read(array, rows)
        # Longer floats have bytes that mean nothing.
        is_long = sample.dtype.kind == "f" and sample.dtype.itemsize > _WIDEST
        sample = sample.astype(np.float64) if is_long else sample
        found.update(np.ascontiguousarray(sample).tobytes())
    return found.hexdigest()


def content(array: Column) -> str:
    """Digest of an array's shape, dtype and values: any other array has another one."""
    found: str = _seen(array, _Content)
    return found


class _Look(Protocol):
    """Something that is found by looking at all blocks of a column, in order."""

    def __init__(self, column: Column) -> None: ...

    def see(self, start: int, block: Array) -> None: ...

    def found(self) -> Any: ...


_known: weakref.WeakKeyDictionary[Column, dict[type[_Look], Any]] = weakref.WeakKeyDictionary()


def _seen(column: Column, look: type[_Look], rows: Rows | None = None) -> Any:
    """What a look finds. A column that takes time to be read is looked at once, for all that is asked of it."""
    if isinstance(column, np.ndarray) or rows is not None or not is_steady(column):
        return _looked(column, [look], rows)[look]
    if column not in _known:
        _known[column] = _looked(column, [_Finite, _Extremes, _Content], None)
    return _known[column][look]


def _looked(column: Column, looks: Sequence[type[_Look]], rows: Rows | None) -> dict[type[_Look], Any]:
    made = {look: look(column) for look in looks}
    for start, block in blocks(column, rows):
        for one in made.values():
            one.see(start, block)
    return {look: one.found() for look, one in made.items()}


@final
class _Finite:
    def __init__(self, column: Column) -> None:
        self._is_float = column.dtype.kind == "f"
        self._counts, self._rows, self._first = {"NaN": 0, "infinity": 0}, 0, ""

    def see(self, start: int, block: Array) -> None:
        if not self._is_float or not (bad := ~np.isfinite(block)).any():
            return
        self._counts["NaN"] += int(np.isnan(block).sum())
        self._counts["infinity"] += int(np.isinf(block).sum())
        self._rows += int(bad.reshape(len(block), -1).any(1).sum())
        self._first = self._first or shown_index(np.argwhere(bad)[0], start)

    def found(self) -> str | None:
        if not self._rows:
            return None
        kinds = " and ".join(name for name, count in self._counts.items() if count)
        values = number_of(sum(self._counts.values()), "value")
        return f"{kinds} at {self._first} ({values} in {number_of(self._rows, 'row')})"


@final
class _Extremes:
    def __init__(self, column: Column) -> None:
        self._wide = prod(column.shape[1:])
        self._is_float = column.dtype.kind == "f"
        self._is_number = column.dtype.kind in "fiu" and self._wide > 0
        self._columns = self._wide if not self._is_float and self._wide <= _COLUMNS else 1
        self._best: dict[tuple[str, int], tuple[float, int]] = {}

    def see(self, start: int, block: Array) -> None:
        if not self._is_number or not len(block):
            return
        flat = block.reshape(len(block), -1)
        looks: list[tuple[str, Array, int]] = [("low", flat, 1), ("high", flat, -1)]
        if self._is_float:
            looks.append(("zero", np.abs(flat), 1))
        for name, values, sign in looks:
            # With one column, the place in it is of the row and the position together.
            table = values.reshape(-1, self._columns)
            places = table.argmin(0) if sign > 0 else table.argmax(0)
            for column, place in enumerate(places.tolist()):
                found = (sign * table[place, column].item(), start + place * self._columns // self._wide)
                key = (name, column)
                self._best[key] = min(self._best.get(key, (np.inf, 0)), found)

    def found(self) -> list[int]:
        return sorted({row for _, row in self._best.values()})


@final
class _Content:
    def __init__(self, column: Column) -> None:
        self._digest = blake3(f"{column.shape} {_form(column.dtype)};".encode())

    def see(self, start: int, block: Array) -> None:
        del start
        is_long = block.dtype.kind == "f" and block.dtype.itemsize > _WIDEST
        plain = block.astype(np.float64) if is_long else block
        self._digest.update(np.ascontiguousarray(plain).tobytes())

    def found(self) -> str:
        return self._digest.hexdigest()


def _form(dtype: np.dtype[Any]) -> str:
    """A dtype in words: of a row of several targets, with the names, dtypes and shapes of all."""
    return dtype.str if dtype.names is None else str(dtype.descr)


def _held(block: Array, dtype: np.dtype[Any]) -> NDArray[np.bool_]:
    if dtype.kind == "f":
        with np.errstate(over="ignore", invalid="ignore"):
            there = block.astype(dtype)
            if block.dtype.kind == "f":
                return np.asarray((there == block) | ~np.isfinite(block))
            # Whole numbers, by way of floats that hold them; larger ones are none that anybody computes with.
            inside = (block <= 2**53) & (block >= -(2**53))
            return np.asarray((there == block.astype(np.float64)) & inside)
    bounds = np.iinfo(dtype)
    inside = (block >= bounds.min) & (block <= bounds.max)
    if block.dtype.kind == "f":
        inside = (inside & (block == np.floor(block))) | ~np.isfinite(block)
    return np.asarray(inside)
