"""Metrics of the order of scores, from histograms that add up: counts of positions, by the rank of their score among all float64 numbers.

A score is a logit; of classes, the logarithm of the odds of the class against all others, which orders positions as its softmax does and
does not run into 1. Every number that a float64 can be is a bin of its own, so that equal scores, and no others, are ties: no crowd is too
close, and no score too far. Where more scores differ than there are bins, the last bits of all ranks are dropped, as few as will do. That
depends on nothing but all scores together, so that any division of them adds up to the same counts. What it can cost is known from the
counts: pairs of one bin whose order is lost. A figure that may be further than :data:`EXACT` from that of the scores themselves is not given.
"""

from __future__ import annotations

from abc import abstractmethod
from collections.abc import Collection
from dataclasses import dataclass
from typing import Annotated, Any, NamedTuple

import numpy as np
from annotated_types import Ge, Le
from numpy.typing import NDArray
from pydantic import StrictInt

from xbackend_fl.metrics.metric import Figures, MetricState, OfClasses, Sums
from xbackend_fl.metrics.objective import Shape
from xbackend_fl.metrics.pairs import Pairs, columns_of

EXACT = 1e-3
Counts = NDArray[np.int64]


class Histogram(NamedTuple):
    """Counts of positions, by score.

    Attributes:
        shift: How many bits of ranks are dropped.
        ranks: What is left of them, rising, ``[M]``.
        others: Positions of other classes in every bin, ``[M]``.
        own: Positions of the class in every bin, ``[M]``.
    """

    shift: int
    ranks: Counts
    others: Counts
    own: Counts

    def sums(self) -> Counts:
        """As one flat array, ``[1 + 3 M]``."""
        return np.concatenate([[self.shift], self.ranks, self.others, self.own]).astype(np.int64)

    @staticmethod
    def from_sums(counts: Counts) -> Histogram:
        """The inverse of :meth:`sums`."""
        ranks, others, own = counts[1:].reshape(3, -1)
        return Histogram(int(counts[0]), ranks, others, own)

    @staticmethod
    def from_scores(scores: NDArray[np.float64], own: NDArray[np.bool_], bins: int) -> Histogram:
        """Counts of scores; those that are no numbers are not counted.

        Args:
            scores: ``[P]``.
            own: Whether a position is of the class, ``[P]``.
            bins: Most bins.
        """
        there = ~np.isnan(scores)
        # Minus zero is zero.
        bits = (scores[there] + 0.0).view(np.int64)
        # Of negative numbers the larger bits are the smaller number.
        ranks = bits ^ ((bits >> 63) & np.int64(0x7FFFFFFFFFFFFFFF))
        mine = own[there].astype(np.int64)
        return _gathered(0, ranks, 1 - mine, mine, bins)

    def added(self, other: Histogram, bins: int) -> Histogram:
        """The counts of both."""
        shift = max(self.shift, other.shift)
        left, right = (one.ranks >> (shift - one.shift) for one in (self, other))
        return _gathered(
            shift,
            np.concatenate([left, right]),
            np.concatenate([self.others, other.others]),
            np.concatenate([self.own, other.own]),
            bins,
        )


def _gathered(shift: int, ranks: Counts, others: Counts, own: Counts, bins: int) -> Histogram:
    """One bin for each rank, or for several where there are too many."""
    order = np.argsort(ranks, kind="stable")
    ranks = ranks[order]
    apart = (ranks[1:] ^ ranks[:-1]).view(np.uint64)
    # The fewest bits to drop; `apart` has none left above the 63rd but where the sign changes, which stays.
    low, high = 0, 63
    while low < high:
        middle = (low + high) // 2
        if np.count_nonzero(apart >> np.uint64(middle)) < bins:
            high = middle
        else:
            low = middle + 1
    ranks = ranks >> low
    starts = np.flatnonzero(np.concatenate([[True], ranks[1:] != ranks[:-1]])) if len(ranks) else order
    return Histogram(
        shift + low,
        ranks[starts],
        np.add.reduceat(others[order], starts) if len(ranks) else others,
        np.add.reduceat(own[order], starts) if len(ranks) else own,
    )


def log_odds(scores: NDArray[np.float64]) -> NDArray[np.float64]:
    """``log(p / (1 - p))`` of every class by softmax, ``[P, classes]``, exact where ``p`` is next to 1."""
    rows = np.arange(len(scores))
    largest = scores.argmax(1)
    top = scores[rows, largest][:, None]
    with np.errstate(divide="ignore", invalid="ignore"):
        shares = np.exp(scores - top)
        found = scores - top - np.log(shares.sum(1, keepdims=True) - shares)
        rest = scores.copy()
        rest[rows, largest] = -np.inf
        second = rest.max(1)
        others = second + np.log(np.exp(rest - second[:, None]).sum(1))
        found[rows, largest] = top[:, 0] - others
    return np.asarray(found)


@dataclass(frozen=True)
class Ranking(OfClasses):
    """A mean over classes of a figure of the order in which scores put positions of the class and all others.

    A class of which there is no position, or nothing but positions, has no figure, and is not in the mean.

    Attributes:
        bins: Most bins of all classes together. Counts need up to 24 bytes for each.
    """

    bins: Annotated[StrictInt, Ge(1 << 10), Le(1 << 24)] = 1 << 18

    @abstractmethod
    def score(self, found: Histogram) -> tuple[float, float]:
        """The figure of a class, if positions of one bin are ties, and how far that of the scores themselves may be from it.

        Args:
            found: Has positions of the class and others.
        """

    def max_sums(self, output: Shape) -> int:
        """See :class:`~xbackend_fl.metrics.metric.Metric`."""
        return max(output, default=1)

    def max_counts(self, output: Shape) -> int:
        """See :class:`~xbackend_fl.metrics.metric.Metric`."""
        return 3 * self.bins + 4 * max(output, default=1)

    def measure(self, pairs: Pairs) -> Sums:
        """See :class:`~xbackend_fl.metrics.metric.Metric`."""
        if pairs.objective.class_axis is not None:
            scores = log_odds(pairs.outputs)
            each = [(scores[:, place], pairs.targets == place) for place in range(scores.shape[1])]
        else:
            logits, own = pairs.outputs[:, 0], pairs.targets[:, 0] > 0.5
            labels = np.zeros(len(logits), np.intp) if pairs.labels is None else pairs.labels
            each = [
                (logits[labels == n], own[labels == n]) for n in range(columns_of(pairs.objective.output))
            ]
        return {
            f"{self.label}.{place}": Histogram.from_scores(*pair, self._bins(len(each))).sums()
            for place, pair in enumerate(each)
        }

    def merge(self, one: MetricState, other: MetricState) -> Sums:
        """See :class:`~xbackend_fl.metrics.metric.Metric`."""
        bins = self._bins(len(one.sums))
        return {
            name: Histogram.from_sums(counts).added(Histogram.from_sums(other.sums[name]), bins).sums()
            for name, counts in one.sums.items()
        }

    def figures(self, state: MetricState) -> Figures:
        """See :class:`~xbackend_fl.metrics.metric.Metric`."""
        found = {name: Histogram.from_sums(counts) for name, counts in state.sums.items()}
        if not _complete(found.values(), state.positions):
            return Figures({}, f"{self.label} is not defined: some scores are no numbers")
        scored = {name: self.score(one) for name, one in found.items() if one.own.sum() and one.others.sum()}
        if not scored:
            return Figures({}, f"{self.label} is not defined: no class has positions and others beside it")
        figure, error = np.mean([*scored.values()], axis=0)
        if error > EXACT:
            return Figures(
                {},
                f"{self.label} is not known to {EXACT:g}, but to {error:.1g}: too many scores lie too close for {self.bins:,} bins "
                f"({{name: {self.name}, bins: {min(16 * self.bins, 1 << 24)}}})",
            )
        note = (
            ""
            if len(scored) == len(found)
            else (
                f"{self.label} is the mean over {len(scored)} of {len(found)} classes; of the others there is no position, or nothing else"
            )
        )
        shown = {name: value for name, (value, error) in scored.items() if self.per_class and error <= EXACT}
        return Figures({self.label: float(figure)} | shown, note)

    def impossible(self, state: MetricState, output: Shape) -> str | None:
        """See :class:`~xbackend_fl.metrics.metric.Metric`."""
        classes = len(state.sums)
        if classes not in {1, *output} or state.sums.keys() != {f"{self.label}.{n}" for n in range(classes)}:
            return f"{self.label} is not a histogram for each class"
        found = {}
        for name, counts in state.sums.items():
            if len(counts) % 3 != 1 or len(counts) > 1 + 3 * self._bins(classes):
                return f"{name} is no histogram of at most {self._bins(classes)} bins"
            found[name] = one = Histogram.from_sums(counts)
            several = np.concatenate([one.own, one.others])
            if not 0 <= one.shift <= 63 or (one.ranks[1:] <= one.ranks[:-1]).any():
                return f"{name} has bins in no order"
            if ((several < 0) | (several > state.positions)).any():
                return f"{name} has counts that {state.positions} positions do not give"
        if not _complete(found.values(), state.positions):
            return f"{self.label} does not count every position once"
        return None

    def _bins(self, classes: int) -> int:
        """Most bins of each of so many classes."""
        return max(2, self.bins // classes)


def _complete(found: Collection[Histogram], positions: int) -> bool:
    """Whether every position is counted: of classes once in each histogram, of labels once in its own."""
    own = [float(one.own.sum(dtype=np.float64)) for one in found]
    every = [mine + float(one.others.sum(dtype=np.float64)) for mine, one in zip(own, found, strict=True)]
    return sum(every) == positions or (set(every) == {positions} and sum(own) == positions)


def parts(found: Histogram) -> tuple[NDArray[Any], NDArray[Any]]:
    """Positions of the class, and others, in every bin, as float64, by falling score."""
    return found.own[::-1].astype(np.float64), found.others[::-1].astype(np.float64)
