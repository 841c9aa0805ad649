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
from xbackend_fl.mapping.sketch import sketches

Array = NDArray[Any]

EXAMPLE = "the example"
"""Label of the probe with the user's own data."""

BY_SHAPE = "the same weights by shape"
"""Label of the probe that needs no map."""


@dataclass(frozen=True)
class Case:
    """One probe.

    Attributes:
        label: For people.
        seed: Draws weights, data, cotangents and targets.
        inputs: Data in ONNX layout.
        differentiate: Whether gradients are compared as well as outputs.
        step: Whether an optimizer step is compared too.
    """

    label: str
    seed: int
    inputs: tuple[Array, ...]
    differentiate: bool = True
    step: bool = True


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


def cases(schema: Schema, example: Sequence[Array], draws: int = 4) -> list[Case]:
    """Cases at the example's size, at a neighbouring size (odd and even), the example itself, and one by shape."""
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
    inputs = draw_inputs(schema, shapes, draws + 5, scale=10.0)
    result.append(Case(BY_SHAPE, draws + 5, inputs, differentiate=False, step=False))
    return result


def weights_of(schema: Schema, case: Case) -> dict[str, Array]:
    """The weights of a case, running statistics aside."""
    return draw_by_shape(schema) if case.label == BY_SHAPE else draw_weights(schema, case.seed)


def observe(
    trainer: Trainer,
    binding: Binding,
    schema: Schema,
    case: Case,
    statistics: Mapping[str, Array] | None = None,
) -> Evidence:
    """Run one case on a model; its weights are whatever the last step left.

    Args:
        trainer: The model.
        binding: Its binding to ``schema``.
        schema: The treaty.
        case: The probe.
        statistics: Running statistics that the reference used; without them they are fitted here.

    Raises:
        RefusedInput: The model does not accept the case's size.
    """
    weights = weights_of(schema, case)
    inputs = [axes.to_native(array) for axes, array in zip(binding.inputs, case.inputs, strict=True)]
    if statistics is None:
        statistics = {}
        if case.label != BY_SHAPE:
            data = inputs
            if case.label == EXAMPLE:
                # Copies of one example have no variance; these have the same sizes.
                drawn = draw_inputs(schema, [array.shape for array in case.inputs], case.seed)
                data = [axes.to_native(a) for axes, a in zip(binding.inputs, drawn, strict=True)]
            statistics = _statistics(trainer, binding, schema, weights, data, case.seed)
    weights |= statistics
    trainer.write(binding.restore(weights))
    raw = trainer.forward(inputs)
    outputs = tuple(axes.to_canonical(a) for axes, a in zip(binding.outputs, raw, strict=True))
    if not case.differentiate:
        return Evidence(case, statistics, outputs)
    generator = np.random.Generator(np.random.Philox(key=[case.seed, 3]))
    cotangents = [generator.standard_normal(output.shape).astype(np.float32) for output in outputs]
    turned = [axes.to_native(c) for axes, c in zip(binding.outputs, cotangents, strict=True)]
    grads = sketches(canonical_gradients(binding, trainer.gradients(inputs, turned)))
    if not case.step:
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


def accepted(trainer: Trainer, binding: Binding, case: Case) -> bool:
    """Whether a model takes inputs of the case's size."""
    try:
        trainer.forward([axes.to_native(a) for axes, a in zip(binding.inputs, case.inputs, strict=True)])
    except RefusedInput:
        return False
    return True


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
    """The treaty's training attributes by native layer: every backend trains with the same."""
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
    trainer: Trainer,
    binding: Binding,
    schema: Schema,
    weights: Mapping[str, Array],
    inputs: Sequence[Array],
    seed: int,
) -> dict[str, Array]:
    """Running statistics near those of the data that really flows, by canonical name.

    With drawn statistics a deep network soon ignores its input. Training mode normalises with the statistics
    of the batch, so one step there yields those of every layer at once: ``stepped = m · old + (1 - m) · batch``.
    """
    shares = {
        (node.parameters["mean"], node.parameters["variance"]): float(str(node.attributes["momentum"]))
        for node in schema.nodes
        if node.operator == "BatchNormalization" and float(str(node.attributes["momentum"])) < 1.0
    }
    if not shares:
        return {}
    trainer.write(binding.restore(weights))
    raw = trainer.forward(inputs)[0]
    stepped = _stepped(trainer, binding, schema, inputs, np.zeros_like(raw))
    fitted = {}
    for pair, share in shares.items():
        for name in pair:
            new = (stepped[name].astype(np.float64) - share * weights[name]) / (1.0 - share)
            fitted[name] = new.astype(weights[name].dtype)
    return shaken(list(shares), fitted, seed)


def _sizes(shapes: Sequence[tuple[int, ...]]) -> str:
    return " and ".join("×".join(map(str, shape[1:])) or "scalar" for shape in shapes)
