"""Every random choice of a course: counter-based generators keyed by what the choice is for.

A choice depends on nothing but its key, so any worker, in any order, on any backend, draws the same.
"""

from __future__ import annotations

import hashlib
from collections.abc import Iterator, Sequence

import numpy as np
from numpy.typing import NDArray


def generator(*key: int | str) -> np.random.Generator:
    """A Philox generator (Salmon et al. 2011) for ``key``, for example ``(seed, "batches", round, name)``."""
    return np.random.Generator(np.random.Philox(key=_words(key)))


def seed_of(*key: int | str) -> int:
    """A 31-bit seed for ``key``, for a framework's own generator."""
    return int(_words(key)[0] & 0x7FFFFFFF)


def batches(
    num_examples: int, batch_size: int, epochs: int, steps: int | None, *key: int | str
) -> Iterator[NDArray[np.intp]]:
    """Indices of the examples of every step.

    Args:
        num_examples: Size of the participant's data.
        batch_size: Examples per step; the last batch of an epoch may be smaller.
        epochs: Passes over the data, each in its own random order.
        steps: Stop after this many steps, over as many epochs as it takes; replaces ``epochs``.
        *key: What the order is for.
    """
    source = generator(*key)
    epoch, step = 0, 0
    while steps is not None or epoch < epochs:
        order = source.permutation(num_examples)
        for start in range(0, num_examples, batch_size):
            if steps is not None and step == steps:
                return
            yield order[start : start + batch_size]
            step += 1
        epoch += 1


def cohort(names: Sequence[str], size: int, *key: int | str) -> list[str]:
    """``size`` of the participants, sorted by name, whatever the order of ``names``."""
    ordered = sorted(names)
    if size >= len(ordered):
        return ordered
    chosen = generator(*key).choice(len(ordered), size, replace=False)
    return [ordered[index] for index in sorted(chosen)]


def _words(key: tuple[int | str, ...]) -> NDArray[np.uint64]:
    digest = hashlib.sha256("\0".join(map(str, key)).encode()).digest()
    return np.frombuffer(digest[:16], "<u8")
