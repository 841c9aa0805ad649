"""Missing values: a number that is NaN, which one model may replace by another, and another model hands on."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

from xbackend_fl.adapter.canonical_model import CanonicalModel
from xbackend_fl.errors import RefusedInput
from xbackend_fl.mapping.probe.probe import Evidence, observe
from xbackend_fl.mapping.probe.redrawn import Redrawn, may_miss
from xbackend_fl.mapping.proof.verify import finite, relative_error

_ALIKE = 1e-2
"""Answers that differ by less are those of models that replace a missing value by the same number."""


def with_values_missing(model: CanonicalModel, item: Evidence) -> Evidence | None:
    """What a model does with a draw in which some numbers are missing; ``None`` where no input may lack any, or the model refuses.

    Args:
        model: The model; its weights are changed.
        item: The draw.
    """
    if not may_miss(model.schema):
        return None
    case = replace(
        item.case,
        label=str(Redrawn.MISSING),
        differentiate=False,
        step=False,
        rounding=False,
        redrawn=Redrawn.MISSING,
    )
    try:
        return observe(model, case, item.statistics)
    except RefusedInput:
        return None


def split(evidence: Sequence[Evidence] | None) -> tuple[tuple[Evidence, ...] | None, Evidence | None]:
    """Evidence without the draw in which numbers are missing, and that one: it is there if the reference answers it with numbers."""
    if evidence is None:
        return None, None
    lacking = [item for item in evidence if item.case.redrawn == Redrawn.MISSING]
    rest = tuple(item for item in evidence if item.case.redrawn != Redrawn.MISSING)
    return rest, lacking[0] if lacking else None


def missing_notes(
    model: CanonicalModel, evidence: Sequence[Evidence] | None, reference: Evidence | None
) -> tuple[str, ...]:
    """What is said where two models differ in what they do without a number; whether one may be missing is for the user to know.

    Args:
        model: The candidate; its weights are changed.
        evidence: What the reference did, without ``reference``.
        reference: What it did where numbers are missing, if it answers with numbers.
    """
    item = reference or next((one for one in evidence or () if not one.case.by_shape), None)
    own = with_values_missing(model, item) if item else None
    if own is None:
        return ()
    answers = finite(own.outputs)
    if answers != (reference is not None):
        one, other = ("this model", "the reference") if answers else ("the reference", "this model")
        return (
            f"missing values: {one} replaces a NaN in its data, and {other} does not; the map holds for data without NaN",
        )
    if reference is None:
        return ()
    pairs = zip(own.outputs, reference.outputs, strict=True)
    apart = max(relative_error(two, one) for two, one in pairs)
    if apart <= _ALIKE:
        return ()
    return (
        f"missing values: both models replace a NaN in their data, each in its way; outputs then differ by {apart:.1e}",
    )
