"""Small numbers that keep a divisor from zero: two of them are two functions, in whatever form they stand."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
import torch
from torch import nn

import xbackend_fl
from xbackend_fl.errors import MismatchError
from xbackend_fl.mapping.match.difference import Difference

EXAMPLE = (np.random.default_rng(3).standard_normal((2, 8)).astype(np.float32),)


class ByHand(nn.Module):
    def __init__(self, epsilon: float) -> None:
        super().__init__()
        self.before, self.head, self.epsilon = nn.Linear(8, 6), nn.Linear(6, 3), epsilon
        self.weight, self.bias = nn.Parameter(torch.rand(6) + 0.5), nn.Parameter(torch.rand(6))

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        x = self.before(x)
        x = x - x.mean(-1, keepdim=True)
        squares = torch.mean(x.square(), -1, keepdim=True)
        # Not the form in which it is recognised as a layer.
        return self.head(self.weight * (x * (squares + self.epsilon).reciprocal().sqrt()) + self.bias)


def keras_layer(epsilon: float) -> Any:
    import keras

    layers = keras.layers
    return keras.Sequential(
        [
            keras.Input((8,)),
            layers.Dense(6),
            layers.LayerNormalization(epsilon=epsilon),
            layers.Dense(3),
        ]
    )


def bound(reference: Any, candidate: Any) -> xbackend_fl.BoundModel:
    schema, evidence = xbackend_fl.describe_reference(reference, EXAMPLE)
    return xbackend_fl.bind(candidate, schema, EXAMPLE, evidence)


def test_one_epsilon_in_two_forms_is_one() -> None:
    assert bound(ByHand(1e-5), keras_layer(1e-5)).proof.proven


@pytest.mark.parametrize("other", [1e-6, 3e-5, 1e-12])
def test_two_epsilons_are_two_functions(other: float) -> None:
    with pytest.raises(MismatchError) as caught:
        bound(ByHand(1e-5), keras_layer(other))
    assert "epsilon is 1e-05 in the reference" in caught.value.message


def test_what_only_stands_for_zero_is_not_compared() -> None:
    import keras

    class Unit(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.first, self.head = nn.Linear(8, 6), nn.Linear(6, 3)

        def forward(self, x: torch.Tensor) -> torch.Tensor:
            return self.head(nn.functional.normalize(self.first(x), dim=-1))

    layers = keras.layers
    other = keras.Sequential(
        [keras.Input((8,)), layers.Dense(6), layers.UnitNormalization(), layers.Dense(3)]
    )
    found = bound(Unit(), other)
    assert found.proof.proven
    assert any("keeps a norm from zero was not compared" in note for note in found.notes)


def test_an_epsilon_beside_a_larger_number_is_told_with_it() -> None:
    """The other graph has an epsilon, too, which is only too large to be one by itself; and what has no name has none in words."""
    import keras
    from keras import ops

    class Scaled(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.p, self.last = nn.Parameter(torch.ones(2)), nn.Linear(8, 3)

        def forward(self, x: torch.Tensor) -> torch.Tensor:
            p = self.p.relu()
            return self.last(p[0] * x / (p.sum() + 1e-4) + p[1] * x.tanh() / (p.sum() + 1e-4))

    class Scale(keras.layers.Layer):
        def build(self, _: Any) -> None:
            self.p = self.add_weight(shape=(2,), initializer="ones")

        def call(self, x: Any) -> Any:
            p = ops.relu(self.p)
            return (p[0] * x + p[1] * ops.tanh(x)) / (ops.sum(p) + 1e-3)

    x = keras.Input((8,))
    with pytest.raises(MismatchError, match=r"epsilon is 0\.0001 in the reference, 0\.001 in the candidate"):
        bound(Scaled(), keras.Model(x, keras.layers.Dense(3)(Scale()(x))))
    said = str(Difference("", "max", "Clip", "epsilon", "absent", "1e-07"))
    assert said == "Clip 'max': epsilon is absent in the reference, 1e-07 in the candidate"


@pytest.mark.parametrize(("bound_of_norm", "other"), [(1e-3, 1e-12), (1e-12, 5e-2), (1e-3, 2e-3)])
def test_two_bounds_of_a_norm_are_two_functions(bound_of_norm: float, other: float) -> None:
    import keras
    from keras import ops

    class Unit(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.first, self.head = nn.Linear(8, 6), nn.Linear(6, 3)

        def forward(self, x: torch.Tensor) -> torch.Tensor:
            return self.head(nn.functional.normalize(self.first(x), dim=-1, eps=bound_of_norm))

    x = keras.Input((8,))
    y = keras.layers.Dense(6)(x)
    y = y / ops.maximum(ops.sqrt(ops.sum(y * y, -1, keepdims=True)), other)
    with pytest.raises(MismatchError, match=r"epsilon|min is 0\.001"):
        bound(Unit(), keras.Model(x, keras.layers.Dense(3)(y)))
