"""Draws that the reference answers with NaN or infinity: no evidence for a map, and told where the other model has numbers."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import replace
from typing import Any

import numpy as np
from numpy.typing import NDArray

from xbackend_fl.adapter.canonical_model import CanonicalModel
from xbackend_fl.errors import MismatchError
from xbackend_fl.mapping.probe.cases import EXAMPLE
from xbackend_fl.mapping.probe.distributions import Distribution
from xbackend_fl.mapping.probe.native import SizeRefused
from xbackend_fl.mapping.probe.probe import Case, Evidence, observe
from xbackend_fl.mapping.proof.verify import finite
from xbackend_fl.text import shown_names

Array = NDArray[Any]

_UNLIKE = 1e-2
"""Numbers of a draw of which others are none, that differ by less of the largest, are alike: rounding is not measured there."""

_GOOD_PART = 0.5
"""Of the examples of normal data: two models that part in so many are two functions."""


BLANK_EXAMPLE = "an example that is padding and nothing else, or that a mask hides wholly"
THEIRS = "the reference answers NaN or infinity, and this model a number"
OURS = "this model answers NaN or infinity, and the reference a number"


def outputs_alone(seen: Evidence) -> tuple[Evidence, ...]:
    """What is kept of a draw that is answered with no number, its data and outputs; nothing of others, and of what is held in reserve."""
    if not is_undefined(seen) or seen.case.reserve:
        return ()
    case = replace(seen.case, differentiate=False, step=False, rounding=False)
    return (Evidence(case, seen.statistics, seen.outputs),)


def is_undefined(item: Evidence) -> bool:
    """Whether a model answers a draw of its own weights and data with something that is no finite number."""
    return not item.case.by_shape and not finite(item.outputs)


def blank_examples(case: Case) -> NDArray[np.bool_]:
    """Examples that are padding and nothing else: an input of zeros, which a mask that hides all of it is, or one number everywhere in each."""
    hidden = np.zeros(len(case.inputs[0]), np.bool_)
    constant = ~hidden
    for array in case.inputs:
        rows = array.reshape(len(array), -1)
        hidden |= (rows == 0).all(1)
        constant &= (rows == rows[:, :1]).all(1) & (rows.shape[1] > 1)
    return hidden | constant


def is_own_data(case: Case) -> bool:
    """Whether a case is the user's example, and that is more than a form of one number."""
    return case.label == EXAMPLE and any(array.size and array.min() != array.max() for array in case.inputs)


def no_numbers(arrays: Sequence[Array], count: int) -> NDArray[np.bool_]:
    """Examples that have some output that is no finite number."""
    return _by_example([~np.isfinite(array) for array in arrays], count)


def undefined_notes(
    model: CanonicalModel, undefined: Sequence[Evidence], evidence: Sequence[Evidence]
) -> tuple[str, ...]:
    """Where the reference answers with no number and another model with one, or the other way round.

    Args:
        model: The candidate, which passed its proof; its weights are changed.
        undefined: What the reference did where it has no numbers.
        evidence: What it did elsewhere.

    Raises:
        MismatchError: That is so on much of the normal data, or on the user's own.
    """
    parted: dict[str, list[tuple[str, int]]] = {}
    normal = sum(len(item.case.inputs[0]) for item in evidence if _is_normal(item.case))
    apart = 0
    for item in undefined:
        count = len(item.case.inputs[0])
        try:
            own = observe(model, item.case, item.statistics).outputs
        except SizeRefused:
            continue
        sides = no_numbers(item.outputs, count), no_numbers(own, count)
        unlike = _by_example(list(_unlike(item.outputs, own)), count)
        if _is_normal(item.case):
            normal += count
            apart += int(unlike.sum())
        if unlike.any() and is_own_data(item.case):
            raise _refused(f"on the example itself {_sides(*sides)}")
        if unlike.any():
            parted.setdefault(_sides(*sides), []).append((item.case.label, int(unlike.sum())))
    if apart and apart >= _GOOD_PART * normal:
        raise _refused(f"on normal data {next(iter(parted))}, in {apart} of {normal} examples")
    return tuple(_note(side, found) for side, found in parted.items())


def _refused(said: str) -> MismatchError:
    return MismatchError(
        f"the two models are not the same function: {said}",
        hint="bound what has no number in both models alike: sqrt(x.clamp(min=0)) is sqrt(maximum(x, 0))",
    )


def _note(side: str, found: Sequence[tuple[str, int]]) -> str:
    limit, labels = max(count for _, count in found), shown_names([label for label, _ in found])
    blank = any(Distribution.BLANK in label for label, _ in found)
    return no_number(
        f"{side}, in up to {limit} examples of {labels}" + (f" ({BLANK_EXAMPLE})" if blank else "")
    )


def no_number(said: str) -> str:
    """The note on where one side alone has numbers."""
    return f"no number: {said}; the map holds where both answer with numbers"


def _sides(reference: NDArray[np.bool_], candidate: NDArray[np.bool_]) -> str:
    if (reference & ~candidate).any():
        return THEIRS
    if (candidate & ~reference).any():
        return OURS
    return (
        "the reference and this model answer NaN or infinity at different places, or other numbers beside it"
    )


def _unlike(reference: Sequence[Array], candidate: Sequence[Array]) -> Iterator[NDArray[np.bool_]]:
    """Where one side alone has a number, or both have numbers that differ."""
    for one, two in zip(reference, candidate, strict=True):
        if one.shape != two.shape:
            yield np.ones(one.shape, np.bool_)
            continue
        numbers = np.isfinite(one) & np.isfinite(two)
        wanted, given = (np.where(numbers, array, 0).astype(np.float64) for array in (one, two))
        size = float(np.abs(wanted).max(initial=0.0))
        yield (np.isfinite(one) != np.isfinite(two)) | (np.abs(wanted - given) > _UNLIKE * size)


def _by_example(places: Sequence[NDArray[np.bool_]], count: int) -> NDArray[np.bool_]:
    """Examples in which something is so; of an output that is not one per example, all."""
    found = np.zeros(count, np.bool_)
    for array in places:
        each = array.ndim > 0 and len(array) == count
        found |= array.reshape(count, -1).any(1) if each else bool(array.any())
    return found


def _is_normal(case: Case) -> bool:
    plain = not (case.by_shape or case.redrawn or case.frozen)
    return plain and case.label.startswith("draw ") and not any(kind in case.label for kind in Distribution)
