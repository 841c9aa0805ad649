"""Rounding is measured: no size is too large for an honest pair, and no fault hides behind it."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import keras
import numpy as np
import pytest
import torch
from keras import layers as K
from keras import ops
from torch import nn

import xbackend_fl
from xbackend_fl.adapter import adapter_of
from xbackend_fl.adapter.canonical_model import CanonicalModel
from xbackend_fl.errors import MismatchError, UnprovenError
from xbackend_fl.mapping import evidence_of
from xbackend_fl.mapping.align.structure import find_binding
from xbackend_fl.mapping.proof.prove import prove

SIZES = (32, 64, 128, 224)
QUICK = 32
"""The larger ones take up to half a minute each; ``--thorough`` runs them."""


class Block(nn.Module):
    def __init__(self, inputs: int, outputs: int, stride: int) -> None:
        super().__init__()
        self.conv1 = nn.Conv2d(inputs, outputs, 3, stride=stride, padding=1, bias=False)
        self.norm1 = nn.BatchNorm2d(outputs)
        self.conv2 = nn.Conv2d(outputs, outputs, 3, padding=1, bias=False)
        self.norm2 = nn.BatchNorm2d(outputs)
        self.short = nn.Conv2d(inputs, outputs, 1, stride=stride) if stride > 1 else nn.Identity()

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        y = torch.relu(self.norm1(self.conv1(x)))
        return torch.relu(self.norm2(self.conv2(y)) + self.short(x))


class Residual(nn.Module):
    """Global pooling over normalised sums: gradients cancel, and the more pixels, the more of them is rounding."""

    def __init__(self) -> None:
        super().__init__()
        self.stem = nn.Conv2d(3, 16, 3, padding=1)
        self.blocks = nn.Sequential(Block(16, 16, 1), Block(16, 32, 2), Block(32, 64, 2))
        self.head = nn.Linear(64, 4)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        result: torch.Tensor = self.head(self.blocks(nn.functional.silu(self.stem(x))).mean((2, 3)))
        return result


def twin() -> keras.Model:
    def norm(y: Any) -> Any:
        return K.BatchNormalization(epsilon=1e-5, momentum=0.9)(y)

    image = keras.Input((None, None, 3))
    x = K.Conv2D(16, 3, padding="same", activation="swish")(image)
    for filters, stride in ((16, 1), (32, 2), (64, 2)):
        y = K.ZeroPadding2D(1)(x)
        y = K.ReLU()(norm(K.Conv2D(filters, 3, strides=stride, use_bias=False)(y)))
        y = norm(K.Conv2D(filters, 3, padding="same", use_bias=False)(y))
        x = K.ReLU()(K.Add()([y, K.Conv2D(filters, 1, strides=stride)(x) if stride > 1 else x]))
    return keras.Model(image, K.Dense(4)(K.GlobalAveragePooling2D()(x)))


@pytest.mark.slow
@pytest.mark.parametrize("size", SIZES)
def test_a_residual_pair_is_proven_at_every_size_and_its_faults_are_found(
    size: int, *, thorough: bool
) -> None:
    if size > QUICK and not thorough:
        pytest.skip("large: --thorough")
    example = (np.random.default_rng(0).standard_normal((1, 3, size, size)).astype(np.float32),)
    left, right = (adapter_of(model).load_model(model, example) for model in (Residual(), twin()))
    schema, evidence = left.description.schema, evidence_of(left, example)
    binding, _ = find_binding(schema, right.description)
    proof = prove(CanonicalModel(schema, binding, right), example, evidence)
    assert proof.proven, [check for check in proof.checks if not check.passed]
    assert proof.largest_error <= proof.tolerance
    one, two = "blocks.1.norm1.weight", "blocks.1.norm2.weight"
    swapped = {one: binding.parameters[two], two: binding.parameters[one]}
    wrong = replace(binding, parameters={**binding.parameters, **swapped})
    assert not prove(CanonicalModel(schema, wrong, right), example, evidence).proven
    loose = Residual()
    for module in loose.modules():
        if isinstance(module, nn.BatchNorm2d):
            module.eps = 1e-3
    theirs = evidence_of(adapter_of(loose).load_model(loose, example), example)
    found = prove(CanonicalModel(schema, binding, right), example, theirs)
    assert {"outputs", "gradients", "step"} <= {check.what for check in found.checks if not check.passed}


SCALED = {
    "bytes": (lambda x: x / 255, lambda x: x / 255),
    "words": (lambda x: x / 65535, lambda x: x / 65535),
    "saturated": (lambda x: torch.tanh(x * 255), lambda x: ops.tanh(x * 255)),
    "logarithm": (lambda x: torch.log(x + 1), lambda x: ops.log(x + 1)),
    "root": (torch.sqrt, ops.sqrt),
    "small beside a constant": (lambda x: x * 1e-7, lambda x: x * 1e-7),
    "smaller still": (lambda x: x * 1e-9, lambda x: x * 1e-9),
}


@pytest.mark.one_in(6)
@pytest.mark.parametrize("kind", SCALED)
def test_data_of_another_scale(kind: str) -> None:
    before, native = SCALED[kind]

    class Scaled(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.conv, self.head = nn.Conv2d(3, 4, 3), nn.Linear(4, 2)

        def forward(self, x: torch.Tensor) -> torch.Tensor:
            result: torch.Tensor = self.head(torch.relu(self.conv(before(x))).mean((2, 3)))
            return result

    image = keras.Input((8, 8, 3))
    y = K.GlobalAveragePooling2D()(K.Conv2D(4, 3, activation="relu")(native(image)))
    example = (np.random.default_rng(0).standard_normal((1, 3, 8, 8)).astype(np.float32),)
    model = Scaled()
    schema, evidence = xbackend_fl.describe_reference(model, example)
    assert xbackend_fl.bind(keras.Model(image, K.Dense(2)(y)), schema, example, evidence).proof.proven
    leaky = K.GlobalAveragePooling2D()(K.Conv2D(4, 3, activation="relu", padding="valid")(native(image)))
    other = keras.Model(image, K.Dense(2)(leaky + 1e-2 * ops.tanh(leaky)))
    with pytest.raises(MismatchError):
        xbackend_fl.bind(other, schema, example, evidence)


def tiny_groups(epsilon: float) -> nn.Module:
    """Two values make a group: a difference of large numbers, of which ONNX Runtime loses more than the frameworks."""
    torch.manual_seed(0)
    return nn.Sequential(nn.Conv2d(3, 8, 3), nn.GroupNorm(4, 8, eps=epsilon))


@pytest.mark.parametrize("published", [True, False])
def test_the_rounding_of_the_third_opinion_is_measured_too(*, published: bool) -> None:
    example, model = (
        (np.random.default_rng(2).standard_normal((1, 3, 3, 3)).astype(np.float32),),
        tiny_groups(1e-5),
    )
    schema, gathered = xbackend_fl.describe_reference(model, example)
    evidence = gathered if published else None
    assert xbackend_fl.bind(model, schema, example, evidence).proof.proven
    loose = adapter_of(model).load_model(tiny_groups(1e-3), example)
    proof = prove(CanonicalModel(schema, loose.description.binding, loose), example, evidence)
    assert "onnx runtime" in {check.what for check in proof.checks if not check.passed}


class Variance(nn.Module):
    """A variance spelled out as the mean of squares less the square of the mean, around a large number."""

    def __init__(self) -> None:
        super().__init__()
        self.one, self.two = nn.Linear(8, 6), nn.Linear(8, 6)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        y = self.one(x) + 30
        spread = y.pow(2).mean(-1, keepdim=True) - y.mean(-1, keepdim=True).pow(2)
        result: torch.Tensor = torch.tanh(spread) * self.two(x)
        return result


def test_rounding_beside_large_constants_is_no_difference() -> None:
    example = (np.random.default_rng(2).standard_normal((1, 8)).astype(np.float32),)
    x = keras.Input((8,))
    y = K.Dense(6)(x) + 30
    spread = ops.mean(y**2, -1, keepdims=True) - ops.mean(y, -1, keepdims=True) ** 2
    right, model = keras.Model(x, ops.tanh(spread) * K.Dense(6)(x)), Variance()
    schema, evidence = xbackend_fl.describe_reference(model, example)
    assert xbackend_fl.bind(right, schema, example, evidence).proof.proven


def test_what_is_rounding_in_every_draw_is_unproven_and_no_mismatch() -> None:
    class Fast(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.one, self.two, self.three = (nn.Linear(8, 6) for _ in range(3))

        def forward(self, x: torch.Tensor) -> torch.Tensor:
            result: torch.Tensor = torch.sin(1e4 * self.one(x)) * self.two(x) + self.three(x)
            return result

    example = (np.random.default_rng(2).standard_normal((1, 8)).astype(np.float32),)
    x = keras.Input((8,))
    right, model = keras.Model(x, ops.sin(1e4 * K.Dense(6)(x)) * K.Dense(6)(x) + K.Dense(6)(x)), Fast()
    schema, evidence = xbackend_fl.describe_reference(model, example)
    with pytest.raises(UnprovenError, match="rounding alone moves the outputs by up to"):
        xbackend_fl.bind(right, schema, example, evidence)
