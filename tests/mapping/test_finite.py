"""Weights and examples that are no numbers are refused, with their name and place."""

from __future__ import annotations

import math
from collections.abc import Callable

import keras
import numpy as np
import pytest
import torch
from keras import layers as K
from torch import nn

import xbackend_fl
from xbackend_fl.errors import RefusedInput

EXAMPLE = (np.random.default_rng(0).standard_normal((1, 3, 4, 4)).astype(np.float32),)
VECTOR = (np.random.default_rng(0).standard_normal((1, 8)).astype(np.float32),)


def network(spoil: Callable[[nn.Sequential], None]) -> nn.Module:
    model = nn.Sequential(nn.Conv2d(3, 4, 3), nn.BatchNorm2d(4), nn.Flatten(), nn.Linear(16, 3))
    with torch.no_grad():
        spoil(model)
    return model


def set_weight(model: nn.Sequential) -> None:
    model.get_parameter("0.weight")[1, 2, 0, 1] = math.nan


def set_variance(model: nn.Sequential) -> None:
    model.get_buffer("1.running_var")[2:] = math.inf


SPOILT = (
    (set_weight, r"'0.weight' of the torch model holds nan at \[1, 2, 0, 1\]"),
    (set_variance, r"'1.running_var' of the torch model holds inf at \[2\], the first of 2 values"),
)


@pytest.mark.parametrize(("spoil", "words"), SPOILT)
def test_a_weight_that_is_no_number_is_named(spoil: Callable[[nn.Sequential], None], words: str) -> None:
    model = network(spoil)
    with pytest.raises(RefusedInput, match=words):
        xbackend_fl.gather_evidence(model, EXAMPLE)
    whole = network(lambda _: None)
    schema, evidence = xbackend_fl.describe_reference(whole, EXAMPLE)
    for published in (evidence, None):
        with pytest.raises(RefusedInput, match="of the torch model holds"):
            xbackend_fl.bind(model, schema, EXAMPLE, published)


def test_a_weight_of_keras_that_is_no_number_is_named() -> None:
    x = keras.Input((8,))
    model = keras.Model(x, K.Dense(3, name="head")(x))
    kernel, bias = model.get_weights()
    bias[1] = -math.inf
    model.set_weights([kernel, bias])
    with pytest.raises(RefusedInput, match=r"'head/bias' of the tensorflow model holds -inf at \[1\]"):
        xbackend_fl.gather_evidence(model, VECTOR)


def test_a_mask_that_a_model_keeps_may_be_infinite() -> None:
    class Hiding(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.dense = nn.Linear(8, 3)
            self.register_buffer("mask", torch.tensor([0.0, -math.inf, 0.0]))

        def forward(self, x: torch.Tensor) -> torch.Tensor:
            result: torch.Tensor = (self.dense(x) + self.get_buffer("mask")).softmax(-1)
            return result

    model = Hiding()
    schema, evidence = xbackend_fl.describe_reference(model, VECTOR)
    assert xbackend_fl.bind(model, schema, VECTOR, evidence).proof.proven


def test_an_example_that_is_no_number_is_refused_with_its_place() -> None:
    example = np.zeros((2, 8), np.float32)
    example[1, 3] = math.nan
    with pytest.raises(
        RefusedInput, match=r"input 0 of the example is float32 \[2, 8\] and holds nan at \[1, 3\]"
    ):
        xbackend_fl.describe(nn.Linear(8, 3), (example,))


def test_an_example_may_hide_by_minus_infinity() -> None:
    class Masked(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.score = nn.Linear(8, 5)

        def forward(self, x: torch.Tensor, mask: torch.Tensor) -> torch.Tensor:
            return (self.score(x) + mask).softmax(-1)

    mask = np.zeros((2, 5), np.float32)
    mask[:, 3] = -math.inf
    model = Masked()
    schema, evidence = xbackend_fl.describe_reference(model, (*VECTOR, mask))
    assert xbackend_fl.bind(model, schema, (*VECTOR, mask), evidence).proof.proven
