"""The proof fails when it should: each planted fault is one that real conversions make."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import replace
from typing import Any

import keras
import numpy as np
import pytest
from keras import layers as K
from torch import nn

import xbfl_torch.steps
from tests.adapters.row import chain
from tests.adapters.zoo import ROWS
from xbackend_fl.adapter.canonical_model import CanonicalModel
from xbackend_fl.canonical import Binding
from xbackend_fl.canonical.layout import Blocks, Layout, Reorder, Stack, Sum, Transpose
from xbackend_fl.mapping import Proof, evidence_of
from xbackend_fl.mapping.align.structure import find_binding
from xbackend_fl.mapping.proof.prove import prove
from xbfl_tensorflow.trainer import TensorFlowTrainer
from xbfl_torch.trainer import TorchTrainer

IMAGE = (np.random.default_rng(0).standard_normal((1, 3, 8, 8)).astype(np.float32),)


def failures(proof: Proof) -> set[str]:
    return {check.what for check in proof.checks if not check.passed}


def convolutions() -> tuple[Any, Any]:
    left = nn.Sequential(
        nn.Conv2d(3, 3, 3),
        nn.BatchNorm2d(3),
        nn.Conv2d(3, 3, 3),
        nn.Flatten(),
        nn.Linear(48, 48),
        nn.Linear(48, 2),
    )
    right = chain(
        K.Conv2D(3, 3), K.BatchNormalization(epsilon=1e-5), K.Conv2D(3, 3), K.Flatten(), K.Dense(48), K.Dense(2),
        shape=(8, 8, 3),
    )  # fmt: skip
    return TorchTrainer(left, IMAGE), TensorFlowTrainer(right, IMAGE)


def lstm() -> tuple[Any, Any, Any]:
    row = next(row for row in ROWS if row.name == "LSTM last step")
    example = row.example()
    return TensorFlowTrainer(row.keras(), example), TorchTrainer(row.torch(), example), example


def rebound(binding: Binding, **changed: Layout) -> Binding:
    return replace(binding, parameters={**binding.parameters, **changed})


def test_the_honest_binding_passes() -> None:
    left, right = convolutions()
    binding, _ = find_binding(left.description.schema, right.description)
    proof = prove(CanonicalModel(left.description.schema, binding, right), IMAGE, evidence_of(left, IMAGE))
    assert proof.proven
    assert not failures(proof)
    assert not Proof(()).proven


def test_two_swapped_tensors_of_one_shape() -> None:
    left, right = convolutions()
    schema = left.description.schema
    binding, _ = find_binding(schema, right.description)
    one, two = binding.parameters["0.weight"], binding.parameters["2.weight"]
    proof = prove(
        CanonicalModel(schema, rebound(binding, **{"0.weight": two, "2.weight": one}), right),
        IMAGE,
        evidence_of(left, IMAGE),
    )
    assert {"outputs", "onnx runtime"} <= failures(proof)


def test_a_swapped_mean_and_variance() -> None:
    left, right = convolutions()
    schema = left.description.schema
    binding, _ = find_binding(schema, right.description)
    one, two = binding.parameters["1.mean"], binding.parameters["1.variance"]
    wrong = rebound(binding, **{"1.mean": two, "1.variance": one})
    assert "outputs" in failures(prove(CanonicalModel(schema, wrong, right), IMAGE, evidence_of(left, IMAGE)))


def test_a_transposed_square_kernel() -> None:
    left, right = convolutions()
    schema = left.description.schema
    binding, _ = find_binding(schema, right.description)
    turned = Transpose(binding.parameters["0.weight"], (0, 1, 3, 2))
    wrong = rebound(binding, **{"0.weight": turned})
    assert "outputs" in failures(prove(CanonicalModel(schema, wrong, right), IMAGE, evidence_of(left, IMAGE)))


def test_a_flatten_order_left_out() -> None:
    left, right = convolutions()
    schema = left.description.schema
    binding, _ = find_binding(schema, right.description)
    layout = binding.parameters["4.weight"]
    assert isinstance(layout, Reorder)
    proof = prove(
        CanonicalModel(schema, rebound(binding, **{"4.weight": layout.base}), right),
        IMAGE,
        evidence_of(left, IMAGE),
    )
    assert "outputs" in failures(proof)


def test_gates_in_the_order_of_another_framework() -> None:
    reference, candidate, example = lstm()
    schema = reference.description.schema
    binding, _ = find_binding(schema, candidate.description)
    (name,) = (name for name in binding.parameters if name.endswith("recurrent_weight"))
    stack = binding.parameters[name]
    assert isinstance(stack, Stack)
    (gates,) = stack.parts
    assert isinstance(gates, Blocks)
    wrong = Stack((replace(gates, order=(0, 1, 2, 3)),))
    proof = prove(
        CanonicalModel(schema, rebound(binding, **{name: wrong}), candidate),
        example,
        evidence_of(reference, example),
    )
    assert "outputs" in failures(proof)


def test_a_second_bias_that_trains_shows_only_in_the_step() -> None:
    reference, candidate, example = lstm()
    schema = reference.description.schema
    binding, _ = find_binding(schema, candidate.description)
    assert binding.masked
    assert any(
        isinstance(part, Sum)
        for layout in binding.parameters.values()
        if isinstance(layout, Stack)
        for part in layout.parts
    )
    binding.__dict__["masked"] = ()
    proof = prove(CanonicalModel(schema, binding, candidate), example, evidence_of(reference, example))
    assert "step" in failures(proof)
    assert "outputs" not in failures(proof)


def test_an_unbiased_running_variance_shows_only_in_the_step(monkeypatch: pytest.MonkeyPatch) -> None:
    @contextmanager
    def nothing(_: Any) -> Iterator[None]:
        yield

    reference = TensorFlowTrainer(
        keras.Sequential([keras.Input((4,)), K.Dense(6), K.BatchNormalization(epsilon=1e-5, momentum=0.5)]),
        (np.zeros((1, 4), np.float32),),
    )
    candidate = TorchTrainer(
        nn.Sequential(nn.Linear(4, 6), nn.BatchNorm1d(6)), (np.zeros((1, 4), np.float32),)
    )
    example = (np.ones((1, 4), np.float32),)
    schema = reference.description.schema
    evidence = evidence_of(reference, example)
    binding, notes = find_binding(schema, candidate.description)
    assert any("momentum is 0.5 in the schema" in note for note in notes)
    assert prove(CanonicalModel(schema, binding, candidate), example, evidence).proven
    monkeypatch.setattr(xbfl_torch.steps, "_biased_variance", nothing)
    assert failures(prove(CanonicalModel(schema, binding, candidate), example, evidence)) == {"statistics"}


def test_a_function_that_ignores_its_input_proves_nothing() -> None:
    left = nn.Sequential(nn.Linear(4, 3), nn.ReLU6(), nn.Hardtanh(7.0, 8.0), nn.Linear(3, 2))
    example = (np.ones((1, 4), np.float32),)
    trainer = TorchTrainer(left, example)
    schema, binding = trainer.description.schema, trainer.description.binding
    assert "reacts" in failures(
        prove(CanonicalModel(schema, binding, trainer), example, evidence_of(trainer, example))
    )
