"""Runs probes on a model and records what it does with them, in numbers small enough to publish."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np
from numpy.typing import NDArray

from xbackend_fl.adapter.canonical_model import CanonicalModel
from xbackend_fl.adapter.contract import TrainConfig
from xbackend_fl.canonical import Schema
from xbackend_fl.losses.kinds.mean_squared_error import MeanSquaredError
from xbackend_fl.mapping.probe.derivatives import STEP, Question, ask, rounding
from xbackend_fl.mapping.probe.draw import features, shaken
from xbackend_fl.mapping.probe.drawn import drawn_by_shape, drawn_weights
from xbackend_fl.mapping.probe.executor import Executor, executor_of
from xbackend_fl.mapping.probe.native import SizeRefused, forward, outputs_with
from xbackend_fl.mapping.probe.redrawn import BROKEN, Redrawn, redrawn, with_broken
from xbackend_fl.mapping.probe.runtime import GraphRefused

Array = NDArray[Any]


@dataclass(frozen=True)
class Case:
    """One probe.

    Attributes:
        label: For people.
        seed: Draws weights, data, cotangents and targets.
        inputs: Data in ONNX layout.
        differentiate: Whether gradients are compared as well as outputs.
        step: Whether an optimizer step is compared too.
        reserve: Whether it is run only if the others leave a gradient open.
        by_shape: Whether equal shapes hold equal weights: such a probe needs no map.
        alike: Whether the features that a layer reads weigh alike, besides: such a probe needs no order of features either.
        rounding: Whether it is measured how far rounding moves the gradients and the step.
        quiet: Whether weights by shape are an eighth of their usual size: a sigmoid is then not at its end.
        redrawn: What becomes of the weights that are drawn, or of the data when it is run (:class:`Redrawn`); nothing if it is
            empty. Outputs alone are compared then.
        frozen: Whether what does not train has the values that the reference holds: another model may have constants there.
    """

    label: str
    seed: int
    inputs: tuple[Array, ...]
    differentiate: bool = True
    step: bool = True
    reserve: bool = False
    by_shape: bool = False
    alike: bool = False
    rounding: bool = False
    quiet: bool = False
    frozen: bool = False
    redrawn: str = ""

    def at_example(self, schema: Schema) -> bool:
        """Whether its inputs have the sizes of the example, the number of examples aside."""
        pairs = zip(self.inputs, schema.inputs, strict=True)
        return all(array.shape[1:] == port.shape[1:] for array, port in pairs)

    def is_far(self, schema: Schema) -> bool:
        """Whether some axis is longer than the example's by more than one, the number of examples aside."""
        pairs = zip(self.inputs, schema.inputs, strict=True)
        return any(
            n > m + 1 for array, port in pairs for n, m in zip(array.shape[1:], port.shape[1:], strict=True)
        )


@dataclass(frozen=True)
class Evidence:
    """What one model did with one case, in canonical names and layouts.

    Attributes:
        case: The case.
        statistics: Running statistics that fit the case's weights and data, and what the reference holds if the case says so; the
            candidate takes the same.
        outputs: Outputs in evaluation mode.
        gradients: Sketch of the gradient in evaluation mode, by trainable parameter, or by piece of one where equal shapes hold equal
            weights; where features weigh alike, columns of a layer's weights have a sketch each: ``[4, features]``.
        moved: Sketch of the change in one optimizer step in training mode without dropout, by trainable parameter.
        updated: Sketch of the running statistics after that step.
        rounding: How far rounding moves the named sketch, one number each, by ``gradients/NAME``, ``moved/NAME``
            and ``updated/NAME``; empty where it was not measured.
        losses: What a course's own loss makes of drawn outputs, ``DRAW.value`` and ``DRAW.gradient``, beside the reference's first case.
        notes: What was said when the model was described; with lines of its code, so it stays on this machine.
    """

    case: Case
    statistics: Mapping[str, Array]
    outputs: tuple[Array, ...]
    gradients: Mapping[str, Array] = field(default_factory=dict)
    moved: Mapping[str, Array] = field(default_factory=dict)
    updated: Mapping[str, Array] = field(default_factory=dict)
    rounding: Mapping[str, Array] = field(default_factory=dict)
    losses: Mapping[str, Array] = field(default_factory=dict)
    notes: tuple[str, ...] = ()


def is_finite(seen: Evidence) -> bool:
    """Whether everything that a model did is a number, and finite."""
    named = (seen.gradients, seen.moved, seen.updated)
    arrays = (*seen.outputs, *(array for mapping in named for array in mapping.values()))
    return all(bool(np.isfinite(array).all()) for array in arrays if array.dtype.kind == "f")


def weights_of(schema: Schema, case: Case) -> dict[str, Array]:
    """The weights of a case, running statistics aside."""
    if not case.by_shape:
        drawn = drawn_weights(schema, case.seed)
        return redrawn(schema, drawn, Redrawn(case.redrawn)) if case.redrawn else drawn
    weights = drawn_by_shape(schema, alike=case.alike)
    return {name: _quiet(array) for name, array in weights.items()} if case.quiet else weights


def _quiet(array: Array) -> Array:
    return (array / 8).astype(array.dtype)


def by_shape(evidence: Sequence[Evidence] | None) -> tuple[Evidence, ...]:
    """What the reference did with the probes that need no map."""
    return tuple(item for item in evidence or () if item.case.by_shape and not item.case.alike)


def alike(evidence: Sequence[Evidence] | None) -> tuple[Evidence, ...]:
    """What the reference did with the probes that need neither a map nor an order of features."""
    return tuple(item for item in evidence or () if item.case.alike)


def observe(
    model: CanonicalModel,
    case: Case,
    statistics: Mapping[str, Array] | None = None,
    runtime: Executor | None = None,
    fit: Sequence[Array] | None = None,
    frozen: Mapping[str, Array] | None = None,
) -> Evidence:
    """Run one case on a model; its weights are whatever the last step left.

    Args:
        model: The model.
        case: The probe.
        statistics: Running statistics that the reference used; without them they are fitted here.
        runtime: What runs the schema, if several cases share one.
        fit: Data that the statistics are fitted to; the case's own if left out.
        frozen: What the reference holds, by canonical name, where the case takes it.

    Raises:
        SizeRefused: The model does not accept the case's size.
    """
    schema, weights = model.schema, weights_of(model.schema, case) | dict(frozen or {})
    if statistics is None:
        statistics = {}
        if not case.by_shape:
            data = case.inputs if fit is None else fit
            runs, usual = runtime or executor_of(model), case.at_example(schema)
            if not usual:
                # The model has the word: ONNX Runtime ends its process where a convolution leaves no rows for what follows.
                forward(model, case.inputs)
            try:
                statistics = fitted_statistics(runs, schema, weights, data, case.seed)
            except GraphRefused as error:
                if usual:
                    # What the runtime refuses, the model may refuse, too.
                    forward(model, case.inputs)
                    raise
                raise SizeRefused(error.message, hint=error.hint) from error
        statistics |= frozen or {}
    weights |= statistics
    broken = case.redrawn in BROKEN
    inputs = with_broken(schema, case.inputs, Redrawn(case.redrawn)) if broken else case.inputs
    outputs = outputs_with(model, weights, inputs)
    if not case.at_example(schema):
        _require_examples(schema, case, outputs)
    if not case.differentiate:
        return Evidence(case, statistics, outputs)
    generator = np.random.Generator(np.random.Philox(key=[case.seed, 3]))
    weighed = _normal(generator, outputs)
    targets = generator.standard_normal(outputs[0].shape).astype(np.float32)
    config = TrainConfig(STEP, loss=MeanSquaredError(), dropout=False)
    columns = features(schema) if case.alike else {}
    step = config if case.step else None
    question = Question(case.inputs, weights, weighed, targets, step, columns, case.by_shape)
    answer = ask(model, question)
    measured = rounding(model, question, answer, case.seed) if case.rounding else {}
    return Evidence(
        case, statistics, outputs, answer.gradients, answer.moved, answer.updated, rounding=measured
    )


def _require_examples(schema: Schema, case: Case, outputs: Sequence[Array]) -> None:
    """A reshape to (-1, 2, 3) takes images of 3 × 4 as well, and makes two examples of each: the model has one size.

    Raises:
        SizeRefused: An output that has an entry for each example at the example's size has others at this one.
    """
    count, there = len(case.inputs[0]), schema.inputs[0].shape[0]
    for port, output in zip(schema.outputs, outputs, strict=True):
        if port.shape[:1] == (there,) and output.shape[:1] != (count,):
            raise SizeRefused(f"the model makes {list(output.shape)} of {count} examples at this size")


def cotangents(case: Case, outputs: Sequence[Array]) -> tuple[Array, ...]:
    """What every output of a case is weighed with, where gradients are taken."""
    return _normal(np.random.Generator(np.random.Philox(key=[case.seed, 3])), outputs)


def _normal(generator: np.random.Generator, like: Sequence[Array]) -> tuple[Array, ...]:
    return tuple(generator.standard_normal(array.shape).astype(np.float32) for array in like)


def fitted_statistics(
    runtime: Executor, schema: Schema, weights: Mapping[str, Array], inputs: Sequence[Array], seed: int
) -> dict[str, Array]:
    """Running statistics near those of the data that really flows, by canonical name.

    With drawn statistics a deep network soon ignores its input. ONNX Runtime computes those of every layer in one
    pass, each layer normalised by its own batch.
    """
    norms = [node.parameters for node in schema.nodes if node.operator == "BatchNormalization"]
    if not norms:
        return {}
    pairs = list(dict.fromkeys((roles["mean"], roles["variance"]) for roles in norms))
    fitted = runtime.batch_statistics(weights, inputs)
    return shaken(pairs, fitted, seed)
