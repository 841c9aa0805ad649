"""LEAF's data sets (Caldas et al. 2018): JSON files with the examples of many users, read as a stream.

A file is ``{"users": [name], "num_samples": [count], "user_data": {name: {"x": [...], "y": [...]}}}``. One user at a time
is in memory as Python objects; the arrays are cached beside the files and mapped from there afterwards.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import ijson
import numpy as np
from numpy.typing import NDArray

from xbackend_fl.data.dataset import Dataset, Splits
from xbackend_fl.data.draws import generator
from xbackend_fl.data.kept import Writer, kept, stamps
from xbackend_fl.data.leaf_tasks import Task, task_of
from xbackend_fl.errors import ConfigError

Array = NDArray[Any]
Progress = Callable[[int, int], None]
"""Told how many bytes of how many have been read."""


@dataclass(frozen=True)
class Users:
    """The examples of many users, one user after the other.

    Attributes:
        inputs: ``[N, ...]``, in ONNX layout.
        targets: Class indices ``[N]``.
        names: Users.
        ends: Index behind the last example of each user.
    """

    inputs: Array
    targets: Array
    names: tuple[str, ...]
    ends: Array

    def ranges(self) -> Iterator[tuple[str, range]]:
        """Each user's examples."""
        start = 0
        for name, end in zip(self.names, self.ends.tolist(), strict=True):
            yield name, range(start, end)
            start = end


def read_leaf(folder: Path, *, deduplicate: bool = False, on_progress: Progress = lambda *_: None) -> Users:
    """Read all ``*.json`` files of a folder, in the order of their names.

    Args:
        folder: The folder, or one file.
        deduplicate: Drop examples that a user has twice: LEAF's own FEMNIST script repeats the first image of every
            writer but one.
        on_progress: Told how far it is, on the first reading.

    Raises:
        ConfigError: A file is missing, cut short, or its parts do not fit; file, user and key are named.
    """
    files = sorted(folder.glob("*.json")) if folder.is_dir() else [folder]
    if not files or not files[0].is_file():
        raise ConfigError(
            f"{folder} holds no LEAF file (*.json)", hint="name the folder with train or all_data"
        )

    def write(writer: Writer) -> dict[str, Any]:
        users = _parse(files, on_progress, deduplicate=deduplicate)
        for name in ("inputs", "targets", "ends"):
            writer.add(name, getattr(users, name))
        return {"names": users.names}

    found = kept(files[0].parent, ("leaf", stamps(files, files[0].parent), deduplicate), write)
    return Users(**found.arrays, names=tuple(found.facts["names"]))


def split_users(users: Users, shares: tuple[float, float, float], seed: int) -> Splits:
    """Divide every user's examples at random into training, validation and test.

    Args:
        users: The examples of many users.
        shares: Of the three parts; every user keeps at least one training example.
        seed: The course's seed.
    """
    parts: tuple[list[NDArray[np.intp]], ...] = ([], [], [])
    owners: list[NDArray[np.intp]] = []
    for number, (name, examples) in enumerate(users.ranges()):
        order = generator(seed, "split", name).permutation(len(examples)) + examples.start
        cuts = np.floor(np.cumsum(shares[:2]) / sum(shares) * len(order) + 0.5).astype(int)
        cuts = np.maximum(cuts, 1)
        for part, rows in zip(parts, np.split(order, cuts), strict=True):
            part.append(rows)
        owners.append(np.full(cuts[0], number, np.intp))
    train, validation, test = (
        Dataset((users.inputs,), users.targets, np.concatenate(part)) for part in parts
    )
    return Splits(train, validation, test, np.concatenate(owners))


def _parse(files: list[Path], on_progress: Progress, *, deduplicate: bool) -> Users:
    total, before = sum(file.stat().st_size for file in files), 0
    task: Task | None = None
    inputs: list[Array] = []
    targets: list[Array] = []
    names: dict[str, int] = {}
    for file in files:
        stated = _stated(file)
        for name, x, y, read in _user_data(file):
            if name in names:
                raise ConfigError(f"{file}: user {name!r} stands twice")
            if stated.pop(name, len(y)) != len(y):
                raise ConfigError(f"{file}: user {name!r}: num_samples is not {len(y)}, the length of y")
            if len(x) != len(y):
                raise ConfigError(f"{file}: user {name!r}: x has {len(x)} examples and y {len(y)}")
            if not x:
                continue
            try:
                task = task or task_of(x[0], file)
                one, labels = task.convert(x, y)
            except (ValueError, TypeError, KeyError, OverflowError) as error:
                raise ConfigError(f"{file}: user {name!r}: {error}") from error
            if deduplicate:
                keep = _first_of_each(one, labels)
                one, labels = one[keep], labels[keep]
            names[name] = len(labels)
            inputs.append(one)
            targets.append(labels)
            on_progress(before + read, total)
        if stated:
            raise ConfigError(
                f"{file}: user {next(iter(stated))!r} is listed in users and missing in user_data"
            )
        before += file.stat().st_size
    if not inputs:
        raise ConfigError(f"{files[0].parent} holds no examples")
    ends = np.cumsum(list(names.values()))
    return Users(np.concatenate(inputs), np.concatenate(targets), tuple(names), ends)


def _first_of_each(inputs: Array, targets: Array) -> list[int]:
    seen: dict[tuple[bytes, int], int] = {}
    for index, (example, target) in enumerate(zip(inputs, targets.tolist(), strict=True)):
        seen.setdefault((example.tobytes(), target), index)
    return list(seen.values())


def _stated(file: Path) -> dict[str, int]:
    """``users`` and ``num_samples``."""
    with _named_errors(file), file.open("rb") as stream:
        users: list[Any] = next(ijson.items(stream, "users"), [])  # the stream is read no further
    with _named_errors(file), file.open("rb") as stream:
        counts: list[Any] = next(ijson.items(stream, "num_samples"), [])
    if len(users) != len(counts) or not all(isinstance(name, str) for name in users):
        raise ConfigError(f"{file}: users has {len(users)} names and num_samples {len(counts)} numbers")
    return dict(zip(users, map(int, counts), strict=True))


def _user_data(file: Path) -> Iterator[tuple[str, list[Any], list[Any], int]]:
    with _named_errors(file), file.open("rb") as stream:
        found = False
        for name, data in ijson.kvitems(stream, "user_data", use_float=True):
            found = True
            for key in ("x", "y"):
                if not isinstance(data, dict) or not isinstance(data.get(key), list):
                    raise ConfigError(f"{file}: user {name!r} has no list {key!r}")
            yield name, data["x"], data["y"], stream.tell()
    if not found:
        raise ConfigError(f"{file}: no user_data")


@contextmanager
def _named_errors(file: Path) -> Iterator[None]:
    try:
        yield
    except ijson.JSONError as error:
        raise ConfigError(f"{file} is cut short or is no JSON: {error}") from error
