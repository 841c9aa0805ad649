"""Looks at every value of an array, block by block: what is no number, and what another dtype cannot hold."""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from math import prod
from typing import Any

import numpy as np
from blake3 import blake3
from numpy.typing import NDArray

from xbackend_fl.data.column import Array, Column, Rows, blocks, is_steady, read

_SAMPLED = 64
_WIDEST = 8
_COLUMNS = 32


def not_finite(array: Column) -> str | None:
    """How many values of an array are NaN or infinite, and where the first is; ``None`` if none is."""
    if array.dtype.kind != "f":
        return None
    counts = {"NaN": 0, "infinity": 0}
    rows, first = 0, ""
    for start, block in blocks(array):
        bad = ~np.isfinite(block)
        if not bad.any():
            continue
        counts["NaN"] += int(np.isnan(block).sum())
        counts["infinity"] += int(np.isinf(block).sum())
        rows += int(bad.reshape(len(block), -1).any(1).sum())
        first = first or place(np.argwhere(bad)[0], start)
    if not rows:
        return None
    kinds = " and ".join(name for name, count in counts.items() if count)
    return f"{kinds} at {first} ({_count(sum(counts.values()), 'value')} in {_count(rows, 'row')})"


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
            first = first or f"{block[where]!s} at {place(where, start)}"
    return f"{count} of {_count(prod(array.shape), 'value')}, as {first}" if count else None


def out_of_range(array: Column, low: float, high: float) -> str | None:
    """The first value of an array that is below ``low`` or above ``high``, and where it is; ``None`` if none is."""
    for start, block in blocks(array):
        wrong = (block < low) | (block > high)
        if wrong.any():
            where = tuple(np.argwhere(wrong)[0])
            return f"{block[where]!s} at {place(where, start)}"
    return None


def place(index: Sequence[int] | Array, start: int = 0) -> str:
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
    wide = prod(array.shape[1:])
    if array.dtype.kind not in "fiu" or not wide:
        return []
    best: dict[tuple[str, int], tuple[float, int]] = {}
    for start, block in blocks(array, rows):
        flat = block.reshape(len(block), -1)
        looks: list[tuple[str, Array, int]] = [("low", flat, 1), ("high", flat, -1)]
        if array.dtype.kind == "f":
            looks.append(("zero", np.abs(flat), 1))
        columns = wide if array.dtype.kind != "f" and wide <= _COLUMNS else 1
        for name, values, sign in looks:
            # With one column, the place in it is of the row and the position together.
            table = values.reshape(-1, columns)
            places = table.argmin(0) if sign > 0 else table.argmax(0)
            for column, place in enumerate(places.tolist()):
                found = (sign * table[place, column].item(), start + place * columns // wide)
                key = (name, column)
                best[key] = min(best.get(key, (np.inf, 0)), found)
    return sorted({row for _, row in best.values()})


def digest(arrays: Sequence[Column]) -> str:
    """Of the shapes, the dtypes and some rows of arrays: other data have another one, whatever differs in every row.

    Of what is drawn at random, no rows.
    """
    found = hashlib.sha256()
    for array in arrays:
        found.update(f"{array.shape} {array.dtype.str};".encode())
        rows = np.unique(np.linspace(0, len(array) - 1, min(len(array), _SAMPLED)).astype(np.intp))
        if not is_steady(array):
            continue
        sample = read(array, rows)
        # Longer floats have bytes that mean nothing.
        sample = sample.astype(np.float64) if sample.dtype.itemsize > _WIDEST else sample
        found.update(np.ascontiguousarray(sample).tobytes())
    return found.hexdigest()


def content(array: Column) -> str:
    """Digest of an array's shape, dtype and values: any other array has another one."""
    found = blake3(f"{array.shape} {array.dtype.str};".encode())
    for _, block in blocks(array):
        plain = (
            block.astype(np.float64) if block.dtype.kind == "f" and block.dtype.itemsize > _WIDEST else block
        )
        found.update(np.ascontiguousarray(plain).tobytes())
    return found.hexdigest()


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


def _count(number: int, thing: str) -> str:
    return f"{number:,} {thing}" if number == 1 else f"{number:,} {thing}s"
