"""The good data as the data sets and loaders of PyTorch, and as Hugging Face's."""

from __future__ import annotations

from typing import Any

import datasets
import numpy as np
import torch
from torch.utils.data import DataLoader, TensorDataset

from tests.participant import loaders


def arrays() -> Any:
    return loaders.good()["train"]


def items() -> Any:
    inputs, targets = arrays()
    return TensorDataset(torch.from_numpy(inputs), torch.from_numpy(targets))


def hugging_face() -> Any:
    inputs, targets = arrays()
    return datasets.Dataset.from_dict({"x": inputs, "label": targets}).with_format("numpy")


def loader() -> Any:
    return DataLoader(items(), batch_size=20)


def every_split() -> Any:
    return {name: loader() for name in loaders.SIZES}


def evaluated() -> Any:
    found = loaders.good()
    for name in ("validation", "test"):
        inputs, targets = map(torch.from_numpy, found[name])
        found[name] = DataLoader(TensorDataset(inputs, targets), batch_size=5)
    return found


class Shrinking:
    """Fewer examples from the third time on: it is counted, and trained on once."""

    def __init__(self) -> None:
        self.times = 0

    def __iter__(self) -> Any:
        self.times += 1
        inputs, targets = arrays()
        ends = len(targets) if self.times < 3 else 20
        for start in range(0, ends, 10):
            yield inputs[start : start + 10], targets[start : start + 10]


def shrinking() -> Any:
    return Shrinking()


def damaged() -> Any:
    """An array of which the last rows cannot be read."""
    inputs, targets = arrays()

    class Stored:
        shape, dtype, chunks = inputs.shape, inputs.dtype, (10, 8)

        def __getitem__(self, rows: slice) -> Any:
            if rows.indices(len(inputs))[1] > 40:
                raise OSError("checksum")
            return inputs[rows]

    return Stored(), targets


def of_two() -> Any:
    """Targets of two numbers for each example."""
    found = loaders.good()
    return {name: (inputs, np.stack([targets, targets], 1)) for name, (inputs, targets) in found.items()}


def some_ignored() -> Any:
    """Targets that do not count where ``transforms.py`` makes them so."""
    inputs, targets = arrays()
    return inputs, np.where(inputs[:, 0] > 0, -100, targets)


class Later:
    """A class that is none of the model from the third time on: it is counted, and trained on once."""

    def __init__(self) -> None:
        self.times = 0

    def __iter__(self) -> Any:
        self.times += 1
        inputs, targets = arrays()
        for start in range(0, len(targets), 12):
            found = targets[start : start + 12].copy()
            found[4] = 7 if self.times > 2 and start == 24 else found[4]
            yield inputs[start : start + 12], found


def later() -> Any:
    return Later()


def binary() -> dict[str, Any]:
    """The same with one label for each example."""
    found = loaders.good()
    return {
        name: (inputs, (labels[:, None] == 0).astype(np.float32)) for name, (inputs, labels) in found.items()
    }


def words() -> dict[str, Any]:
    """Five words of twenty for each example."""
    rng = np.random.default_rng(0)
    found = loaders.good()
    return {name: (rng.integers(0, 20, (len(labels), 5)), labels) for name, (_, labels) in found.items()}


class Failing:
    """Examples by number, of which one is no more what it was after so many have been read."""

    def __init__(self, what: str, after: int) -> None:
        self.what, self.after, self.read = what, after, 0
        self.inputs, self.targets = arrays()

    def __len__(self) -> int:
        return len(self.targets)

    def __getitem__(self, index: int) -> Any:
        self.read += 1
        found, target = self.inputs[index], self.targets[index]
        if self.read <= self.after or index != 13:
            return found, target
        if self.what == "gone":
            raise OSError("the disk is gone")
        if self.what == "early":
            raise IndexError(index)
        changed = {
            "target": (found, target + 1),
            "dtype": (found.astype(np.float64), target),
            "shape": (found[:3], target),
            "nan": (found * np.float32("nan"), target),
        }
        return changed[self.what]


def failing(what: str, rounds: int) -> Any:
    """A data set that breaks after so many rounds; it is read once when it is opened, and 32 examples of it again."""
    size = len(arrays()[1])
    return Failing(what, size + 32 + rounds * size)
