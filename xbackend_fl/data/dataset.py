"""Examples with their targets, and how a course gets them."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from xbackend_fl.errors import ConfigError
from xbackend_fl.locate import call

Array = NDArray[Any]


@dataclass(frozen=True)
class Dataset:
    """Examples in ONNX layout.

    Attributes:
        inputs: One array per model input, batch first, channels first.
        targets: Class indices ``[N]``, or an array of the shape of the output.
    """

    inputs: tuple[Array, ...]
    targets: Array

    def __len__(self) -> int:
        return len(self.targets)

    def take(self, indices: NDArray[np.intp]) -> Dataset:
        """The examples at ``indices``."""
        return Dataset(tuple(array[indices] for array in self.inputs), self.targets[indices])


@dataclass(frozen=True)
class Splits:
    """The parts of a data set.

    Attributes:
        train: What participants share out among themselves.
        validation: Watched every round; it chooses the best weights.
        test: Looked at once, at the end.
    """

    train: Dataset
    validation: Dataset
    test: Dataset


def load_splits(text: str, base: Path) -> Splits:
    """Call ``FILE_OR_MODULE:CALLABLE`` and check what it returns.

    Args:
        text: The callable. It returns a mapping from ``train``, ``validation`` and ``test`` to
            ``(inputs, targets)``, where inputs is an array or a sequence of arrays in ONNX layout.
        base: Folder that relative files start from.

    Raises:
        ConfigError: It returns something else, or a part is empty or uneven.
    """
    found = call(text, base)
    if not isinstance(found, dict) or set(found) != {"train", "validation", "test"}:
        raise ConfigError(
            f"{text} must return a dict with the keys 'train', 'validation' and 'test', "
            f"received {sorted(found) if isinstance(found, dict) else type(found).__name__}"
        )
    return Splits(**{name: _dataset(f"{text}: {name}", part) for name, part in found.items()})


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
