"""Which updates of a round are unlike the others: said, not refused, because only people know whether there is a reason.

An update is summed up in the length of its change and in a sample of it, a few kilobytes whatever the model's size, so that all of a round can be
compared after the updates are gone.
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from typing import Any, final

import numpy as np
from numpy.typing import NDArray

from xbackend_fl.canonical import Kind
from xbackend_fl.weights import Weights

_BLOCK = 1 << 16
_SAMPLE = 4096
"""Values of a sample, or a few more; a smaller model is sampled whole."""

TIMES = 10.0
"""A change that is so many times as long as the others' is an outlier."""

_AGAINST = -0.5
"""Cosine to the others' common direction below which a change goes against them."""

_TOGETHER = 0.5
"""Length of the mean of the others' directions from which they have a common one: 1 if all are the same, near 0 if they are random."""


@final
@dataclass(frozen=True)
class Change:
    """How an update differs from the weights that it started from, over the trainable parameters.

    Attributes:
        norm: Euclidean length.
        sample: Evenly spaced values of it, float64, divided by the length.
    """

    norm: float
    sample: NDArray[Any] = field(repr=False)

    @staticmethod
    def of(update: Weights, base: Weights) -> Change:
        """The change from ``base`` to ``update``, in float64, a block at a time."""
        names = [name for name in base if base.kinds[name] is Kind.TRAINABLE]
        step = max(1, sum(base[name].size for name in names) // _SAMPLE)
        squared, parts = 0.0, [np.empty(0)]
        for name in names:
            new, old = update[name].reshape(-1), base[name].reshape(-1)
            parts.append(new[::step].astype(np.float64) - old[::step])
            for start in range(0, new.size, _BLOCK):
                block = new[start : start + _BLOCK].astype(np.float64) - old[start : start + _BLOCK]
                squared += float(np.dot(block, block))
        norm = math.sqrt(squared)
        return Change(norm, np.concatenate(parts) / (norm or 1.0))


def unlike(changes: Mapping[str, Change]) -> Iterator[str]:
    """What to say of updates that stand out among those of a round, one sentence each.

    Args:
        changes: Of all updates of the round, by silo.
    """
    for name, change in changes.items():
        others = [other for silo, other in changes.items() if silo != name]
        if not others:
            return
        median = float(np.median([other.norm for other in others]))
        if change.norm > TIMES * median > 0:
            yield (
                f"the update of {name} stands out: it changes the weights by {change.norm:.1e} (norm), "
                f"{change.norm / median:.1e} times the median of the others', {median:.1e}"
            )
        if len(others) > 1 and (cosine := _cosine(change, others)) < _AGAINST:
            yield f"the update of {name} stands out: it goes against the others' common direction (cosine {cosine:.2f})"


def _cosine(change: Change, others: list[Change]) -> float:
    """Of a change and the others' common direction; 0 if they have none."""
    directions = [other.sample / (np.linalg.norm(other.sample) or 1.0) for other in others]
    common = np.mean(directions, axis=0)
    length, own = float(np.linalg.norm(common)), float(np.linalg.norm(change.sample))
    if length < _TOGETHER or own == 0:
        return 0.0
    return float(np.dot(change.sample, common)) / (length * own)
