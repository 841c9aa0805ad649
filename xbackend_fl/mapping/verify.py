"""Compares what two models did with the same cases, and the reference with ONNX Runtime."""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import onnxruntime
from numpy.typing import NDArray
from pydantic import TypeAdapter

from xbackend_fl.adapter.contract import Trainer
from xbackend_fl.canonical import Binding, Schema
from xbackend_fl.canonical.onnx_export import to_onnx
from xbackend_fl.mapping.probe import Case, Evidence, accepted, draw_weights, observe

TOLERANCE = 1e-4
"""Largest relative error that passes; an epsilon of 1e-3 instead of 1e-5 makes 3e-4."""


@dataclass(frozen=True)
class Check:
    """One comparison.

    Attributes:
        what: ``outputs``, ``gradients``, ``step``, ``onnx runtime`` or ``reacts``.
        case: Label of the case.
        error: Largest relative error (``reacts``: one over the relative change).
        where: The parameter with the largest error, if one is meant.
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
    """

    checks: tuple[Check, ...]
    notes: tuple[str, ...] = ()
    tolerance: float = TOLERANCE

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


def execute(schema: Schema, weights: Mapping[str, NDArray[Any]], inputs: Sequence[NDArray[Any]]) -> list[Any]:
    """Outputs of the canonical graph in ONNX Runtime."""
    options = onnxruntime.SessionOptions()
    options.log_severity_level = 3
    options.intra_op_num_threads = 1
    model = to_onnx(schema, weights).SerializeToString()
    session = onnxruntime.InferenceSession(model, options, providers=["CPUExecutionProvider"])
    feeds = {port.name: np.ascontiguousarray(a) for port, a in zip(schema.inputs, inputs, strict=True)}
    outputs: list[Any] = session.run(None, feeds)
    return outputs


def gather(
    trainer: Trainer, binding: Binding, schema: Schema, cases: Sequence[Case]
) -> tuple[tuple[Evidence, ...], tuple[str, ...]]:
    """Evidence for every case the model accepts, and a note for every other."""
    evidence, notes = [], []
    for case in cases:
        if accepted(trainer, binding, case):
            evidence.append(observe(trainer, binding, schema, case))
        else:
            notes.append(f"{case.label}: the {binding.backend} model takes one size only")
    return tuple(evidence), tuple(notes)


def against_runtime(schema: Schema, evidence: Sequence[Evidence]) -> Iterator[Check]:
    """The outputs of a model against ONNX Runtime running its schema."""
    for item in evidence:
        weights = draw_weights(schema, item.case.seed)
        expected = execute(schema, weights, item.case.inputs)
        error = max(relative_error(a, b) for a, b in zip(item.outputs, expected, strict=True))
        yield Check("onnx runtime", item.case.label, error, "", error <= TOLERANCE)


def reactions(evidence: Sequence[Evidence]) -> Iterator[Check]:
    """Whether outputs depend on the data at all: two constant functions are always equal."""
    for item in evidence:
        spread = max(float(np.ptp(output, axis=0).max()) for output in item.outputs)
        size = max(float(np.abs(output).max()) for output in item.outputs) or 1.0
        error = size / spread if spread else float("inf")
        yield Check("reacts", item.case.label, error, "", error < 1e4 or item.case.label == "the example")


def compare(reference: Evidence, candidate: Evidence) -> Iterator[Check]:
    """Outputs, gradients and one optimizer step of two models on one case."""
    label = reference.case.label
    pairs = zip(candidate.outputs, reference.outputs, strict=True)
    error = max(relative_error(a, b) for a, b in pairs)
    yield Check("outputs", label, error, "", error <= TOLERANCE)
    scale = max((float(np.abs(g).max()) for g in reference.gradients.values()), default=1.0)
    yield _worst("gradients", label, candidate.gradients, reference.gradients, 1e-2 * scale)
    yield _worst("step", label, candidate.stepped, reference.stepped, 1e-3)


def _worst(
    what: str,
    label: str,
    received: Mapping[str, NDArray[Any]],
    expected: Mapping[str, NDArray[Any]],
    floor: float,
) -> Check:
    """The parameter with the largest error.

    Gradients that vanish exactly (a key bias) leave only noise, so the root mean square of a parameter
    counts as at least ``floor``. Norms are compared and not single values: where a ReLU or a max pooling
    has to choose between equals, two frameworks may choose differently, and both are right.
    """
    errors = {name: _norm_error(received[name], expected[name], floor) for name in expected}
    where = max(errors, key=lambda name: errors[name], default="")
    error = errors.get(where, 0.0)
    return Check(what, label, error, where, error <= TOLERANCE)


def _norm_error(received: NDArray[Any], expected: NDArray[Any], floor: float) -> float:
    """``||received - expected|| / ||expected||``, where the denominator is at least ``floor`` per value."""
    if received.shape != expected.shape or not np.isfinite(received).all():
        return float("inf")
    distance = float(np.linalg.norm(received.astype(np.float64) - expected))
    return distance / max(float(np.linalg.norm(expected)), floor * math.sqrt(max(expected.size, 1)))


def relative_error(received: NDArray[Any], expected: NDArray[Any], floor: float = 1e-12) -> float:
    """``max|received - expected| / max(max|expected|, floor)``; infinite if a value is not finite."""
    if received.shape != expected.shape or not np.isfinite(received).all():
        return float("inf")
    if not received.size:
        return 0.0
    difference = float(np.abs(received.astype(np.float64) - expected).max())
    return difference / max(float(np.abs(expected).max()), floor)
