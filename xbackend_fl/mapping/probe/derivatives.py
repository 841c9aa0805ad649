"""Gradients and one optimizer step in canonical form, and how far rounding moves them."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from typing import Any

import numpy as np
from numpy.typing import NDArray

from xbackend_fl.adapter.canonical_model import CanonicalModel
from xbackend_fl.adapter.contract import Batch, TrainConfig
from xbackend_fl.adapter.optimizers.kinds.sgd import SGD
from xbackend_fl.canonical import Kind
from xbackend_fl.mapping.probe.norms import norm_of
from xbackend_fl.mapping.probe.pieces import taken_apart
from xbackend_fl.mapping.probe.sketch import columns, sketch, sketch_of_change, sketches

Array = NDArray[Any]

STEP = SGD(lr=2.0**20)
"""One step of plain SGD. The rate is huge and a power of two, so that nothing of a small gradient is lost when it is added to a weight."""

SHIFT = 2.0**-20
"""How far weights are moved there and back: enough to round otherwise, and too little for a curve to show."""

PARTS = ("gradients", "moved", "updated")
"""What an answer consists of."""


@dataclass(frozen=True)
class Question:
    """At what a model is differentiated.

    Attributes:
        inputs: Data in ONNX layout.
        weights: Canonical weights, running statistics included.
        cotangents: What every output is weighed with.
        targets: Of the step's mean squared error on the first output.
        config: How the step is made; ``None`` for gradients only.
        columns: Piece of a parameter to the axis along which its gradient is not summed up.
        by_piece: Whether gradients are those of the pieces of parameters.
    """

    inputs: tuple[Array, ...]
    weights: Mapping[str, Array]
    cotangents: tuple[Array, ...]
    targets: Array
    config: TrainConfig | None
    columns: Mapping[str, int] = field(default_factory=dict)
    by_piece: bool = False


@dataclass(frozen=True)
class Answer:
    """What the model does there: sketches by canonical name.

    Attributes:
        gradients: In evaluation mode, by trainable parameter or by piece of one.
        moved: The change in one step in training mode without dropout.
        updated: The running statistics after that step.
    """

    gradients: Mapping[str, Array]
    moved: Mapping[str, Array] = field(default_factory=dict)
    updated: Mapping[str, Array] = field(default_factory=dict)


def ask(model: CanonicalModel, question: Question) -> Answer:
    """Differentiate a model that holds the question's weights, and take a step if one is wanted; they are then what the step left."""
    schema, whole = model.schema, model.gradients(question.inputs, question.cotangents)
    gradients = {
        name: columns(array, question.columns[name]) if name in question.columns else sketch(array)
        for name, array in (taken_apart(schema, whole) if question.by_piece else whole).items()
    }
    if question.config is None or model.binding.inference_only:
        return Answer(gradients)
    model.reset(0)
    model.train([Batch(question.inputs, question.targets)], question.config)
    after, start = model.read(copy=False), question.weights
    moving = {p.name for p in schema.parameters if p.kind is Kind.STATISTIC}
    moved = {n: sketch_of_change(start[n], after[n]) for n in after if n not in moving}
    return Answer(gradients, moved, sketches({name: after[name] for name in moving}))


def rounding(model: CanonicalModel, question: Question, answer: Answer, seed: int) -> dict[str, Array]:
    """How far rounding moves what a model answers: one norm per tensor, by ``gradients/NAME``, ``moved/NAME``, ``updated/NAME``.

    A gradient is linear in its cotangents and a step is affine in its targets, so the mean of two answers, at cotangents
    and targets moved there and back, is the answer in between; what is left is rounding. Every intermediate value
    is another one, so errors that are equal from run to run (a long sum of equal numbers) show, too. Weights
    move by one unit in the last place meanwhile; data does not, for both models receive it exactly: a mask of ones that
    are not quite ones is another mask. Weights move by a millionth there and back besides: a unit of a small weight is nothing beside
    a large constant that is added later, and in the mean of both answers all but rounding cancels.

    Args:
        model: The model; its weights are changed.
        question: Where to measure.
        answer: What the model answered there.
        seed: Draws the moves.
    """
    generator = np.random.Generator(np.random.Philox(key=[seed, 6]))
    shifts = [generator.standard_normal(array.shape) for array in (*question.cotangents, question.targets)]
    signs = {name: coins(array.size, generator) for name, array in question.weights.items()}
    pair = []
    for sign in (1, -1):
        moved = [
            (array + sign * shift).astype(array.dtype)
            for array, shift in zip((*question.cotangents, question.targets), shifts, strict=True)
        ]
        beside = replace(
            question,
            weights={
                name: nudged(array, generator)
                for name, array in shifted(question.weights, signs, sign).items()
            },
            cotangents=tuple(moved[:-1]),
            targets=moved[-1],
        )
        model.write(beside.weights, copy=False)
        pair.append(ask(model, beside))
    return {
        f"{part}/{name}": np.array(
            [norm_of((_part(pair[0], part)[name] + _part(pair[1], part)[name]) / 2 - array)]
        )
        for part in PARTS
        for name, array in _part(answer, part).items()
    }


def _part(answer: Answer, part: str) -> Mapping[str, Array]:
    found: Mapping[str, Array] = getattr(answer, part)
    return found


def coins(size: int, generator: np.random.Generator) -> Array:
    """A random bit for each of ``size`` values, packed: uint8 ``[size / 8]``."""
    return np.frombuffer(generator.bytes(-(-size // 8)), np.uint8)


def nudged(array: Array, generator: np.random.Generator) -> Array:
    """Floats moved by about one unit in the last place, each up or down."""
    if array.dtype.kind != "f":
        return array
    return _moved(array, coins(array.size, generator), float(np.finfo(array.dtype).eps))


def shifted(weights: Mapping[str, Array], signs: Mapping[str, Array], way: int) -> dict[str, Array]:
    """Floats moved by a part of themselves, :data:`SHIFT`.

    Args:
        weights: Arrays by name.
        signs: In which direction, a packed bit for every element (:func:`coins`).
        way: 1 for there, -1 for back.
    """
    return {
        name: _moved(array, signs[name], way * SHIFT) if array.dtype.kind == "f" else array
        for name, array in weights.items()
    }


def _moved(array: Array, up: Array, part: float) -> Array:
    """Floats moved by a part of themselves, each up or down."""
    bits = np.unpackbits(up, count=array.size)
    factors = np.array([1 - part, 1 + part], array.dtype)
    moved: Array = array * factors[bits].reshape(array.shape)
    return moved
