"""Random shards of log-normal sizes; every participant has one example at least."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Annotated, Literal

import numpy as np
from annotated_types import Ge, Le

from xbackend_fl.data.draws import generator
from xbackend_fl.data.partition import Partition, Pool, Shards, dealt
from xbackend_fl.errors import ConfigError


@dataclass(frozen=True)
class Quantity(Partition):
    """Participants differ in their sizes alone.

    Attributes:
        sigma: Standard deviation of the logarithm of the sizes; 0 gives equal ones.
    """

    kind: Literal["quantity"] = "quantity"
    sigma: Annotated[float, Ge(0), Le(50)] = 1.0

    def shards(self, pool: Pool, names: Sequence[str], seed: int) -> Shards:
        """See :class:`~xbackend_fl.data.partition.Partition`."""
        source, spare = generator(seed, "partition"), pool.num_examples - len(names)
        if spare < 0:
            raise ConfigError(f"{len(names)} participants cannot share {pool.num_examples} examples")
        raw = np.exp(source.normal(0, self.sigma, len(names)))
        cuts = np.floor(np.cumsum(raw)[:-1] / raw.sum() * spare + 0.5).astype(int)
        # One example is set aside for everybody, so no shard is empty.
        cuts += np.arange(1, len(names))
        return dealt(source.permutation(pool.num_examples), cuts, names)


PARTITION = Quantity
