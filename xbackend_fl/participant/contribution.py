"""What came of participants: of one, and of a worker's share of a round."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import TypeAlias

from xbackend_fl.aggregation import PartialAggregate, Update
from xbackend_fl.errors import UpdateRefused
from xbackend_fl.metrics import Metrics
from xbackend_fl.participant.client import Arrays


@dataclass(frozen=True)
class PartialSum:
    """A worker's share of a round.

    Attributes:
        partial: What its participants' updates add up to, in canonical layout.
        failed: Participants whose update was refused, with the reason.
        hints: What such a reason says can be done, by name; who has none is not in it.
        states: Digest of what each of the others keeps, by its name; who keeps nothing is not in it.
    """

    partial: PartialAggregate
    failed: dict[str, str]
    hints: dict[str, str] = field(default_factory=dict)
    states: dict[str, str] = field(default_factory=dict)


@dataclass(frozen=True)
class Contribution:
    """What one participant gives for a round.

    Attributes:
        update: For the mean.
        kept: What it keeps if that is accepted, in canonical layout.
        metrics: Figures of its training that merge with those of others.
        figures: What a training loop of its own reports.
        notes: What people may want to know, one line each.
    """

    update: Update
    kept: Arrays
    metrics: Metrics
    figures: Mapping[str, float] = field(default_factory=dict)
    notes: tuple[str, ...] = ()

    @property
    def loss(self) -> float | None:
        """The mean training loss; ``None`` if nobody knows."""
        return self.metrics.figures.get("loss", self.figures.get("loss"))


Given: TypeAlias = tuple[str, Contribution | UpdateRefused, float]
"""Who trained, what came of it, and the seconds that it took."""
