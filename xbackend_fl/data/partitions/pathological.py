"""Few classes each: examples sorted by class are cut into pieces, ``classes`` for every participant (McMahan et al. 2017)."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Annotated, ClassVar, Literal

import numpy as np
from annotated_types import Ge

from xbackend_fl.data.draws import generator
from xbackend_fl.data.partition import Partition, Pool, Shards, filled


@dataclass(frozen=True)
class Pathological(Partition):
    """Participants have few classes, and as many examples.

    Attributes:
        classes: Pieces, and so about classes, of a participant.
    """

    by_class: ClassVar[bool] = True
    kind: Literal["pathological"] = "pathological"
    classes: Annotated[int, Ge(1)] = 2

    def shards(self, pool: Pool, names: Sequence[str], seed: int) -> Shards:
        """See :class:`~xbackend_fl.data.partition.Partition`."""
        assert pool.classes is not None
        ordered, source = sorted(names), generator(seed, "partition")
        shuffled = source.permutation(pool.num_examples)
        by_class = shuffled[np.argsort(pool.classes[shuffled], kind="stable")]
        pieces = np.array_split(by_class, len(ordered) * self.classes)
        dealt = source.permutation(len(pieces)).reshape(len(ordered), self.classes)
        return filled(
            {
                name: np.sort(np.concatenate([pieces[i] for i in row]))
                for name, row in zip(ordered, dealt, strict=True)
            }
        )


PARTITION = Pathological
