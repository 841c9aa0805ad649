"""Draws weights and data that make differences visible, and records what a model does with them."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from xbackend_fl.adapter.contract import Batch, TrainConfig, Trainer
from xbackend_fl.adapter.optimizers import Optimizer
from xbackend_fl.canonical import OPERATORS, Binding, Effect, Parameter, Schema
from xbackend_fl.canonical.layout import leaves
from xbackend_fl.errors import RefusedInput

Array = NDArray[Any]

BATCH = 4
"""Examples per probe: batch statistics need several."""


@dataclass(frozen=True)
class Case:
    """One probe.

    Attributes:
        label: For people.
        seed: Draws weights, data, cotangents and targets.
        inputs: Data in ONNX layout.
    """

    label: str
    seed: int
    inputs: tuple[Array, ...]


@dataclass(frozen=True)
class Evidence:
    """What one model did with one case, in canonical names and layouts.

    Attributes:
        case: The case.
        outputs: Outputs in evaluation mode.
        gradients: Gradients in evaluation mode, by trainable parameter.
        stepped: All weights after one optimizer step in training mode without dropout.
    """

    case: Case
    outputs: tuple[Array, ...]
    gradients: Mapping[str, Array]
    stepped: Mapping[str, Array]


def cases(schema: Schema, example: Sequence[Array], draws: int = 2) -> list[Case]:
    """Cases at the example's size, at a neighbouring size (odd and even), and the example itself."""
    shapes = [array.shape for array in example]
    spatial = any(len(shape) >= 3 for shape in shapes)
    larger = [(*shape[:2], *(n + 1 for n in shape[2:])) if len(shape) >= 3 else shape for shape in shapes]
    result = [
        Case(f"draw {seed}, {_sizes(shapes)}", seed, draw_inputs(schema, shapes, seed))
        for seed in range(draws)
    ]
    if spatial:
        seed = draws
        result.append(Case(f"draw {seed}, {_sizes(larger)}", seed, draw_inputs(schema, larger, seed)))
    own = tuple(np.concatenate([array] * BATCH)[:BATCH] for array in example)
    result.append(Case("the example", draws + 1, own))
    return result


def draw_weights(schema: Schema, seed: int) -> dict[str, Array]:
    """Random parameters that keep activations near one and put variances near the epsilons' reach."""
    generator = np.random.Generator(np.random.Philox(key=[seed, 1]))
    return {p.name: _draw(p, generator) for p in schema.parameters}


def draw_inputs(schema: Schema, shapes: Sequence[tuple[int, ...]], seed: int) -> tuple[Array, ...]:
    """Random data: normal for floats, valid indices for integers."""
    generator = np.random.Generator(np.random.Philox(key=[seed, 2]))
    vocabulary = min((p.shape[0] for p in schema.parameters if p.operator == "Gather"), default=2)
    return tuple(
        generator.integers(0, vocabulary, (BATCH, *shape[1:])).astype(port.dtype)
        if np.dtype(port.dtype).kind in "iu"
        else generator.standard_normal((BATCH, *shape[1:])).astype(port.dtype)
        for port, shape in zip(schema.inputs, shapes, strict=True)
    )


def observe(trainer: Trainer, binding: Binding, schema: Schema, case: Case) -> Evidence:
    """Run one case on a model; its weights are whatever the last step left.

    Raises:
        RefusedInput: The model does not accept the case's size.
    """
    weights = draw_weights(schema, case.seed)
    native = binding.restore(weights)
    trainer.write(native)
    inputs = [axes.to_native(array) for axes, array in zip(binding.inputs, case.inputs, strict=True)]
    raw = trainer.forward(inputs)
    generator = np.random.Generator(np.random.Philox(key=[case.seed, 3]))
    outputs = tuple(axes.to_canonical(a) for axes, a in zip(binding.outputs, raw, strict=True))
    cotangents = [generator.standard_normal(output.shape).astype(np.float32) for output in outputs]
    turned = [axes.to_native(c) for axes, c in zip(binding.outputs, cotangents, strict=True)]
    grads = trainer.gradients(inputs, turned)
    targets = binding.outputs[0].to_native(generator.standard_normal(outputs[0].shape).astype(np.float32))
    batch = Batch(tuple(inputs), np.ascontiguousarray(targets))
    config = TrainConfig(
        Optimizer("sgd", lr=0.1),
        loss="mean_squared_error",
        dropout=False,
        attributes=training_attributes(schema, binding),
        silenced=binding.silenced,
    )
    trainer.reset(case.seed)
    trainer.train([batch], config)
    stepped = binding.export(trainer.read())
    return Evidence(case, outputs, canonical_gradients(binding, grads), stepped)


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


def accepted(trainer: Trainer, binding: Binding, case: Case) -> bool:
    """Whether a model takes inputs of the case's size."""
    try:
        trainer.forward([axes.to_native(a) for axes, a in zip(binding.inputs, case.inputs, strict=True)])
    except RefusedInput:
        return False
    return True


def _draw(parameter: Parameter, generator: np.random.Generator) -> Array:
    slot = OPERATORS[parameter.operator].slot(parameter.role)
    shape = parameter.shape
    if slot.fan_in_axes:
        fan_in = math.prod(shape[axis] for axis in slot.fan_in_axes if axis < len(shape))
        values = generator.standard_normal(shape) * math.sqrt(2.0 / max(fan_in, 1))
    elif parameter.role == "variance":
        # Small enough for an epsilon of 1e-3 to differ visibly from 1e-5.
        values = generator.uniform(0.05, 1.5, shape)
    elif parameter.operator == "PRelu":
        values = generator.uniform(0.05, 0.5, shape)
    elif parameter.role == "weight" and parameter.operator != "Gather":
        values = generator.uniform(0.5, 1.5, shape)
    else:
        values = generator.standard_normal(shape) * (1.0 if parameter.operator == "Gather" else 0.3)
    return values.astype(parameter.dtype)


def _sizes(shapes: Sequence[tuple[int, ...]]) -> str:
    return " and ".join("×".join(map(str, shape[1:])) or "scalar" for shape in shapes)
