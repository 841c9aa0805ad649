"""Runs probes on a model and records what it does with them, in numbers small enough to publish."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np
from numpy.typing import NDArray

from xbackend_fl.adapter.contract import Batch, TrainConfig, Trainer
from xbackend_fl.adapter.optimizers import Optimizer
from xbackend_fl.canonical import OPERATORS, Binding, Effect, Kind, Schema
from xbackend_fl.canonical.layout import leaves
from xbackend_fl.errors import RefusedInput
from xbackend_fl.mapping.draw import BATCH, draw_by_shape, draw_inputs, draw_weights, shaken
from xbackend_fl.mapping.runtime import Runtime
from xbackend_fl.mapping.sketch import sketches

Array = NDArray[Any]

EXAMPLE = "the example"
"""Label of the probe with the user's own data."""

BY_SHAPE = "the same weights by shape"
"""Label of the probe that needs no map."""


class SizeRefused(RefusedInput):
    """A model does not take inputs of a case's size."""


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
    """

    label: str
    seed: int
    inputs: tuple[Array, ...]
    differentiate: bool = True
    step: bool = True
    reserve: bool = False


@dataclass(frozen=True)
class Evidence:
    """What one model did with one case, in canonical names and layouts.

    Attributes:
        case: The case.
        statistics: Running statistics that fit the case's weights and data; the candidate takes the same.
        outputs: Outputs in evaluation mode.
        gradients: Sketch of the gradient in evaluation mode, by trainable parameter.
        moved: Sketch of the change in one optimizer step in training mode without dropout, by trainable parameter.
        updated: Sketch of the running statistics after that step.
    """

    case: Case
    statistics: Mapping[str, Array]
    outputs: tuple[Array, ...]
    gradients: Mapping[str, Array] = field(default_factory=dict)
    moved: Mapping[str, Array] = field(default_factory=dict)
    updated: Mapping[str, Array] = field(default_factory=dict)


def cases(schema: Schema, example: Sequence[Array], draws: int = 4, reserve: int = 3) -> list[Case]:
    """Cases at the example's size, at a neighbouring size (odd and even), the example itself, and one by shape.

    Args:
        schema: The reference.
        example: One array per input.
        draws: Draws that are always run.
        reserve: Draws with a step that are run where rounding decided a kink in all the others.
    """
    shapes = [array.shape for array in example]
    spatial = any(len(shape) >= 3 for shape in shapes)
    larger = [(*shape[:2], *(n + 1 for n in shape[2:])) if len(shape) >= 3 else shape for shape in shapes]
    result = [
        Case(f"draw {seed}, {_sizes(shapes)}", seed, draw_inputs(schema, shapes, seed), step=bool(seed % 2))
        for seed in range(draws)
    ]
    if spatial:
        seed = draws + 1
        inputs = draw_inputs(schema, larger, seed)
        result.append(Case(f"draw {seed}, {_sizes(larger)}", seed, inputs, differentiate=False, step=False))
    own = tuple(np.concatenate([array] * BATCH)[:BATCH] for array in example)
    result.append(Case(EXAMPLE, draws + 3, own, differentiate=False, step=False))
    for seed in range(11, 11 + 2 * reserve, 2):
        label = f"draw {seed}, {_sizes(shapes)}"
        result.append(Case(label, seed, draw_inputs(schema, shapes, seed), reserve=True))
    inputs = draw_inputs(schema, shapes, draws + 5, scale=10.0)
    result.append(Case(BY_SHAPE, draws + 5, inputs, step=False))
    return result


def weights_of(schema: Schema, case: Case) -> dict[str, Array]:
    """The weights of a case, running statistics aside."""
    return draw_by_shape(schema) if case.label == BY_SHAPE else draw_weights(schema, case.seed)


def by_shape(evidence: Sequence[Evidence] | None) -> Evidence | None:
    """What the reference did with the probe that needs no map, if it is there."""
    return next((item for item in evidence or () if item.case.label == BY_SHAPE), None)


def observe(
    trainer: Trainer,
    binding: Binding,
    schema: Schema,
    case: Case,
    statistics: Mapping[str, Array] | None = None,
    runtime: Runtime | None = None,
) -> Evidence:
    """Run one case on a model; its weights are whatever the last step left.

    Args:
        trainer: The model.
        binding: Its binding to ``schema``.
        schema: The treaty.
        case: The probe.
        statistics: Running statistics that the reference used; without them they are fitted here.
        runtime: ONNX Runtime for ``schema``, if several cases share one.

    Raises:
        SizeRefused: The model does not accept the case's size.
    """
    weights = weights_of(schema, case)
    inputs = [axes.to_native(array) for axes, array in zip(binding.inputs, case.inputs, strict=True)]
    if statistics is None:
        # The runtime takes sizes that the model may not; the model has the word.
        _forward(trainer, inputs)
        statistics = {}
        if case.label != BY_SHAPE:
            data = case.inputs
            if case.label == EXAMPLE:
                # Copies of one example have no variance; these have the same sizes.
                data = draw_inputs(schema, [array.shape for array in case.inputs], case.seed)
            statistics = _statistics(runtime or Runtime(schema), schema, weights, data, case.seed)
    weights |= statistics
    trainer.write(binding.restore(weights))
    raw = _forward(trainer, inputs)
    outputs = tuple(axes.to_canonical(a) for axes, a in zip(binding.outputs, raw, strict=True))
    if not case.differentiate:
        return Evidence(case, statistics, outputs)
    generator = np.random.Generator(np.random.Philox(key=[case.seed, 3]))
    cotangents = [generator.standard_normal(output.shape).astype(np.float32) for output in outputs]
    turned = [axes.to_native(c) for axes, c in zip(binding.outputs, cotangents, strict=True)]
    grads = sketches(canonical_gradients(binding, trainer.gradients(inputs, turned)))
    if not case.step or binding.inference_only:
        return Evidence(case, statistics, outputs, grads)
    targets = generator.standard_normal(outputs[0].shape).astype(np.float32)
    stepped = _stepped(trainer, binding, schema, inputs, binding.outputs[0].to_native(targets))
    moving = {p.name for p in schema.parameters if p.kind is Kind.STATISTIC}
    return Evidence(
        case,
        statistics,
        outputs,
        grads,
        sketches({n: stepped[n].astype(np.float64) - weights[n] for n in stepped if n not in moving}),
        sketches({name: stepped[name] for name in moving}),
    )


def _forward(trainer: Trainer, inputs: Sequence[Array]) -> tuple[Array, ...]:
    try:
        return trainer.forward(inputs)
    except RefusedInput as error:
        raise SizeRefused(error.message, hint=error.hint) from error


def canonical_gradients(binding: Binding, grads: Mapping[str, Array]) -> dict[str, Array]:
    """Gradients in canonical layout. Both biases of a sum receive the same gradient; it counts once."""
    once = {name: array.copy() for name, array in grads.items()}
    for leaf in binding.silenced:
        if leaf.tensor in once:
            once[leaf.tensor][leaf.index] = 0
    for name in {leaf.tensor for leaf in binding.silenced} - once.keys():
        once[name] = np.zeros(binding.natives[name].shape, np.float32)
    whole = {
        n: layout
        for n, layout in binding.parameters.items()
        if {leaf.tensor for leaf in leaves(layout)} <= once.keys()
    }
    return Binding(binding.backend, "", whole, binding.natives).export(once)


def training_attributes(schema: Schema, binding: Binding) -> dict[str, dict[str, float]]:
    """The treaty's training attributes by native place: every backend trains with the same.

    Args:
        schema: The treaty.
        binding: Names the native place of every node; places of one layer that has one value for all share a name.
    """
    result: dict[str, dict[str, float]] = {}
    for node in schema.nodes:
        native = binding.nodes.get(node.name)
        wanted = {
            name: float(value)
            for name, value in node.attributes.items()
            if OPERATORS[node.operator].effect(name) is Effect.TRAINING and isinstance(value, float | int)
        }
        if native and wanted:
            result.setdefault(native, {}).update(wanted)
    for native in binding.switched_off:
        result[native] = {"ratio": 0.0, "dropout": 0.0, "padding_idx": -1.0}
    return result


def _stepped(
    trainer: Trainer, binding: Binding, schema: Schema, inputs: Sequence[Array], targets: Array
) -> dict[str, Array]:
    """All weights after one step of plain SGD."""
    config = TrainConfig(
        Optimizer("sgd", lr=0.1),
        loss="mean_squared_error",
        dropout=False,
        attributes=training_attributes(schema, binding),
        silenced=binding.silenced,
    )
    kept = {name: array for name, array in trainer.read().items() if name in binding.owners}
    trainer.reset(0)
    trainer.write(kept)
    trainer.train([Batch(tuple(inputs), np.ascontiguousarray(targets))], config)
    return binding.export(trainer.read())


def _statistics(
    runtime: Runtime, schema: Schema, weights: Mapping[str, Array], inputs: Sequence[Array], seed: int
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


def _sizes(shapes: Sequence[tuple[int, ...]]) -> str:
    return " and ".join("×".join(map(str, shape[1:])) or "scalar" for shape in shapes)
