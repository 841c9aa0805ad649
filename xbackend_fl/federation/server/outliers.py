"""Which updates of a round are unlike the others.

Most of that is said, not refused, because only people know whether there is a reason. An update that would leave nothing of the model, and nothing for the
others to go on with, is taken out.

An update is summed up in the lengths of its change and in a sample of it, a few kilobytes whatever the model's size, so that all of a round can be
compared after the updates are gone.
"""

from __future__ import annotations

import math
from collections.abc import Collection, Iterable, Iterator, Mapping
from dataclasses import dataclass, field
from typing import Any, final

import numpy as np
from numpy.typing import NDArray

from xbackend_fl.canonical import Kind
from xbackend_fl.federation.server.variances import Logs, far, leave_nothing, logs_of
from xbackend_fl.weights import Weights

_BLOCK = 1 << 16
_SAMPLE = 4096
"""Values of a sample, or a few more; a smaller model is sampled whole."""

TIMES = 10.0
"""A change that is so many times as long as the others' is an outlier."""

_FAR = 1e3
"""The same for one that may be taken out."""

_LEAP = 0.25
"""A change that is so many times as long as the trainable weights themselves, and :data:`_FAR` from the others', is a leap: weights that were doubled, turned
round or set to zero are; no step of training that is a thousandth of it is far behind."""

_REACH: Mapping[Kind, float] = {Kind.TRAINABLE: 10.0, Kind.STATISTIC: 1e6}
"""A change that moves the average value by so many times its size, or the size 1, leaves nothing of what was there. Statistics are in the units of the
data, whose scale may be a silo's own."""

_AGAINST = -0.5
"""Cosine to the others' common direction below which a change goes against them."""

_TOGETHER = 0.5
"""Length of the mean of the others' directions from which they have a common one: 1 if all are the same, near 0 if they are random."""

_WHAT = {Kind.TRAINABLE: "the weights", Kind.STATISTIC: "the statistics"}


@final
@dataclass(frozen=True)
class Change:
    """How an update differs from the weights that it started from.

    Attributes:
        norms: Euclidean length, of the trainable parameters and of the statistics.
        sample: Evenly spaced values of the trainable parameters' change, float64, divided by the length.
        largest: Largest magnitude among the new values.
        variances: Logarithms of a sample of the new variances.
    """

    norms: Mapping[Kind, float]
    sample: NDArray[Any] = field(repr=False)
    largest: float = 0.0
    variances: Logs = field(default_factory=dict, repr=False)

    @staticmethod
    def from_weights(update: Weights, base: Weights, variances: Collection[str] = ()) -> Change:
        """The change from ``base`` to ``update``, in float64, a block at a time.

        Args:
            update: The new weights.
            base: Those it started from.
            variances: Names of those of which no value is negative.
        """
        trainable = sum(base[name].size for name in base if base.kinds[name] is Kind.TRAINABLE)
        step = max(1, trainable // _SAMPLE)
        squared, largest, parts = dict.fromkeys(_REACH, 0.0), 0.0, [np.empty(0)]
        for name in base:
            kind = base.kinds[name]
            if kind not in squared or not base[name].size:
                continue
            new, old = update[name].reshape(-1), base[name].reshape(-1)
            if kind is Kind.TRAINABLE:
                parts.append(new[::step].astype(np.float64) - old[::step])
            largest = max(largest, float(new.max()), -float(new.min()))
            squared[kind] += _squared(new, old)
        norms = {kind: math.sqrt(value) for kind, value in squared.items()}
        sample = np.concatenate(parts) / (norms[Kind.TRAINABLE] or 1.0)
        return Change(norms, sample, largest, logs_of(update, variances, _SAMPLE))


@final
@dataclass(frozen=True)
class Outlier:
    """How an update stands out among those of its round.

    Attributes:
        silo: Whose it is.
        times: How many times as long as the others' median its change is; below :data:`TIMES` if its direction alone is unlike theirs.
        how: The same in words: ``changes the weights by …``.
    """

    silo: str
    times: float
    how: str


def outliers(changes: Mapping[str, Change]) -> Iterator[Outlier]:
    """The updates that stand out among those of a round; one may do so in several ways.

    Args:
        changes: Of all updates of the round, by silo.
    """
    for name, change, others in _each(changes):
        if not others:
            return
        for kind, norm in change.norms.items():
            median = _median(others, kind)
            if norm > TIMES * median > 0:
                yield Outlier(name, norm / median, _moves(kind, norm, median))
        for times, how in far(change.variances, [other.variances for other in others]):
            yield Outlier(name, times, how)
        if len(others) > 1 and (cosine := _cosine(change, others)) < _AGAINST:
            how = f"goes against the others' common direction (cosine {cosine:.2f})"
            yield Outlier(name, -cosine, how)


def leaps(changes: Mapping[str, Change], base: Weights) -> list[Outlier]:
    """The updates that are far from the others' and as far from the weights that they started from; the longest first.

    Who did that once may have a reason, and the others come after it. Who does it again would take the course along round by round.

    Args:
        changes: Of all updates of the round, by silo.
        base: The weights that they started from.
    """
    found, length = list[Outlier](), -1.0
    for name, change, others in _each(changes):
        norm, kind = change.norms[Kind.TRAINABLE], Kind.TRAINABLE
        # Of two nobody can tell which is unlike.
        if len(others) > 1 and norm > _FAR * (median := _median(others, kind)) > 0:
            length = length if length >= 0 else _length(kind, base)
            if norm > _LEAP * length:
                found.append(Outlier(name, norm / median, _moves(kind, norm, median)))
    return sorted(found, key=lambda one: -one.times)


def unlike(found: Iterable[Outlier]) -> Iterator[str]:
    """What to say of :func:`outliers`, one sentence each."""
    for one in found:
        yield f"the update of {one.silo} stands out: it {one.how}"


def _each(changes: Mapping[str, Change]) -> Iterator[tuple[str, Change, list[Change]]]:
    """Every change, with those of all others."""
    for name, change in changes.items():
        yield name, change, [other for silo, other in changes.items() if silo != name]


def ruinous(changes: Mapping[str, Change], base: Weights) -> tuple[str, str] | None:
    """The update that would leave least of the model, if there is one that would leave nothing: its silo, and the reason.

    It is longer by far than the others' and than the weights themselves. What honest training gives, however long, is not; the next round would
    start from what nobody can train, and honest silos would be refused for its infinities.

    Args:
        changes: Of all updates of the round, by silo.
        base: The weights that they started from.
    """
    worst, found, limits = 1.0, None, dict[Kind, float]()
    for name, change, others in _each(changes):
        logs = [other.variances for other in others]
        if leave_nothing(change.variances, logs):
            how = next((how for _, how in far(change.variances, logs)), "has other variances")
            return name, f"the update {how}: it would leave nothing of the model"
        for kind, norm in change.norms.items() if others else ():
            median = _median(others, kind)
            if norm <= _FAR * median:
                continue
            limit = limits.setdefault(kind, limits.get(kind) or _limit(kind, base))
            if norm > worst * limit:
                worst, found = (
                    norm / limit,
                    (name, f"the update {_moves(kind, norm, median)}: it would leave nothing of the model"),
                )
    return found


def _limit(kind: Kind, base: Weights) -> float:
    """Length of a change that leaves nothing of weights."""
    count = sum(base[name].size for name in base if base.kinds[name] is kind)
    return _REACH[kind] * (math.sqrt(count) + _length(kind, base))


def _length(kind: Kind, base: Weights) -> float:
    """Of weights of a kind."""
    arrays = (base[name].reshape(-1) for name in base if base.kinds[name] is kind)
    return math.sqrt(sum(map(_squared, arrays)))


def _squared(new: NDArray[Any], old: NDArray[Any] | None = None) -> float:
    """Squared length of a flat array, or of the difference of two, in float64, a block at a time."""
    found = 0.0
    for start in range(0, new.size, _BLOCK):
        block = new[start : start + _BLOCK].astype(np.float64)
        if old is not None:
            block -= old[start : start + _BLOCK]
        found += float(np.dot(block, block))
    return found


def _moves(kind: Kind, norm: float, median: float) -> str:
    times = (
        f"{norm / median:.1e} times the median of the others', {median:.1e}" if median else "the others by 0"
    )
    return f"changes {_WHAT[kind]} by {norm:.1e} (norm), {times}"


def _median(others: list[Change], kind: Kind) -> float:
    return float(np.median([other.norms[kind] for other in others]))


def _cosine(change: Change, others: list[Change]) -> float:
    """Of a change and the others' common direction; 0 if they have none."""
    directions = [other.sample / (np.linalg.norm(other.sample) or 1.0) for other in others]
    common = np.mean(directions, axis=0)
    length, own = float(np.linalg.norm(common)), float(np.linalg.norm(change.sample))
    if length < _TOGETHER or own == 0:
        return 0.0
    return float(np.dot(change.sample, common)) / (length * own)
