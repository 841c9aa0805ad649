"""Divides the rows of one table into training, validation and test: by shares, or by what a column says."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from xbackend_fl.data.column import Array, Rows
from xbackend_fl.data.dataset import SPLITS, Dataset, Splits
from xbackend_fl.data.draws import generator
from xbackend_fl.data.source import Shares
from xbackend_fl.errors import ConfigError

_SAME = {"val": "validation", "valid": "validation"}


def by_shares(count: int, shares: Shares, seed: int) -> list[Rows]:
    """Random rows of each part, sorted; every row is in one."""
    order = generator(seed, "split").permutation(count)
    cuts = np.floor(np.cumsum(shares[:2]) / sum(shares) * count + 0.5).astype(int)
    return [np.sort(part) for part in np.split(order, cuts)]


def by_names(where: str, values: Sequence[str]) -> list[Rows]:
    """Rows of each part, by its name for every row.

    Raises:
        ConfigError: A value is no name of a part.
    """
    names = np.array([_SAME.get(value, value) for value in values], dtype=str)
    if unknown := sorted({*names.tolist()} - {*SPLITS}):
        raise ConfigError(
            f"{where}: the value {unknown[0]!r} is not one of {', '.join(SPLITS)}",
            hint="data.splits: [0.6, 0.2, 0.2] divides at random instead",
        )
    return [np.flatnonzero(names == name) for name in SPLITS]


def divided(where: str, data: Dataset, parts: list[Rows], owners: Array | None, skipped: int = 0) -> Splits:
    """The parts of a data set.

    Args:
        where: What messages call it.
        data: The data set.
        parts: Rows of training, validation and test.
        owners: Whose each row is.
        skipped: How many examples could not be read, and are not among them.

    Raises:
        ConfigError: A part is empty.
    """
    empty = [name for name, rows in zip(SPLITS, parts, strict=True) if not len(rows)]
    if empty:
        if skipped:
            raise ConfigError(
                f"{where}: no {empty[0]} examples, of {len(data)} in all: {skipped} images that cannot be read are left out",
                hint="data.on_error: stop says what is wrong with the first of them",
            )
        raise ConfigError(
            f"{where}: no {empty[0]} examples, of {len(data)} in all",
            hint="data.splits: other shares; or data.split_by: the column that names the part of every row",
        )
    train, validation, test = (
        Dataset(data.inputs, data.targets, rows, data.notes if not index else ())
        for index, rows in enumerate(parts)
    )
    return Splits(train, validation, test, None if owners is None else owners[parts[0]])
