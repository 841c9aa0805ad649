"""To every participant the examples of one owner; of every n-th owner, if there are more owners."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal

import numpy as np

from xbackend_fl.data.partition import Partition, Pool, Shards
from xbackend_fl.errors import ConfigError


@dataclass(frozen=True)
class ById(Partition):
    """Owners go by sorted name to sorted owner."""

    kind: Literal["by_id"] = "by_id"

    def shards(self, pool: Pool, names: Sequence[str], seed: int) -> Shards:
        """See :class:`~xbackend_fl.data.partition.Partition`."""
        del seed
        if pool.owners is None:
            raise ConfigError(
                "data.partition by_id: the data do not say whose each example is", hint="return 'owners' too"
            )
        _, position = np.unique(pool.owners, return_inverse=True)
        ordered, count = sorted(names), int(position.max()) + 1
        if count < len(ordered):
            raise ConfigError(f"data.partition by_id: {count} owners for {len(ordered)} participants")
        by_owner = np.argsort(position, kind="stable")
        starts = np.searchsorted(position[by_owner], np.arange(count + 1))
        parts = [by_owner[starts[i] : starts[i + 1]] for i in range(count)]
        return {
            name: np.sort(np.concatenate(parts[index :: len(ordered)])) for index, name in enumerate(ordered)
        }


PARTITION = ById
