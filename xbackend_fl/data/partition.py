"""What shares a data set out among participants, and what it is told."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any, ClassVar, TypeAlias

import numpy as np
from numpy.typing import NDArray

from xbackend_fl.errors import ConfigError
from xbackend_fl.registry import Registered

_ATTEMPTS = 100

Shards: TypeAlias = dict[str, NDArray[np.intp]]
"""Rows of every participant, in ascending order."""


@dataclass(frozen=True)
class Pool:
    """The examples that are shared out.

    Attributes:
        num_examples: How many.
        classes: The class of every example, ``[N]``, for partitions that look at it.
        owners: Who made each example, ``[N]``, if the data say so.
    """

    num_examples: int
    classes: NDArray[np.generic] | None = None
    owners: NDArray[np.generic] | None = None


@dataclass(frozen=True)
class Partition(Registered, ABC):
    """How training data are shared out. The fields of a kind are the keys of ``data.partition``.

    Attributes:
        by_class: Whether it looks at classes, so that every example must have one.
        kind: What courses call it: the name of its file.
    """

    by_class: ClassVar[bool] = False
    kind: str

    @abstractmethod
    def shards(self, pool: Pool, names: Sequence[str], seed: int) -> Shards:
        """Who gets which rows.

        Args:
            pool: What is shared out.
            names: Participants; shards go by sorted name.
            seed: The course's seed.

        Raises:
            ConfigError: The examples cannot be shared out so.
        """


def filled(shards: Shards) -> Shards:
    """Shards of which none is empty.

    Raises:
        ConfigError: One is.
    """
    empty = [name for name, rows in shards.items() if not len(rows)]
    if empty:
        raise ConfigError(f"participant {empty[0]!r} has no examples ({len(empty)} in all)")
    return shards


def drawn_until(draw: Callable[[int], Shards], min_examples: int, drawn: str) -> Shards:
    """The first draw in which everybody has enough.

    Args:
        draw: Makes shards, given the number of the draw.
        min_examples: Fewest examples of a participant.
        drawn: What is drawn, in words.

    Raises:
        ConfigError: No draw gave every participant enough examples.
    """
    for attempt in range(_ATTEMPTS):
        found = draw(attempt)
        if min(map(len, found.values())) >= max(min_examples, 1):
            return found
    smallest = min(found, key=lambda name: len(found[name]))
    raise ConfigError(
        f"participant {smallest!r} has {len(found[smallest])} examples, expected at least {min_examples} "
        f"({_ATTEMPTS} draws of {drawn} over {len(found)} participants)",
        hint="raise data.partition.alpha, lower data.partition.min_examples, or have fewer participants",
    )


def dealt(order: NDArray[Any], cuts: NDArray[np.intp] | int, names: Sequence[str]) -> Shards:
    """Rows cut into one piece for every participant, by sorted name.

    Args:
        order: The rows, as they are dealt.
        cuts: Where pieces end, or how many equal ones there are.
        names: Participants.
    """
    pieces = np.array_split(order, cuts)
    return {name: np.sort(piece) for name, piece in zip(sorted(names), pieces, strict=True)}
