"""Evidence as a certificate holds it, and back: what a seed draws is not written down."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import fields
from typing import Any

import numpy as np
from numpy.typing import NDArray

from xbackend_fl.canonical import Schema
from xbackend_fl.certificate.statement import Probe, StoredArray, digest_of
from xbackend_fl.errors import RefusedInput
from xbackend_fl.mapping.probe.cases import by_shape_cases, cases, further, larger, usual_data
from xbackend_fl.mapping.probe.distributions import Assignment, Distribution, assignments, far, structured
from xbackend_fl.mapping.probe.draw import draw_inputs
from xbackend_fl.mapping.probe.probe import Case, Evidence, fitted_statistics, weights_of
from xbackend_fl.mapping.probe.redrawn import BROKEN
from xbackend_fl.mapping.probe.runtime import GraphRefused, Runtime
from xbackend_fl.mapping.probe.sketch import sketch
from xbackend_fl.mapping.proof.verify import TOLERANCE, Answers, relative_error

Array = NDArray[Any]

BYTES, _OPAQUE = 1 << 16, 1 << 20
"""Bytes of a probe's arrays that are written down, where others draw or compute the same; and where nobody else can."""

FITS = frozenset({"", "own", "usual", "given"})
"""How running statistics are found again."""

FLAGS = tuple(field.name for field in fields(Case) if field.type == "bool")
_SKETCHES = ("gradients", "moved", "updated", "rounding")


def usual_kind(schema: Schema, example: Sequence[Array], evidence: Sequence[Evidence]) -> Assignment:
    """The kind of data that the first draw has.

    Raises:
        RefusedInput: None that is known.
    """
    normal: Assignment = (Distribution.NORMAL,) * len(example)
    shapes, first = [array.shape for array in example], evidence[0].case
    for kinds in (normal, *assignments(schema), *structured(schema), *far(schema)):
        drawn = draw_inputs(schema, shapes, first.seed, assignment=kinds, like=example)
        if digest_of(drawn) == digest_of(first.inputs):
            return kinds
    raise RefusedInput("the data of this model's probes cannot be drawn again by a seed")


def drawn_again(
    schema: Schema, example: Sequence[Array], usual: Assignment, wanted: set[str]
) -> dict[str, tuple[Array, ...]]:
    """Data that seeds draw, by their digest, as far as they are wanted."""
    found: dict[str, tuple[Array, ...]] = {}
    for case in _every(schema, example, usual):
        digest = digest_of(case.inputs)
        if digest in wanted:
            found.setdefault(digest, case.inputs)
        if found.keys() >= wanted:
            break
    return found


def _every(schema: Schema, example: Sequence[Array], usual: Assignment) -> Iterator[Case]:
    yield from cases(schema, example, usual)
    yield from by_shape_cases(schema, example)
    for several in larger(schema, example, usual):
        yield from several
    for case, _ in further(schema, example):
        yield case


def recorded(
    schema: Schema, example: Sequence[Array], usual: Assignment, evidence: Sequence[Evidence]
) -> tuple[tuple[Probe, ...], tuple[str, ...]]:
    """Probes for a certificate, and a note for each that is too large for one."""
    drawn = drawn_again(schema, example, usual, {digest_of(item.case.inputs) for item in evidence})
    runtime = None if schema.opaque else Runtime(schema)
    answers = None if runtime is None else Answers(schema, runtime)
    found, notes = [], []
    for item in evidence:
        probe = _recorded(schema, item, usual, drawn, runtime, answers)
        if probe is None:
            notes.append(f"{item.case.label}: too large for a certificate")
        else:
            found.append(probe)
    return tuple(found), tuple(notes)


def _recorded(
    schema: Schema,
    item: Evidence,
    usual: Assignment,
    drawn: Mapping[str, tuple[Array, ...]],
    runtime: Runtime | None,
    answers: Answers | None,
) -> Probe | None:
    case, limit = item.case, _OPAQUE if schema.opaque else BYTES
    digest = digest_of(case.inputs)
    given = () if digest in drawn else case.inputs
    fit = _fit(schema, item, usual, runtime)
    statistics = item.statistics if fit == "given" else {}
    if _bytes((*given, *statistics.values())) > limit:
        return None
    error = _error(answers, item)
    sketched = _bytes(item.outputs) > limit
    if sketched and (error is None or not error <= TOLERANCE / 10):
        return None
    return Probe(
        label=case.label,
        seed=case.seed,
        asks=tuple(name for name in FLAGS if getattr(case, name)),
        redrawn=str(case.redrawn),
        inputs=digest,
        given=tuple(map(StoredArray.from_array, given)),
        fit=fit,
        statistics={name: StoredArray.from_array(array) for name, array in statistics.items()},
        outputs=tuple(
            StoredArray.from_array(_short(sketch(array)) if sketched else array) for array in item.outputs
        ),
        sketched=sketched,
        runtime=error,
        **{
            part: {name: StoredArray.from_array(_short(array)) for name, array in getattr(item, part).items()}
            for part in _SKETCHES
        },
    )


def _fit(schema: Schema, item: Evidence, usual: Assignment, runtime: Runtime | None) -> str:
    """How running statistics are found again."""
    if not item.statistics:
        return ""
    if runtime is None:
        return "given"
    for way in ("own", "usual"):
        found = _statistics(schema, item.case, usual, runtime, way)
        if found.keys() == item.statistics.keys() and digest_of([*found.values()]) == digest_of(
            [item.statistics[name] for name in found]
        ):
            return way
    return "given"


def _statistics(
    schema: Schema, case: Case, usual: Assignment, runtime: Runtime, way: str
) -> dict[str, Array]:
    data = case.inputs if way == "own" else usual_data(schema, case, usual)
    try:
        return fitted_statistics(runtime, schema, weights_of(schema, case), data, case.seed)
    except GraphRefused:
        return {}


def _error(answers: Answers | None, item: Evidence) -> float | None:
    """How far ONNX Runtime is from the reference; nothing where it cannot run, or answers to something else."""
    if answers is None or item.case.redrawn in BROKEN:
        return None
    try:
        found = answers.outputs(item)
    except GraphRefused:
        return None
    error = max(relative_error(a, b) for a, b in zip(found, item.outputs, strict=True))
    return error if error <= TOLERANCE else None


def restored(
    schema: Schema, example: Sequence[Array], usual: Assignment, probes: Sequence[Probe]
) -> Iterator[Evidence]:
    """Evidence from the probes of a certificate; outputs that it has sketches of are ONNX Runtime's.

    Raises:
        RefusedInput: The data of a probe are drawn otherwise here.
    """
    drawn = drawn_again(schema, example, usual, {probe.inputs for probe in probes if not probe.given})
    runtime = None if schema.opaque else Runtime(schema)
    for probe in probes:
        inputs = tuple(held.array() for held in probe.given) or drawn.get(probe.inputs)
        if inputs is None or digest_of(inputs) != probe.inputs:
            raise RefusedInput(f"{probe.label}: its data are drawn otherwise here")
        case = Case(
            probe.label, probe.seed, inputs, redrawn=probe.redrawn, **{n: n in probe.asks for n in FLAGS}
        )
        statistics = {name: held.array() for name, held in probe.statistics.items()}
        if probe.fit in {"own", "usual"} and runtime is not None:
            statistics = _statistics(schema, case, usual, runtime, probe.fit)
        gradients, moved, updated, rounding = (
            {name: held.array() for name, held in getattr(probe, part).items()} for part in _SKETCHES
        )
        outputs = tuple(held.array() for held in probe.outputs)
        if probe.sketched and runtime is not None:
            outputs = tuple(runtime.outputs(weights_of(schema, case) | statistics, inputs))
        yield Evidence(case, statistics, outputs, gradients, moved, updated, rounding)


def _short(array: Array) -> Array:
    """A sketch with the digits that a comparison needs."""
    return array.astype(np.float32) if array.dtype == np.float64 and array.size > 1 else array


def _bytes(arrays: Sequence[Array]) -> int:
    return sum(array.nbytes for array in arrays)
