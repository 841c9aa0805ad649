"""Equal random shards."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal

from xbackend_fl.data.draws import generator
from xbackend_fl.data.partition import Partition, Pool, Shards, dealt, filled


@dataclass(frozen=True)
class IID(Partition):
    """Everybody has as many examples, at random."""

    kind: Literal["iid"] = "iid"

    def shards(self, pool: Pool, names: Sequence[str], seed: int) -> Shards:
        """See :class:`~xbackend_fl.data.partition.Partition`."""
        return filled(dealt(generator(seed, "partition").permutation(pool.num_examples), len(names), names))


PARTITION = IID
