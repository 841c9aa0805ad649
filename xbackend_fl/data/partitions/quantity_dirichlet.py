"""Quantity skew: sizes are a draw from ``Dirichlet(alpha)``, and classes are mixed (Li et al. 2022, *Federated Learning on Non-IID Data Silos*)."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Annotated, Literal

import numpy as np
from annotated_types import Ge

from xbackend_fl.data.draws import generator
from xbackend_fl.data.partition import Partition, Pool, Shards, dealt, drawn_until
from xbackend_fl.registry import Positive


@dataclass(frozen=True)
class QuantityDirichlet(Partition):
    """Participants differ in their sizes alone.

    Attributes:
        alpha: Concentration; small values give a few participants most of the examples.
        min_examples: Fewest examples of a participant: draws are repeated until everybody has them.
    """

    kind: Literal["quantity_dirichlet"] = "quantity_dirichlet"
    alpha: Positive = 0.5
    min_examples: Annotated[int, Ge(1)] = 1

    def shards(self, pool: Pool, names: Sequence[str], seed: int) -> Shards:
        """See :class:`~xbackend_fl.data.partition.Partition`."""

        def draw(attempt: int) -> Shards:
            source = generator(seed, "partition", attempt)
            sizes = source.dirichlet([self.alpha] * len(names))
            cuts = np.rint(np.cumsum(sizes)[:-1] * pool.num_examples).astype(np.intp)
            return dealt(source.permutation(pool.num_examples), cuts, names)

        return drawn_until(draw, self.min_examples, f"Dirichlet({self.alpha})")


PARTITION = QuantityDirichlet
