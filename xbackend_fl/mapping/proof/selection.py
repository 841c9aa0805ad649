"""Chooses the probes that show a model whole, and gathers what the model does with them."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import replace
from itertools import islice
from typing import Any

import numpy as np
from numpy.typing import NDArray

from xbackend_fl.adapter.canonical_model import CanonicalModel
from xbackend_fl.errors import RefusedInput
from xbackend_fl.mapping.probe.cases import (
    KINDS,
    LONGER,
    by_shape_cases,
    cases,
    further,
    quieter,
    usual_data,
)
from xbackend_fl.mapping.probe.distributions import Assignment, Distribution, assignments, far, structured
from xbackend_fl.mapping.probe.executor import Executor, executor_of
from xbackend_fl.mapping.probe.frozen import frozen_values
from xbackend_fl.mapping.probe.memory import check_memory
from xbackend_fl.mapping.probe.native import SizeRefused
from xbackend_fl.mapping.probe.norms import norm_of
from xbackend_fl.mapping.probe.probe import Case, Evidence, is_finite, observe
from xbackend_fl.mapping.probe.redrawn import Redrawn
from xbackend_fl.mapping.proof.beyond import beyond_example
from xbackend_fl.mapping.proof.missing import with_broken_values
from xbackend_fl.mapping.proof.noise import output_noise, run_of
from xbackend_fl.mapping.proof.observed import faint_nodes
from xbackend_fl.mapping.proof.reaction import REACTS, reaction
from xbackend_fl.mapping.proof.sizes import at_other_sizes
from xbackend_fl.mapping.proof.undefined import outputs_alone
from xbackend_fl.mapping.proof.verify import ROUNDINGS, TOLERANCE, not_drawn, not_so_many

Array = NDArray[Any]

_NOTHING = 1e-6
"""Outputs of this part of their usual size are zeros that were rounded."""

_BY_SHAPE = 3
"""How many other kinds of data a probe by shape is tried with."""

ATTEMPTS = 32
"""How many further kinds of data are tried for parameters that no draw sees."""


def select(
    model: CanonicalModel, example: Sequence[Array], *, standalone: bool = False
) -> tuple[tuple[Evidence, ...], tuple[str, ...]]:
    """Evidence of a reference, for probes chosen by what it does with them, and a note for every probe left out.

    The usual data is normal; where a model answers it with nothing finite, or with the same for all examples, the next kind
    of data is the usual one. Further draws are added while there are nodes whose parameters move no output. Draws that it answers with
    something that is no number come last, with their outputs alone.

    Args:
        model: The model; its weights are changed.
        example: One array per input, in ONNX layout.
        standalone: Whether nobody compares gradients and steps with it: the draws held in reserve are left out.
    """
    schema = model.schema
    check_memory(schema)
    frozen = {} if standalone else frozen_values(model)
    runtime = executor_of(model)
    notes: list[str] = []
    undefined: list[Evidence] = []
    usual, found = _usual(model, example, runtime)
    planned = cases(schema, example, usual)[1:]
    if standalone:
        planned = [replace(case, step=False) for case in planned if not case.reserve and not case.by_shape]
        planned[0] = replace(planned[0], rounding=True)
    for case in planned:
        fit = None if case.differentiate and not case.by_shape else usual_data(schema, case, usual)
        try:
            if case.by_shape:
                seen = _by_shape(model, example, runtime, case)
            else:
                seen = observe(model, case, None, runtime, fit)
        except SizeRefused:
            notes += _refused(model, case)
            continue
        undefined += outputs_alone(seen)
        if is_finite(seen) and not (case.seed == KINDS and _faint(model, seen, found[0])):
            found.append(seen)
    longer = tuple(at_other_sizes(model, example, usual, found))
    faint = faint_nodes(schema, found)
    for case, twin in islice(further(schema, example), ATTEMPTS):
        if not faint:
            break
        fit = usual_data(schema, case, usual)
        seen = observe(model, replace(case, rounding=True), None, runtime, fit)
        left = faint_nodes(schema, [seen], faint)
        if is_finite(seen) and left != faint:
            faint = left
            found.append(seen)
            if not standalone:
                found.append(observe(model, twin, None, runtime))
    found += longer
    if frozen:
        found += _held(model, tuple(found), usual, runtime, frozen)
    found += () if standalone else tuple(filter(is_finite, with_broken_values(model, found[0])))
    beyond = None if standalone else beyond_example(model, example, usual, found[0].case.inputs)
    found += [beyond] if beyond is not None else []
    return (*found, *(() if standalone else undefined)), tuple(notes)


def _refused(model: CanonicalModel, case: Case) -> Iterator[str]:
    """A note for a draw that a model refuses; what may be a series need not be one."""
    if case.at_example(model.schema):
        yield not_so_many(case.label, model.binding.backend)
    elif not case.reserve and case.seed != LONGER:
        yield f"{case.label}: the {model.binding.backend} model takes one size only"


def _held(
    model: CanonicalModel,
    found: Sequence[Evidence],
    usual: Assignment,
    runtime: Executor,
    frozen: Mapping[str, Array],
) -> Iterator[Evidence]:
    """The same probes, those in reserve aside, with what does not train as the model holds it."""
    for item in found:
        case = replace(item.case, label=f"{item.case.label}, as held", frozen=True)
        if not case.reserve:
            fit = None if case.differentiate else usual_data(model.schema, case, usual)
            seen = observe(model, case, None, runtime, fit, frozen)
            if is_finite(seen):
                yield seen


def _by_shape(
    model: CanonicalModel,
    example: Sequence[Array],
    runtime: Executor,
    case: Case,
) -> Evidence:
    """A probe by shape that tells something: with quiet weights, or other data, where the case's own end in NaN or at a bound."""
    others = islice(by_shape_cases(model.schema, example), _BY_SHAPE)
    every = [case, *(replace(other, alike=case.alike, quiet=case.quiet) for other in others)]
    first: Evidence | None = None
    for asked in every if case.quiet else (*every, *map(quieter, every)):
        seen = observe(model, asked, None, runtime)
        first = first or seen
        sizes = [norm_of(array) for array in seen.gradients.values()]
        if not sizes or (is_finite(seen) and max(sizes) > _NOTHING):
            return seen
    assert first is not None
    return first


def _usual(
    model: CanonicalModel, example: Sequence[Array], runtime: Executor
) -> tuple[Assignment, list[Evidence]]:
    """The kind of data that a model answers with different finite outputs for different examples, and its first draw.

    Where none makes them differ visibly, the one that makes them differ most: normal if there is no such kind.
    """
    schema = model.schema
    normal: Assignment = (Distribution.NORMAL,) * len(schema.inputs)
    others = sorted(
        assignments(schema), key=lambda kinds: sum(kind is not Distribution.NORMAL for kind in kinds)
    )
    strongest, found = normal, _first(model, example, runtime, normal)
    for usual in (*others[:ATTEMPTS], *structured(schema), *far(schema)):
        if _reaction(found) < REACTS:
            break
        glance = _first(model, example, runtime, usual, whole=False)
        if _reaction(glance) >= min(REACTS, _reaction(found)) and (
            _reaction(glance) >= _reaction(found) or _rounded(model, glance)
        ):
            continue
        seen = _first(model, example, runtime, usual)
        if is_finite(seen):
            strongest, found = usual, seen
    if not is_finite(found):
        raise RefusedInput(
            f"the {model.binding.backend} model answers every kind of data with NaN or infinity, with any weights",
            hint="look for a division by zero, a root or a logarithm of what may be negative, or a constant that is no number",
        )
    return strongest, [found]


def _first(
    model: CanonicalModel,
    example: Sequence[Array],
    runtime: Executor,
    usual: Assignment,
    *,
    whole: bool = True,
) -> Evidence:
    """The first draw of a kind of data; outputs alone unless it is wanted whole."""
    case = cases(model.schema, example, usual)[0]
    if not whole:
        case = replace(case, differentiate=False, step=False)
    try:
        return observe(model, case, None, runtime)
    except SizeRefused as error:
        raise not_drawn(model, example, error) from error.__cause__


def _reaction(seen: Evidence) -> float:
    return reaction(seen) if is_finite(seen) else float("inf")


def _faint(model: CanonicalModel, seen: Evidence, usual: Evidence) -> bool:
    """Whether outputs are little but rounding: what a layer normalises may be constant, or scores huge."""
    sizes = [
        (float(np.abs(one).max(initial=0.0)), float(np.abs(two).max(initial=0.0)))
        for one, two in zip(seen.outputs, usual.outputs, strict=True)
    ]
    if any(one <= _NOTHING * two for one, two in sizes):
        return True
    if seen.case.redrawn == Redrawn.HALVES:
        # Halves are exact, and to move a weight is to leave them.
        return False
    return _rounded(model, seen)


def _rounded(model: CanonicalModel, seen: Evidence) -> bool:
    return ROUNDINGS * output_noise(model.schema, run_of(model), seen, seen.outputs) > TOLERANCE
