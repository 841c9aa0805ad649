"""Batches in a row, as one call of a graph takes them."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from typing import Any

import numpy as np
import tensorflow as tf

from xbackend_fl.adapter.contract import Array, Batch, TrainConfig
from xbackend_fl.losses import each_of

_LONGEST = 64
_LARGEST = 16 << 20
"""Batches, and about how many bytes of them, that one call of a graph takes."""


def of_any_size(stacked: Any) -> Any:
    """Any number of batches of any size."""
    return tf.TensorSpec((None, None, *stacked.shape[2:]), stacked.dtype)


def rows_of(batches: Iterable[Batch]) -> Iterator[list[Batch]]:
    """Batches in a row that have one size, not more of them than are small beside a model."""
    row: list[Batch] = []
    for batch in batches:
        size = sum(array.nbytes for array in batch.inputs)
        if row and (_shapes(row[0]) != _shapes(batch) or len(row) == _LONGEST or size * len(row) >= _LARGEST):
            yield row
            row = []
        row.append(batch)
    if row:
        yield row


def _shapes(batch: Batch) -> tuple[Any, ...]:
    return (batch.targets.shape, *(array.shape for array in batch.inputs))


def numbers_of(config: TrainConfig, done: int, count: int) -> Array:
    """Numbers of the optimizer for the next steps, ``[count, 4]``."""
    rates = config.rates[done : done + count] if config.rates else (None,) * count
    rows = [config.optimizer.numbers(done + 1 + i, rate) for i, rate in enumerate(rates)]
    return np.array(rows, np.float32)


def stacked(row: Sequence[Batch]) -> tuple[list[Any], Any]:
    """Inputs, and targets or those of every head by name, of batches of one size: ``[batches, N, ...]``."""
    inputs = [tf.convert_to_tensor(np.stack(arrays)) for arrays in zip(*(b.inputs for b in row), strict=True)]
    return inputs, each_of(np.stack([batch.targets for batch in row]), tf.convert_to_tensor)
