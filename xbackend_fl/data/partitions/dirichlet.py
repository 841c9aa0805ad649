"""Label skew: each class is shared out by a draw from ``Dirichlet(alpha)`` (Hsu et al. 2019)."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from functools import partial
from typing import Annotated, ClassVar, Literal

import numpy as np
from annotated_types import Ge
from numpy.typing import NDArray

from xbackend_fl.data.draws import generator
from xbackend_fl.data.partition import Partition, Pool, Shards, drawn_until
from xbackend_fl.registry import Positive


@dataclass(frozen=True)
class Dirichlet(Partition):
    """Participants differ in their classes, and so in their sizes.

    Attributes:
        alpha: Concentration; small values give every participant few classes.
        min_examples: Fewest examples of a participant: draws are repeated until everybody has them.
    """

    by_class: ClassVar[bool] = True
    kind: Literal["dirichlet"] = "dirichlet"
    alpha: Positive = 0.5
    min_examples: Annotated[int, Ge(1)] = 1

    def shards(self, pool: Pool, names: Sequence[str], seed: int) -> Shards:
        """See :class:`~xbackend_fl.data.partition.Partition`."""
        assert pool.classes is not None
        draw = partial(self._drawn, pool.classes, sorted(names), seed)
        return drawn_until(draw, self.min_examples, f"Dirichlet({self.alpha})")

    def _drawn(self, classes: NDArray[np.generic], names: list[str], seed: int, attempt: int) -> Shards:
        source = generator(seed, "partition", attempt)
        parts: list[list[NDArray[np.intp]]] = [[] for _ in names]
        for label in np.unique(classes):
            members = source.permutation(np.flatnonzero(classes == label))
            sizes = source.dirichlet([self.alpha] * len(names))
            cuts = (np.cumsum(sizes)[:-1] * len(members)).astype(np.intp)
            for part, piece in zip(parts, np.split(members, cuts), strict=True):
                part.append(piece)
        return {name: np.sort(np.concatenate(part)) for name, part in zip(names, parts, strict=True)}


PARTITION = Dirichlet
