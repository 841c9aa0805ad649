"""What a proof consists of, and the comparison with ONNX Runtime."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass, field
from typing import Any, final

import numpy as np
from numpy.typing import NDArray
from pydantic import TypeAdapter

from xbackend_fl.adapter.canonical_model import CanonicalModel
from xbackend_fl.canonical import Binding, Schema
from xbackend_fl.errors import RefusedInput
from xbackend_fl.mapping.probe.cases import ONE
from xbackend_fl.mapping.probe.draw import BATCH
from xbackend_fl.mapping.probe.executor import Executor
from xbackend_fl.mapping.probe.memory import check_memory
from xbackend_fl.mapping.probe.native import SizeRefused
from xbackend_fl.mapping.probe.probe import Case, Evidence, observe, weights_of
from xbackend_fl.mapping.probe.redrawn import BROKEN
from xbackend_fl.mapping.probe.runtime import GraphRefused
from xbackend_fl.mapping.proof.logistic import floors

TOLERANCE = 1e-4
"""Largest relative error that passes; an epsilon of 1e-3 instead of 1e-5 makes 3e-4."""


ROUNDINGS = 10.0
"""A difference of so many times what rounding does to both models is rounding: two frameworks differ by 0.3 to 5 times that."""


@dataclass(frozen=True)
class Check:
    """One comparison.

    Attributes:
        what: ``outputs``, ``gradients``, ``step``, ``statistics``, ``onnx runtime`` or ``reacts``.
        case: Label of the case, or ``all draws``.
        error: Largest relative error (``reacts``: one over the relative change).
        where: The parameter or output with the largest error, if one is meant.
        passed: Whether the error is within the tolerance.
        apart: Where one side alone has no finite number, in words; the error is infinite then.
    """

    what: str
    case: str
    error: float
    where: str
    passed: bool
    apart: str = ""


@dataclass(frozen=True)
class Proof:
    """The comparisons that show, or fail to show, that two models are the same function.

    Attributes:
        checks: All comparisons made.
        notes: What could not be compared, and why.
        tolerance: Largest relative error that passes.
        parameters: Relative error of every trainable parameter's gradient and step, the larger of both.
        unproven: Parameters that no probe has seen, and what keeps each from being proven.
    """

    checks: tuple[Check, ...]
    notes: tuple[str, ...] = ()
    tolerance: float = TOLERANCE
    parameters: Mapping[str, float] = field(default_factory=dict)
    unproven: Mapping[str, str] = field(default_factory=dict)

    @property
    def proven(self) -> bool:
        """Whether there were comparisons, all passed, and every parameter was seen."""
        return bool(self.checks) and not self.unproven and all(check.passed for check in self.checks)

    @property
    def largest_error(self) -> float:
        """Largest relative error of outputs, gradients and steps."""
        return max((check.error for check in self.checks if check.what != "reacts"), default=0.0)

    def to_json(self) -> dict[str, Any]:
        """Plain data, with ``proven`` and ``largest_error``."""
        plain: dict[str, Any] = TypeAdapter(Proof).dump_python(self, mode="json")
        return plain | {"proven": self.proven, "largest_error": self.largest_error}


@final
class Answers:
    """What a schema's own graph answers to probes, each asked once.

    Args:
        schema: The schema.
        runtime: What runs it.
    """

    def __init__(self, schema: Schema, runtime: Executor) -> None:
        self.schema, self.runtime = schema, runtime
        self._known: dict[str, list[NDArray[Any]] | GraphRefused] = {}

    def outputs(self, item: Evidence) -> list[NDArray[Any]]:
        """Outputs with the weights and the data of a probe.

        Raises:
            GraphRefused: The graph cannot run on it.
        """
        found = self._known.get(item.case.label)
        if found is None:
            weights = weights_of(self.schema, item.case) | dict(item.statistics)
            try:
                found = self.runtime.outputs(weights, item.case.inputs)
            except GraphRefused as error:
                found = error
            self._known[item.case.label] = found
        if isinstance(found, GraphRefused):
            raise found
        return found

    def first_outputs(self, item: Evidence) -> list[NDArray[Any]]:
        """Outputs for as many of a probe's examples as the user's example has: a graph may have their number written in it.

        Raises:
            GraphRefused: The graph cannot run on these either.
        """
        weights = weights_of(self.schema, item.case) | dict(item.statistics)
        pairs = zip(item.case.inputs, self.schema.inputs, strict=True)
        return self.runtime.outputs(weights, [array[: port.shape[0]] for array, port in pairs])

    def look(self, item: Evidence) -> None:
        """Ask for what will be compared, while the weights that were drawn for it are at hand."""
        if not (self.schema.opaque or item.case.by_shape or item.case.is_far(self.schema)):
            with suppress(GraphRefused):
                self.outputs(item)


def gather(
    model: CanonicalModel,
    reference: Sequence[Evidence],
    answers: Answers | None = None,
) -> tuple[tuple[Evidence, ...], tuple[str, ...]]:
    """What a candidate does with the reference's cases: evidence for every one that it accepts, and a note for every other.

    It takes the running statistics of the reference's evidence.

    Args:
        model: The candidate; its weights are changed.
        reference: What the reference did.
        answers: What the schema's graph answers, if that will be asked too: then it is asked probe by probe.

    Raises:
        SizeRefused: It accepts none.
    """
    check_memory(model.schema)
    evidence, beyond = [], []
    refused: SizeRefused | None = None
    for item in reference:
        try:
            evidence.append(observe(model, item.case, item.statistics))
            if answers is not None:
                answers.look(evidence[-1])
        except SizeRefused as error:
            refused = error
            if not item.case.reserve:
                beyond.append(item.case)
    if refused is not None and not evidence:
        raise not_drawn(model, reference[0].case.inputs, refused) from refused.__cause__
    taken = [item.case for item in evidence]
    return tuple(evidence), tuple(_refused_sizes(model.schema, model.binding, beyond, taken))


def _refused_sizes(
    schema: Schema, binding: Binding, refused: Sequence[Case], taken: Sequence[Case]
) -> Iterator[str]:
    """A note for the first draw that a model refuses, and one for all that are too large for a model that takes other sizes."""
    sizes = {case.seed for case in taken if not case.at_example(schema)}
    for seed, at_example in dict.fromkeys((case.seed, case.at_example(schema)) for case in refused):
        first, *more = (c.label for c in refused if c.seed == seed and c.at_example(schema) == at_example)
        if at_example:
            yield not_so_many(first, binding.backend)
        elif seed in sizes:
            yield f"{' and '.join((first, *more))}: the {binding.backend} model takes smaller inputs only"
        else:
            yield f"{first}: the {binding.backend} model takes one size only"


def not_so_many(label: str, backend: str) -> str:
    """What is said of a model that refuses a draw of the example's size.

    Args:
        label: Of the draw.
        backend: Of the model.
    """
    if label.endswith(ONE):
        return (
            f"{label}: the {backend} model refuses a batch of one, or answers it with other axes, as after squeeze(), which takes the axis of "
            "the examples away, too"
        )
    return f"{label}: the {backend} model does not take so many examples, or such"


def not_drawn(model: CanonicalModel, inputs: Sequence[NDArray[Any]], error: SizeRefused) -> SizeRefused:
    """The refusal of a model that takes no probe: of so many examples, or of such numbers?

    Args:
        model: The model.
        inputs: What it was asked, or the example; in ONNX layout.
        error: What it said.
    """
    try:
        model.forward([np.concatenate([array[:1]] * BATCH) for array in inputs])
    except RefusedInput:
        return SizeRefused(
            f"{error.message}: a probe has {BATCH} examples, of the example's own size",
            hint="take the number of examples from the data wherever the model writes it out: x.shape[0], or -1 in front",
        )
    return SizeRefused(
        f"{error.message}: it takes the example {BATCH} times, and not other numbers of its size",
        hint="let the model take any numbers: what asks for a range, or looks up a table of its own, belongs in front of it",
    )


def against_runtime(
    answers: Answers, evidence: Sequence[Evidence], reference: Sequence[Evidence] = ()
) -> Iterator[Check]:
    """The outputs of a model against ONNX Runtime running its schema; nothing if the schema has opaque nodes.

    The graph holds what the reference computed from the example's size: a padding, a length. At another size the reference
    itself is the measure, and where its graph answers otherwise there, ONNX Runtime is not asked. A graph that runs for as many examples as the
    user's alone is asked for so many. Where the graph alone overflows, and
    the reference does not, its answer says nothing either.

    Args:
        answers: What ONNX Runtime answers.
        evidence: What the model did.
        reference: What the reference did with the same cases, where it is known.
    """
    schema = answers.schema
    if schema.opaque:
        return
    measure, least = {item.case.label: item.outputs for item in reference}, floors(schema)
    for item in evidence:
        wanted = measure.get(item.case.label)
        if item.case.by_shape or item.case.redrawn in BROKEN:
            # To a graph every value is a number.
            continue
        if wanted is not None and item.case.is_far(schema):
            # What the models themselves do is known, and a graph mostly has lengths written in it.
            continue
        try:
            expected = answers.outputs(item)
        except GraphRefused:
            # Sizes that the model takes from its data are those of the example in its graph.
            enough = len(item.case.inputs[0]) >= schema.inputs[0].shape[0]
            if item.case.at_example(schema) and enough:
                expected = answers.first_outputs(item)
                outputs = [array[: len(other)] for array, other in zip(item.outputs, expected, strict=True)]
                yield output_check("onnx runtime", schema, item.case, outputs, expected, least)
            continue
        if item.case.at_example(schema):
            if wanted is not None and [a.shape for a in expected] != [a.shape for a in wanted]:
                # How many examples there are is written in the graph.
                continue
        elif not _holds(expected, item.outputs, wanted):
            continue
        if not finite(expected) and (wanted is not None or _alike_infinite(item.outputs, expected)):
            continue
        yield output_check("onnx runtime", schema, item.case, item.outputs, expected, least)


def _holds(
    found: Sequence[NDArray[Any]], received: Sequence[NDArray[Any]], wanted: Sequence[NDArray[Any]] | None
) -> bool:
    """Whether a graph answers at another size as the reference does, or, if that is not known, with the shapes of the candidate."""
    if wanted is None:
        return [one.shape for one in found] == [one.shape for one in received]
    return all(relative_error(one, two) <= TOLERANCE for one, two in zip(found, wanted, strict=True))


def finite(arrays: Sequence[NDArray[Any]]) -> bool:
    """Whether every value is a number, and finite."""
    return all(bool(np.isfinite(array).all()) for array in arrays)


def _alike_infinite(one: Sequence[NDArray[Any]], two: Sequence[NDArray[Any]]) -> bool:
    """Whether two answers have finite values at the same places: then nothing tells which of both is right elsewhere."""
    return all(
        a.shape == b.shape and bool((np.isfinite(a) == np.isfinite(b)).all())
        for a, b in zip(one, two, strict=True)
    )


def output_check(
    what: str,
    schema: Schema,
    case: Case,
    received: Sequence[NDArray[Any]],
    expected: Sequence[NDArray[Any]],
    least: Sequence[float] = (),
) -> Check:
    """The worst output of one case; of those with values that are finite on one side only, the first.

    ``least`` is the size that an output is taken for at least, where it is smaller.
    """
    floor = least or (0.0,) * len(expected)
    errors = [
        relative_error(a, b, max(1e-12, size)) for a, b, size in zip(received, expected, floor, strict=True)
    ]
    worst = max(range(len(errors)), key=errors.__getitem__)
    where = schema.outputs[worst].name if len(errors) > 1 else ""
    apart = _apart(received[worst], expected[worst], case.inputs)
    return Check(what, case.label, errors[worst], where, errors[worst] <= TOLERANCE, apart)


def _apart(received: NDArray[Any], expected: NDArray[Any], inputs: Sequence[NDArray[Any]]) -> str:
    """The first place where one side alone is finite, both values there, and how large the data is; empty if there is none."""
    if received.shape != expected.shape:
        return ""
    unlike = np.isfinite(received) != np.isfinite(expected)
    if not unlike.any():
        return ""
    place = np.unravel_index(int(unlike.argmax()), unlike.shape)
    largest = max(float(np.abs(array.astype(np.float64)).max(initial=0.0)) for array in inputs)
    return (
        f"expected {expected[place]:.3g} and received {received[place]:.3g} at {[int(axis) for axis in place]}, "
        f"where data is {largest:.3g} at most"
    )


def relative_error(received: NDArray[Any], expected: NDArray[Any], floor: float = 1e-12) -> float:
    """``max|received - expected| / max(max|expected|, floor)``; infinite if a value of either is not finite, and never NaN."""
    if received.shape != expected.shape or not finite((received, expected)):
        return float("inf")
    if not received.size:
        return 0.0
    difference = float(np.abs(received.astype(np.float64) - expected).max())
    return difference / max(float(np.abs(expected).max()), floor)
