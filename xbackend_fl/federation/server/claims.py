"""How much each silo says that it has. Its weight in every mean follows from it, nobody else can count it, and so it is bounded and said.

A silo's first word about its number of training examples holds: an update may claim no more. Whoever would be nearly the whole mean is told of before the first
round, and whoever's figures would be nearly all of the figures when they come.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import final

import numpy as np

from xbackend_fl.errors import UpdateRefused
from xbackend_fl.federation.protocol.message import Message, quoted
from xbackend_fl.federation.server.outliers import TIMES

_TRAINING = "training examples"


@final
class Claims:
    """What silos have said about their examples.

    Args:
        max_examples: Training examples that any silo may say it has.
    """

    def __init__(self, max_examples: int) -> None:
        self._max_examples = max_examples
        self._stated: dict[str, int] = {}
        self._open: set[str] = set()
        self._told: set[tuple[str, str, int]] = set()

    def on_hello(self, name: str, hello: Message) -> None:
        """A silo says who it is, for the first time or again.

        One that trains by a loop of its own on data of a kind of its own states nothing (``null``): every update of it says how many they are.

        Raises:
            UpdateRefused: It states no number of examples that a silo can have.
        """
        if hello.fields.get("num_examples", 0) is None:
            self._open.add(name)
        else:
            self._stated.setdefault(name, self._whole(hello.fields.get("num_examples")))

    def check(self, name: str, num_examples: object) -> int:
        """What an update claims to stand for.

        Raises:
            UpdateRefused: It is no such number, or more than its silo stated.
        """
        size = self._whole(num_examples)
        if name in self._open:
            self._stated[name] = max(size, self._stated.get(name, 0))
        stated = self._stated.get(name, self._max_examples)
        if size > stated:
            raise UpdateRefused(
                f"num_examples is {size}, and the silo said at first that it has {stated}",
                hint="xbfl serve RUN --resume hears again how many examples every silo has",
            )
        return size

    def _whole(self, value: object) -> int:
        # True is 1 to Python.
        if isinstance(value, bool) or not isinstance(value, int) or not 0 < value <= self._max_examples:
            raise UpdateRefused(
                f"num_examples is {quoted(value)}, expected a whole number from 1 to {self._max_examples} (deployment.max_examples)"
            )
        return value

    def notes(self) -> Iterator[str]:
        """What to say of silos that would outweigh the others in the mean of the updates, once of each."""
        yield from self._outweighing(_TRAINING, self._stated)

    def figures(self, split: str, positions: Mapping[str, int]) -> Iterator[str]:
        """The same of figures.

        Args:
            split: What they are about.
            positions: By silo, how many targets they are over.
        """
        yield from self._outweighing(f"{split} targets", positions)

    def _outweighing(self, what: str, sizes: Mapping[str, int]) -> Iterator[str]:
        total = sum(sizes.values())
        for name, size in sizes.items():
            others = [other for silo, other in sizes.items() if silo != name]
            if not others or size <= TIMES * float(np.median(others)) or (name, what, size) in self._told:
                continue
            self._told.add((name, what, size))
            means = "mean of the updates" if what == _TRAINING else "figures"
            yield (
                f"silo {name!r} says that it has {size:,} {what}: {100 * size / total:.1f} % of all, which is its share of the {means} "
                f"(the median of the others is {np.median(others):,.0f})"
            )
