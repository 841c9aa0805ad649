"""What participants do not train on, so that the shared model can be validated at every one of them."""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np

from xbackend_fl.data import Dataset, generator
from xbackend_fl.errors import ConfigError


def held_out(
    shards: Mapping[str, Dataset], share: float, seed: int
) -> tuple[dict[str, Dataset], dict[str, Dataset]]:
    """Divide every participant's examples by a draw of its own: what it trains on, and what it validates on.

    Args:
        shards: By participant.
        share: Of the examples that are held out: one at least, and not all.
        seed: The course's.

    Raises:
        ConfigError: A participant has one example, or its examples have no numbers.
    """
    kept: dict[str, Dataset] = {}
    apart: dict[str, Dataset] = {}
    for name, data in shards.items():
        if data.stream is not None:
            raise ConfigError(
                f"participant {name!r}: of examples that come in an order of their own none can be held out to validate on",
                hint="hand over a data set with a length and __getitem__, or evaluation.validation: common",
            )
        if len(data) < 2:
            raise ConfigError(
                f"participant {name!r} has {len(data)} examples, of which none can be held out to validate on",
                hint="give it two at least, or evaluation.validation: common",
            )
        order = generator(seed, "held out", name).permutation(len(data))
        count = min(max(round(share * len(data)), 1), len(data) - 1)
        apart[name], kept[name] = data.subset(np.sort(order[:count])), data.subset(np.sort(order[count:]))
    return kept, apart
