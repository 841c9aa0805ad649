"""What a statement must hold whoever signed it: the bounds and the probes of this version, so that no signer asks less."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from xbackend_fl.canonical import Kind, Schema
from xbackend_fl.certificate.probes import BYTES, FITS, FLAGS
from xbackend_fl.certificate.shapes import strange_sketch
from xbackend_fl.certificate.statement import Probe, Statement, digest_of
from xbackend_fl.mapping.probe.cases import DRAWS, cases, usual_data
from xbackend_fl.mapping.probe.distributions import Assignment, Distribution
from xbackend_fl.mapping.probe.probe import Case, Evidence, fitted_statistics, weights_of
from xbackend_fl.mapping.probe.redrawn import BROKEN, Redrawn
from xbackend_fl.mapping.probe.runtime import GraphRefused, Runtime
from xbackend_fl.mapping.proof.noise import output_noise
from xbackend_fl.mapping.proof.verify import ROUNDINGS, TOLERANCE, finite
from xbackend_fl.text import line

Array = NDArray[Any]

_NOTHING = 1e-6
"""Outputs of this part of their usual size are zeros that were rounded."""

_SLACK = 10.0
"""A model whose outputs rounding moves by so many times less than what is no evidence may have been moved by more elsewhere."""

_ELSE = frozenset({"by_shape", "alike", "quiet", "frozen"})
_WHOLE = frozenset({"differentiate", "step"})


def malformed(schema: Schema, statement: Statement) -> str:
    """The first thing in a statement that no certificate of its schema holds; empty if there is none."""
    return next(_malformed(schema, statement), "")


def _malformed(schema: Schema, statement: Statement) -> Iterator[str]:
    for what, number, wanted in (
        ("inputs", len(statement.inputs), len(schema.inputs)),
        ("kinds of data", len(statement.usual), len(schema.inputs)),
    ):
        if number != wanted:
            yield f"it has {number} {what}, expected {wanted}"
    if strange := [kind for kind in statement.usual if kind not in set(Distribution)]:
        yield f"there is no kind of data {line(strange[0], 40)!r}"
    if not 0 < statement.tolerance <= TOLERANCE:
        yield f"it passes errors of {statement.tolerance:.1e}, at most {TOLERANCE:.0e} pass"
    if not 0 < statement.roundings <= ROUNDINGS:
        yield f"it passes {statement.roundings:.1e} times measured rounding, at most {ROUNDINGS:.0f} times passes"
    if not statement.models:
        yield "it is of no model"
    labels = [probe.label for probe in statement.probes]
    if len(set(labels)) < len(labels):
        yield "two of its probes have one label"
    for probe in statement.probes:
        if place := _unlike(schema, probe):
            yield f"probe {line(probe.label, 80)!r} has {place}"


def _unlike(schema: Schema, probe: Probe) -> str:
    if strange := set(probe.asks) - set(FLAGS):
        return f"a question {line(min(strange), 40)!r}"
    if probe.redrawn not in {"", *Redrawn}:
        return f"weights {line(probe.redrawn, 40)!r}"
    if probe.fit not in FITS:
        return f"statistics of {line(probe.fit, 40)!r}"
    if len(probe.outputs) != len(schema.outputs):
        return f"{len(probe.outputs)} outputs, expected {len(schema.outputs)}"
    if probe.given and len(probe.given) != len(schema.inputs):
        return f"data of {len(probe.given)} inputs, expected {len(schema.inputs)}"
    if probe.runtime is not None and not 0 <= probe.runtime <= TOLERANCE:
        return f"an error of {probe.runtime:.1e} against ONNX Runtime, at most {TOLERANCE:.0e} pass"
    return strange_sketch(schema, probe)


def unasked(
    schema: Schema,
    example: Sequence[Array],
    usual: Assignment,
    probes: Sequence[Probe],
    *,
    inference_only: bool = False,
) -> tuple[str, int]:
    """The first probe that certifying this schema asks and a statement does not, or empty; and how many it has of those.

    A probe may be missing whose answer would be no evidence here either: ONNX Runtime cannot run it, finds no numbers, little but rounding, or
    outputs too large for a certificate. Sizes beyond the example's are the model's to refuse, and draws that differ in their seed alone count for
    each other. A reference that only infers takes no step, and may have no gradients, as a file has none.
    """
    parts = {} if inference_only and not differentiated(probes) else {"gradients": "differentiate"}
    parts |= {} if inference_only else {"moved": "step"}
    given = {(probe.label, probe.seed, probe.redrawn, probe.inputs): probe for probe in probes}
    asked = [
        case
        for case in cases(schema, example, usual)
        if not (case.reserve or case.by_shape) and case.at_example(schema)
    ]
    found, missing, steps = 0, list[Case](), False
    for case in asked:
        probe = given.get((case.label, case.seed, str(case.redrawn), digest_of(case.inputs)))
        whole = probe is not None and _asks(schema, case, probe, parts)
        steps |= whole and case.step
        if whole and (schema.opaque or (probe is not None and probe.runtime is not None)):
            found += 1
        else:
            missing.append(case)
    if _trained(schema) and not steps:
        return "no probe of it has gradients and a step", found
    measured = None if schema.opaque else _Measured(schema, usual, asked[0])
    for case in missing:
        alike = 0 < case.seed < DRAWS
        if not alike and (measured is None or not measured.tells_nothing(case)):
            return f"it does not ask {line(case.label, 100)!r}", found
    return "", found


def differentiated(probes: Sequence[Probe]) -> bool:
    """Whether any probe has gradients or a step."""
    return any(probe.gradients or probe.moved for probe in probes)


def _asks(schema: Schema, case: Case, probe: Probe, parts: Mapping[str, str]) -> bool:
    """Whether a probe asks what a case does, with statistics that its own data makes."""
    asks = set(probe.asks)
    wanted = {name for name in _WHOLE if getattr(case, name)}
    normed = any(node.operator == "BatchNormalization" for node in schema.nodes)
    drawn = bool(schema.opaque) or probe.fit in ({"own", "usual"} if normed else {""})
    named = [getattr(probe, part).keys() for part, flag in parts.items() if flag in wanted]
    seen = all(names >= _trained(schema) for names in named)
    return bool(wanted <= asks and not asks & _ELSE and drawn and seen)


def _trained(schema: Schema) -> set[str]:
    return {parameter.name for parameter in schema.parameters if parameter.kind is Kind.TRAINABLE}


class _Measured:
    """What ONNX Runtime finds of probes that are missing."""

    def __init__(self, schema: Schema, usual: Assignment, first: Case) -> None:
        self._schema, self._usual, self._runtime = schema, usual, Runtime(schema)
        self._first = self._seen(first)

    def _seen(self, case: Case) -> Evidence | None:
        schema = self._schema
        weights, data = weights_of(schema, case), usual_data(schema, case, self._usual)
        try:
            statistics = fitted_statistics(self._runtime, schema, weights, data, case.seed)
            outputs = self._runtime.outputs(weights | statistics, case.inputs)
        except GraphRefused:
            return None
        return Evidence(case, statistics, tuple(outputs))

    def tells_nothing(self, case: Case) -> bool:
        """Whether the answer to a case is no evidence, or none that a certificate holds."""
        seen, first = self._seen(case), self._first
        if case.redrawn in BROKEN or seen is None or first is None or not finite(seen.outputs):
            return True
        if sum(array.nbytes for array in seen.outputs) > BYTES or not self._by_example(seen):
            return True
        sizes = [[float(np.abs(a).max(initial=0.0)) for a in item.outputs] for item in (seen, first)]
        if any(one <= _NOTHING * two for one, two in zip(*sizes, strict=True)):
            return True
        noise = output_noise(self._schema, self._runtime.outputs, seen, seen.outputs)
        return not _SLACK * ROUNDINGS * noise <= TOLERANCE

    def _by_example(self, seen: Evidence) -> bool:
        """Whether outputs have an entry for each example where the schema's have one: how many there are may be written in a graph."""
        there, count = self._schema.inputs[0].shape[0], len(seen.case.inputs[0])
        pairs = zip(self._schema.outputs, seen.outputs, strict=True)
        return all(port.shape[:1] != (there,) or array.shape[:1] == (count,) for port, array in pairs)
