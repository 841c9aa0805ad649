"""Examples with their targets."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import NamedTuple, Protocol

import numpy as np
from numpy.typing import NDArray

from xbackend_fl.data.column import Array, Column, is_read, prefetch, read
from xbackend_fl.data.examine import extreme_values
from xbackend_fl.errors import ConfigError
from xbackend_fl.losses import parts_of

SPLITS = ("train", "validation", "test")
"""The parts of a data set, by the names that loaders give them."""


class Examples(NamedTuple):
    """Some examples in memory, in ONNX layout.

    Attributes:
        inputs: One array per model input, batch first.
        targets: Of the same examples.
    """

    inputs: tuple[Array, ...]
    targets: Array


class Stream(Protocol):
    """Examples that come in batches and in an order of their own.

    Attributes:
        where: Whose they are, for messages.
        some: The first and the last examples.
        sizes: How many batches there are of each size; empty if examples come one by one.
    """

    where: str
    some: Examples
    sizes: Mapping[int, int]

    def batches(self, batch_size: int) -> Iterator[Examples]:
        """All examples once; ``batch_size`` is for those that come one by one."""
        ...

    def num_batches(self, batch_size: int) -> int:
        """Batches of one pass."""
        ...


@dataclass(frozen=True)
class Dataset:
    """Examples in ONNX layout.

    Attributes:
        inputs: One array, or one column that reads rows when they are asked for, per model input; batch first, channels first.
        targets: Class indices in the shape of the output without its class axis, or numbers in the shape of the output, ``[N, ...]``. For several
            outputs with a loss each a structured array ``[N]`` with a field for every one.
        rows: Which examples of the arrays belong to it, in its own order; all if left out. Parts of a data set share
            its arrays: a thousand participants need no more memory than one.
        notes: What was handed over as something else than arrays, one line each, for people.
        stream: Where examples come from that have no order but that in which they come; they have no rows by number.
    """

    inputs: tuple[Column, ...]
    targets: Array
    rows: NDArray[np.intp] | None = None
    notes: tuple[str, ...] = ()
    stream: Stream | None = None

    def __len__(self) -> int:
        return len(self.targets if self.rows is None else self.rows)

    def subset(self, indices: NDArray[np.intp]) -> Dataset:
        """The examples at ``indices`` over the same arrays.

        Raises:
            ConfigError: They have no numbers.
        """
        if self.stream is not None:
            raise ConfigError(
                "training examples that come in an order of their own cannot be shared out among participants",
                hint="hand over a data set with a length and __getitem__; or let every participant name its own: participants: [{…, data: data.py:load}]",
            )
        return Dataset(self.inputs, self.targets, indices if self.rows is None else self.rows[indices])

    def gather(self, indices: NDArray[np.intp]) -> Examples:
        """Copies of the examples at ``indices``, in memory."""
        rows = indices if self.rows is None else self.rows[indices]
        return Examples(tuple(read(column, rows) for column in self.inputs), read(self.targets, rows))

    def prefetch(self, indices: NDArray[np.intp]) -> None:
        """Let the system read the examples at ``indices`` that lie in files, before they are asked for."""
        rows = indices if self.rows is None else self.rows[indices]
        for column in self.inputs:
            prefetch(column, rows)

    @property
    def tried(self) -> Dataset:
        """Itself; of a stream the first and the last examples, by number."""
        return self if self.stream is None else Dataset(*self.stream.some)

    @property
    def is_read(self) -> bool:
        """Whether its examples take time to be had, and may be read by another thread: what draws at random may not, nor a stream."""
        return self.stream is None and any(map(is_read, self.inputs))

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


def extreme_rows(data: Dataset) -> NDArray[np.intp]:
    """Examples with the smallest and largest numbers of each array of inputs or of float targets, ``[K]``.

    Those with the floats closest to zero are among them; so are those with the extreme integers of each column.
    """
    targets = [part for part in parts_of(data.targets).values() if part.dtype.kind == "f"]
    columns = (*data.inputs, *targets)
    found = {row for column in columns for row in extreme_values(column, data.rows)}
    return np.asarray(sorted(found), np.intp)


def input_names(count: int) -> list[str]:
    """What messages call the inputs of a model."""
    return ["inputs"] if count == 1 else [f"inputs[{index}]" for index in range(count)]
