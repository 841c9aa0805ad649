"""Whether outputs depend on the data: two functions that ignore it are always equal."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence

import numpy as np

from xbackend_fl.mapping.probe.probe import Evidence
from xbackend_fl.mapping.proof.verify import TOLERANCE, Check

REACTS = 50.0
"""Outputs of different inputs differ by two per cent of their size at least, or what differs must be compared more closely than their size."""

PLAIN = 100.0
"""Outputs of different inputs differ by so many times what rounding does to them, at least."""


def reaction(item: Evidence) -> float:
    """Size of an output over how far it differs between examples, of the output that differs most; infinite for a constant function."""
    found = [float("inf")]
    for output in item.outputs:
        spread = float(np.ptp(output, axis=0).max(initial=0.0)) if np.isfinite(output).all() else 0.0
        if spread:
            found.append(float(np.abs(output).max(initial=0.0)) / spread)
    return min(found)


def reactions(
    evidence: Sequence[Evidence], compared: Sequence[Check], noise: Callable[[Evidence], float]
) -> Iterator[Check]:
    """Whether outputs depend on the data in some draw.

    Behind a normalisation and a mean all data gives nearly the same outputs. What they differ by is compared all the same where the two
    models agree to a small part of it, and rounding moves it by a small part.

    Args:
        evidence: What a model did.
        compared: What came of the comparisons of its outputs.
        noise: How far rounding moves the outputs of a case, relative to their size.
    """
    drawn = [item for item in evidence if not item.case.by_shape]
    if not drawn:
        return
    best = min(drawn, key=reaction)
    passed = reaction(best) < REACTS
    if not passed:
        errors: dict[str, float] = {}
        for check in compared:
            errors[check.case] = max(errors.get(check.case, 0.0), check.error)
        close = [
            item for item in drawn if reaction(item) * errors.get(item.case.label, 1.0) <= REACTS * TOLERANCE
        ]
        plain = min(close, key=reaction, default=None)
        if plain is not None and PLAIN * reaction(plain) * noise(plain) <= 1.0:
            best, passed = plain, True
    yield Check("reacts", best.case.label, reaction(best), "", passed)
