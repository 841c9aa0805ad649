"""Missing and infinite values: a NaN or an infinity in data, which one model may replace by a number, and another model hands on."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import replace

from xbackend_fl.adapter.canonical_model import CanonicalModel
from xbackend_fl.errors import RefusedInput
from xbackend_fl.mapping.probe.probe import Evidence, is_finite, observe
from xbackend_fl.mapping.probe.redrawn import BROKEN, Redrawn, may_miss
from xbackend_fl.mapping.proof.verify import relative_error

_ALIKE = 1e-2
"""Answers that differ by less are those of models that replace a missing value by the same number."""

_WORDS = {Redrawn.MISSING: "a NaN", Redrawn.INFINITE: "an infinity"}


def with_broken_values(model: CanonicalModel, item: Evidence) -> Iterator[Evidence]:
    """What a model does with a draw in which some numbers are missing, and infinite; nothing where no input may lack any, or the model refuses.

    Args:
        model: The model; its weights are changed.
        item: The draw.
    """
    for how in BROKEN if may_miss(model.schema) else ():
        case = replace(
            item.case, label=str(how), differentiate=False, step=False, rounding=False, redrawn=how
        )
        try:
            yield observe(model, case, item.statistics)
        except RefusedInput:
            continue


def split(
    evidence: Sequence[Evidence] | None,
) -> tuple[tuple[Evidence, ...] | None, Mapping[str, Evidence]]:
    """Evidence without the draws in which numbers are missing or infinite, and those, by what they are, that the reference answers with numbers."""
    if evidence is None:
        return None, {}
    broken = {item.case.redrawn: item for item in evidence if item.case.redrawn in BROKEN}
    return tuple(item for item in evidence if item.case.redrawn not in BROKEN), broken


def missing_notes(
    model: CanonicalModel, evidence: Sequence[Evidence] | None, reference: Mapping[str, Evidence]
) -> tuple[str, ...]:
    """What is said where two models differ in what they do without a number; whether one may be missing is for the user to know.

    Args:
        model: The candidate; its weights are changed.
        evidence: What the reference did, without ``reference``.
        reference: What it did where numbers are missing or infinite, where it answers with numbers.
    """
    items = (*reference.values(), *(one for one in evidence or () if not one.case.by_shape))
    return tuple(_notes(model, items[0], reference)) if items else ()


def _notes(model: CanonicalModel, item: Evidence, reference: Mapping[str, Evidence]) -> Iterator[str]:
    for own in with_broken_values(model, item):
        how = Redrawn(own.case.redrawn)
        known, answers = reference.get(how), is_finite(own)
        if answers != (known is not None):
            one, other = ("this model", "the reference") if answers else ("the reference", "this model")
            yield (
                f"{how}: {one} replaces {_WORDS[how]} in its data, and {other} does not; the map holds for data without one"
            )
        elif known is not None:
            pairs = zip(own.outputs, known.outputs, strict=True)
            apart = max(relative_error(two, one) for two, one in pairs)
            if apart > _ALIKE:
                yield f"{how}: both models replace {_WORDS[how]} in their data, each in its way; outputs then differ by {apart:.1e}"
