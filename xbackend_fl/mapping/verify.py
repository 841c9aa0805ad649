"""Compares what two models did with the same cases, and the reference with ONNX Runtime."""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np
from numpy.typing import NDArray
from pydantic import TypeAdapter

from xbackend_fl.adapter.contract import Trainer
from xbackend_fl.canonical import Binding, Schema
from xbackend_fl.mapping.memory import check_memory
from xbackend_fl.mapping.probe import BY_SHAPE, EXAMPLE, Case, Evidence, SizeRefused, observe, weights_of
from xbackend_fl.mapping.runtime import Runtime

TOLERANCE = 1e-4
"""Largest relative error that passes; an epsilon of 1e-3 instead of 1e-5 makes 3e-4."""

GROSS = 0.5
"""Largest relative error of a gradient in any single draw."""


@dataclass(frozen=True)
class Check:
    """One comparison.

    Attributes:
        what: ``outputs``, ``gradients``, ``step``, ``statistics``, ``onnx runtime`` or ``reacts``.
        case: Label of the case, or ``all draws``.
        error: Largest relative error (``reacts``: one over the relative change).
        where: The parameter or output with the largest error, if one is meant.
        passed: Whether the error is within the tolerance.
    """

    what: str
    case: str
    error: float
    where: str
    passed: bool


@dataclass(frozen=True)
class Proof:
    """The comparisons that show, or fail to show, that two models are the same function.

    Attributes:
        checks: All comparisons made.
        notes: What could not be compared, and why.
        tolerance: Largest relative error that passes.
        parameters: Relative error of every trainable parameter's gradient and step, the larger of both.
    """

    checks: tuple[Check, ...]
    notes: tuple[str, ...] = ()
    tolerance: float = TOLERANCE
    parameters: Mapping[str, float] = field(default_factory=dict)

    @property
    def proven(self) -> bool:
        """Whether there were comparisons and all passed."""
        return bool(self.checks) and all(check.passed for check in self.checks)

    @property
    def largest_error(self) -> float:
        """Largest relative error of outputs, gradients and steps."""
        return max((check.error for check in self.checks if check.what != "reacts"), default=0.0)

    def to_json(self) -> dict[str, Any]:
        """Plain data, with ``proven`` and ``largest_error``."""
        plain: dict[str, Any] = TypeAdapter(Proof).dump_python(self, mode="json")
        return plain | {"proven": self.proven, "largest_error": self.largest_error}


def gather(
    trainer: Trainer,
    binding: Binding,
    schema: Schema,
    cases: Sequence[Case],
    reference: Sequence[Evidence] = (),
) -> tuple[tuple[Evidence, ...], tuple[str, ...]]:
    """Evidence for every case the model accepts, and a note for every other.

    The candidate takes the running statistics of the reference's evidence.
    """
    check_memory(schema)
    runtime = Runtime(schema)
    statistics = {item.case.label: item.statistics for item in reference}
    evidence, notes = [], []
    for case in cases:
        try:
            evidence.append(observe(trainer, binding, schema, case, statistics.get(case.label), runtime))
        except SizeRefused:
            notes.append(f"{case.label}: the {binding.backend} model takes one size only")
    return tuple(evidence), tuple(notes)


def against_runtime(schema: Schema, evidence: Sequence[Evidence]) -> Iterator[Check]:
    """The outputs of a model against ONNX Runtime running its schema."""
    runtime = Runtime(schema)
    for item in evidence:
        if item.case.label == BY_SHAPE:
            continue
        weights = weights_of(schema, item.case) | dict(item.statistics)
        expected = runtime.outputs(weights, item.case.inputs)
        yield _outputs("onnx runtime", schema, item.case.label, item.outputs, expected)


def reactions(evidence: Sequence[Evidence]) -> Iterator[Check]:
    """Whether every output depends on the data: two constant functions are always equal."""
    for item in evidence:
        if item.case.label in {EXAMPLE, BY_SHAPE}:
            continue
        spread = max(float(np.ptp(output, axis=0).max()) for output in item.outputs)
        size = max(float(np.abs(output).max()) for output in item.outputs) or 1.0
        error = size / spread if spread else float("inf")
        yield Check("reacts", item.case.label, error, "", error < REACTS)


REACTS = 50.0
"""Outputs of different inputs must differ by at least two per cent of their size."""


def unobserved(evidence: Sequence[Evidence]) -> list[str]:
    """Trainable parameters that no gradient of any draw sees: any value of them is as good as any other."""
    drawn = [item for item in evidence if item.gradients and item.case.label != BY_SHAPE]
    sizes: dict[str, float] = {}
    for item in drawn:
        scale = max((float(np.abs(g).max(initial=0.0)) for g in item.gradients.values()), default=0.0) or 1.0
        for name, gradient in item.gradients.items():
            sizes[name] = max(sizes.get(name, 0.0), float(np.abs(gradient).max(initial=0.0)) / scale)
    return [name for name, size in sizes.items() if size < 1e-6]


def compare(
    schema: Schema, reference: Sequence[Evidence], candidate: Sequence[Evidence]
) -> tuple[list[Check], dict[str, float]]:
    """Outputs, gradients and one optimizer step of two models; also the error by trainable parameter.

    Outputs and running statistics are compared in every case. Where a ReLU or a max pooling has to choose
    between values that are equal but for rounding, two frameworks may choose differently, both rightly, and the
    gradient of that draw differs. A wrong gradient is wrong in every draw; so each parameter counts with its best
    draw, and no draw may be grossly off.
    """
    by_label = {item.case.label: item for item in candidate}
    pairs = [(item, by_label[item.case.label]) for item in reference if item.case.label in by_label]
    checks: list[Check] = []
    for one, two in pairs:
        if one.case.label != BY_SHAPE:
            checks.append(_outputs("outputs", schema, one.case.label, two.outputs, one.outputs))
        if one.updated and two.updated:
            checks.append(_worst("statistics", one.case.label, two.updated, one.updated))
    best: dict[str, float] = {}
    for what in ("gradients", "step"):
        if what == "gradients":
            drawn = [(a, b) for a, b in pairs if a.gradients and b.gradients and a.case.label != BY_SHAPE]
        else:
            drawn = [(a, b) for a, b in pairs if a.moved and b.moved]
        if not drawn:
            continue
        by_draw = [_errors(what, one, two) for one, two in drawn]
        smallest = {name: min(errors[name] for errors in by_draw) for name in by_draw[0]}
        largest = max((error for errors in by_draw for error in errors.values()), default=0.0)
        where = max(smallest, key=lambda name: smallest[name], default="")
        error = smallest.get(where, 0.0)
        passed = error <= TOLERANCE and largest <= GROSS
        checks.append(
            Check(what, "all draws", error if error > TOLERANCE or passed else largest, where, passed)
        )
        best = {name: max(best.get(name, 0.0), error) for name, error in smallest.items()}
    return checks, best


def _errors(what: str, reference: Evidence, candidate: Evidence) -> dict[str, float]:
    expected = reference.gradients if what == "gradients" else reference.moved
    received = candidate.gradients if what == "gradients" else candidate.moved
    # Gradients that vanish exactly (a key bias) leave only noise, far below the others.
    scale = max((_size(g) for g in expected.values()), default=1.0)
    return {name: _relative(received.get(name), expected[name], 1e-2 * scale) for name in expected}


def _size(array: NDArray[Any]) -> float:
    return float(np.sqrt(np.mean(np.square(array)))) if array.size else 0.0


def _relative(received: NDArray[Any] | None, expected: NDArray[Any], floor: float) -> float:
    """``||received - expected|| / ||expected||``, where the denominator is at least ``floor`` per value."""
    if received is None or received.shape != expected.shape or not np.isfinite(received).all():
        return float("inf")
    distance = float(np.linalg.norm(received - expected))
    return distance / max(float(np.linalg.norm(expected)), floor * math.sqrt(max(expected.size, 1)), 1e-30)


def _outputs(
    what: str, schema: Schema, case: str, received: Sequence[NDArray[Any]], expected: Sequence[NDArray[Any]]
) -> Check:
    errors = [relative_error(a, b) for a, b in zip(received, expected, strict=True)]
    worst = max(range(len(errors)), key=errors.__getitem__)
    where = schema.outputs[worst].name if len(errors) > 1 else ""
    return Check(what, case, errors[worst], where, errors[worst] <= TOLERANCE)


def _worst(
    what: str, case: str, received: Mapping[str, NDArray[Any]], expected: Mapping[str, NDArray[Any]]
) -> Check:
    errors = {name: _relative(received.get(name), expected[name], 1e-3) for name in expected}
    where = max(errors, key=lambda name: errors[name])
    return Check(what, case, errors[where], where, errors[where] <= TOLERANCE)


def relative_error(received: NDArray[Any], expected: NDArray[Any], floor: float = 1e-12) -> float:
    """``max|received - expected| / max(max|expected|, floor)``; infinite if a value is not finite."""
    if received.shape != expected.shape or not np.isfinite(received).all():
        return float("inf")
    if not received.size:
        return 0.0
    difference = float(np.abs(received.astype(np.float64) - expected).max())
    return difference / max(float(np.abs(expected).max()), floor)
