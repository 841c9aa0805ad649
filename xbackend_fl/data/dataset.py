"""Examples with their targets, and how a course gets them."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from xbackend_fl import weights
from xbackend_fl.data.draws import generator
from xbackend_fl.data.leaf import Users
from xbackend_fl.errors import ConfigError
from xbackend_fl.locate import call

Array = NDArray[Any]
_SPLITS = ("train", "validation", "test")


@dataclass(frozen=True)
class Dataset:
    """Examples in ONNX layout.

    Attributes:
        inputs: One array per model input, batch first, channels first.
        targets: Class indices ``[N]``, or an array of the shape of the output.
        rows: Which examples of the arrays belong to it, in its own order; all if left out. Parts of a data set share
            its arrays: a thousand participants need no more memory than one.
    """

    inputs: tuple[Array, ...]
    targets: Array
    rows: NDArray[np.intp] | None = None

    def __len__(self) -> int:
        return len(self.targets if self.rows is None else self.rows)

    def part(self, indices: NDArray[np.intp]) -> Dataset:
        """The examples at ``indices`` over the same arrays."""
        return Dataset(self.inputs, self.targets, indices if self.rows is None else self.rows[indices])

    def take(self, indices: NDArray[np.intp]) -> Dataset:
        """Copies of the examples at ``indices``."""
        rows = indices if self.rows is None else self.rows[indices]
        return Dataset(tuple(array[rows] for array in self.inputs), self.targets[rows])

    @property
    def labels(self) -> Array:
        """The targets of its own examples."""
        return self.targets if self.rows is None else self.targets[self.rows]


@dataclass(frozen=True)
class Splits:
    """The parts of a data set.

    Attributes:
        train: What participants share out among themselves.
        validation: Watched every round; it chooses the best weights.
        test: Looked at once, at the end.
        owners: Who made each training example, ``[N]``; ``None`` if nobody knows.
    """

    train: Dataset
    validation: Dataset
    test: Dataset
    owners: Array | None = None


def load_splits(text: str, base: Path) -> Splits:
    """Call ``FILE_OR_MODULE:CALLABLE`` and check what it returns.

    Args:
        text: The callable. It returns a mapping from ``train``, ``validation`` and ``test`` to
            ``(inputs, targets)``, where inputs is an array or a sequence of arrays in ONNX layout; and perhaps from
            ``owners`` to who made each training example.
        base: Folder that relative files start from.

    Raises:
        ConfigError: It returns something else, or a part is empty or uneven.
    """
    found = call(text, base)
    if not isinstance(found, dict) or set(found) - {"owners"} != {*_SPLITS}:
        raise ConfigError(
            f"{text} must return a dict with the keys 'train', 'validation' and 'test', "
            f"received {sorted(found) if isinstance(found, dict) else type(found).__name__}"
        )
    splits = {name: _dataset(f"{text}: {name}", found[name]) for name in _SPLITS}
    owners = None if "owners" not in found else np.asarray(found["owners"])
    if owners is not None and len(owners) != len(splits["train"]):
        raise ConfigError(f"{text}: owners has {len(owners)} entries for {len(splits['train'])} examples")
    return Splits(**splits, owners=owners)


def load_npz(path: Path) -> Splits:
    """Read ``train_x``, ``train_y``, ``validation_x``, … and perhaps ``owners`` from an ``.npz`` file.

    Several inputs are ``train_x0``, ``train_x1``, …

    Raises:
        FileError: The file is missing or broken.
        ConfigError: An array is missing, empty or uneven.
    """
    archive = weights.open(path, "npz")
    found: dict[str, Dataset] = {}
    for name in _SPLITS:
        inputs = [f"{name}_x"] if f"{name}_x" in archive else []
        inputs = inputs or [
            f"{name}_x{index}" for index in range(len(archive)) if f"{name}_x{index}" in archive
        ]
        if not inputs or f"{name}_y" not in archive:
            raise ConfigError(f"{path} has no {name}_x or no {name}_y; it holds {', '.join(archive)}")
        pair = (tuple(archive[key] for key in inputs), archive[f"{name}_y"])
        found[name] = _dataset(f"{path}: {name}", pair)
    owners = archive.get("owners")
    if owners is not None and len(owners) != len(found["train"]):
        raise ConfigError(f"{path}: owners has {len(owners)} entries for {len(found['train'])} examples")
    return Splits(**found, owners=owners)


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


def load_dataset(text: str, base: Path) -> Dataset:
    """Call ``FILE_OR_MODULE:CALLABLE`` for one participant's ``(inputs, targets)``.

    Raises:
        ConfigError: It returns something else, or the data are empty or uneven.
    """
    return _dataset(text, call(text, base))


def _dataset(where: str, pair: Any) -> Dataset:
    if not isinstance(pair, tuple) or len(pair) != 2:
        raise ConfigError(f"{where}: expected (inputs, targets), received {type(pair).__name__}")
    inputs: Sequence[Array] = (pair[0],) if isinstance(pair[0], np.ndarray) else tuple(pair[0])
    targets = np.asarray(pair[1])
    lengths = {len(array) for array in (*inputs, targets)}
    if len(lengths) != 1:
        raise ConfigError(f"{where}: inputs and targets differ in length: {sorted(lengths)}")
    if not len(targets):
        raise ConfigError(f"{where}: no examples")
    return Dataset(tuple(inputs), targets)
