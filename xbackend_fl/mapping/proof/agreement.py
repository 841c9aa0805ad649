"""Compares what two models did with the same cases, against a tolerance and against what rounding does."""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np
from numpy.typing import NDArray

from xbackend_fl.canonical import Schema
from xbackend_fl.mapping.probe.norms import norm_of
from xbackend_fl.mapping.probe.probe import Evidence
from xbackend_fl.mapping.proof.verify import ROUNDINGS, TOLERANCE, Check, finite, output_check

Array = NDArray[Any]

GROSS = 0.5
"""Largest relative error of a gradient in any single draw."""

COARSE = 1e-2
"""What is left to rounding must agree to this all the same."""

_COUNTS = 0.1
"""A draw counts for a parameter whose gradient is at least this part of what it is in its best draw."""


_CLAIMED = 10.0
"""What the reference says of its rounding counts up to so many times what is measured of the candidate: nobody here measured it."""

_DERIVATIVES = frozenset({"gradients", "step", "statistics"})


@dataclass(frozen=True)
class Agreement:
    """What came of a comparison.

    Attributes:
        checks: Outputs and running statistics in every case, gradients and the step over all draws.
        notes: What agrees within rounding only.
        errors: Relative error by trainable parameter, the larger of gradient and step.
        pairs: The cases that both models took.
    """

    checks: tuple[Check, ...]
    notes: tuple[str, ...]
    errors: Mapping[str, float]
    pairs: tuple[tuple[Evidence, Evidence], ...] = field(repr=False)

    def is_undecided(self) -> bool:
        """Whether a gradient or a step is left that the reserve of draws may settle."""
        return bool(self.notes) or any(not c.passed and c.what in _DERIVATIVES for c in self.checks)

    def only_derivatives_differ(self) -> bool:
        """Whether gradients or the step differ while outputs agree."""
        failed = {check.what for check in self.checks if not check.passed}
        return bool(failed) and failed <= _DERIVATIVES


@dataclass(frozen=True)
class _Draw:
    """One parameter in one draw: relative error, relative rounding if measured, and its part of the draw's largest."""

    error: float
    rounding: float
    part: float

    @property
    def excused(self) -> bool:
        return self.error <= ROUNDINGS * self.rounding


def agreement(schema: Schema, reference: Sequence[Evidence], candidate: Sequence[Evidence]) -> Agreement:
    """Outputs, gradients and one optimizer step of two models.

    Outputs and running statistics are compared in every case. Where a ReLU or a max pooling has to choose
    between values that are equal but for rounding, two frameworks may choose differently, both rightly, and the
    gradient of that draw differs. A wrong gradient is wrong in every draw; so each parameter counts with its best
    draw among those that show it, and no draw may be grossly off. Where rounding was measured on both sides, what
    it explains is no difference.
    """
    by_label = {item.case.label: item for item in candidate}
    pairs = [(item, by_label[item.case.label]) for item in reference if item.case.label in by_label]
    checks: list[Check] = []
    notes: list[str] = []
    for one, two in pairs:
        if not one.case.by_shape:
            checks.append(output_check("outputs", schema, one.case, two.outputs, one.outputs))
        if one.updated and two.updated:
            checks.append(_statistics(one, two))
    worst: dict[str, float] = {}
    for what, part in (("gradients", "gradients"), ("step", "moved")):
        drawn = [(a, b) for a, b in pairs if getattr(a, part) and getattr(b, part) and not a.case.by_shape]
        if not drawn:
            continue
        scales = [_largest(getattr(one, part)) for one, _ in drawn]
        by_name = {name: list(_draws(name, part, drawn, scales)) for name in getattr(drawn[0][0], part)}
        settled = {name: _settled(draws) for name, draws in by_name.items()}
        for name, draw in settled.items():
            if draw.error > TOLERANCE and _within(draw):
                notes.append(
                    f"{what} of {name}: equal to {draw.error:.1e}; rounding alone moves it by {draw.rounding:.1e}"
                )
        checks.append(_check(what, by_name, settled))
        for name, draw in settled.items():
            worst[name] = max(worst.get(name, 0.0), draw.error)
    return Agreement(tuple(checks), tuple(notes), worst, tuple(pairs))


def _largest(arrays: Mapping[str, Array]) -> float:
    return max(map(_size, arrays.values()), default=1.0)


def _draws(
    name: str, part: str, pairs: Sequence[tuple[Evidence, Evidence]], scales: Sequence[float]
) -> Iterator[_Draw]:
    """A parameter in every draw that shows it as well as any; ``scales`` are the largest sizes of the reference's."""
    found = []
    for (one, two), scale in zip(pairs, scales, strict=True):
        expected: Mapping[str, Array] = getattr(one, part)
        # Gradients that vanish exactly (a key bias) leave only noise, far below the others.
        error, rounding = _relative(name, part, one, two, 1e-2 * scale)
        found.append(_Draw(error, rounding, _size(expected[name]) / scale if scale else 0.0))
    best = max(draw.part for draw in found)
    # A part that is NaN counts, and its error is infinite.
    yield from (draw for draw in found if not draw.part < _COUNTS * best)


def _settled(draws: Sequence[_Draw]) -> _Draw:
    """The draw that a parameter counts with: the best one, or one whose difference is rounding."""
    best = min(draws, key=lambda draw: draw.error)
    return next((draw for draw in draws if best.error > TOLERANCE and _within(draw)), best)


def _within(draw: _Draw) -> bool:
    return draw.excused and draw.error <= COARSE


def _check(what: str, by_name: Mapping[str, Sequence[_Draw]], settled: Mapping[str, _Draw]) -> Check:
    left = {
        name: draw.error for name, draw in settled.items() if draw.error <= TOLERANCE or not _within(draw)
    }
    where = max(left, key=lambda name: left[name], default="")
    error = left.get(where, 0.0)
    wild = {
        name: max((draw.error for draw in draws if not draw.excused), default=0.0)
        for name, draws in by_name.items()
    }
    wildest = max(wild, key=lambda name: wild[name], default="")
    if error <= TOLERANCE and wild.get(wildest, 0.0) > GROSS:
        return Check(what, "all draws", wild[wildest], wildest, passed=False)
    return Check(what, "all draws", error, where, error <= TOLERANCE)


def _statistics(one: Evidence, two: Evidence) -> Check:
    found = {name: _relative(name, "updated", one, two, 1e-3) for name in one.updated}
    left = {
        n: error
        for n, (error, noise) in found.items()
        if not TOLERANCE < error <= min(COARSE, ROUNDINGS * noise)
    }
    where = max(left, key=lambda name: left[name], default="")
    error = left.get(where, 0.0)
    return Check("statistics", one.case.label, error, where, error <= TOLERANCE)


def _relative(name: str, part: str, one: Evidence, two: Evidence, floor: float) -> tuple[float, float]:
    """``||received - expected|| / ||expected||`` and the same of rounding; the denominator is at least ``floor`` per value."""
    expected: Array = getattr(one, part)[name]
    received: Array | None = getattr(two, part).get(name)
    if received is None or received.shape != expected.shape or not finite((received, expected)):
        return math.inf, 0.0
    length = max(norm_of(expected), floor * math.sqrt(max(expected.size, 1)), 1e-30)
    key = f"{part}/{name}"
    theirs, ours = (float(item.rounding[key][0]) if key in item.rounding else 0.0 for item in (one, two))
    rounding = ours + (min(theirs, _CLAIMED * ours) if key in two.rounding else theirs)
    # What could not be measured excuses nothing.
    return norm_of(received - expected) / length, (rounding / length if math.isfinite(theirs + ours) else 0.0)


def _size(array: Array) -> float:
    return float(np.sqrt(np.mean(np.square(array)))) if array.size else 0.0
