"""What one model holds in one tensor and another in several: heads, experts, scale and shift."""

from __future__ import annotations

from typing import Any

import keras
import numpy as np
import pytest
import tensorflow as tf
import torch
from keras import layers as K
from keras import ops
from torch import nn

import xbackend_fl
from tests.adapters.glue.pair import Wrapped, keras_model
from tests.adapters.row import Lambda
from xbackend_fl.adapter import adapter_of
from xbackend_fl.canonical.layout import backward, forward
from xbackend_fl.errors import MismatchError
from xbackend_fl.mapping.align.holdings import holdings

ROWS = np.random.default_rng(0).standard_normal((3, 6)).astype(np.float32)
STEPS = np.random.default_rng(1).standard_normal((2, 5, 6)).astype(np.float32)


def bound(reference: nn.Module, other: Any, example: Any) -> Any:
    schema, evidence = (
        xbackend_fl.describe(reference, (example,)),
        xbackend_fl.gather_evidence(reference, (example,)),
    )
    return xbackend_fl.bind(other, schema, (example,), evidence)


def folded(heads: int) -> nn.Module:
    """Heads in the batch, cut by ``split``."""

    def call(m: Any, x: torch.Tensor) -> torch.Tensor:
        q, k, v = (torch.cat(layer(x).split(8 // heads, 2), 0) for layer in (m.q, m.k, m.v))
        y = torch.cat(((q @ k.mT).softmax(-1) @ v).chunk(heads, 0), 2)
        return torch.sort(m.o(y), -1).values

    return Lambda(call, q=nn.Linear(6, 8), k=nn.Linear(6, 8), v=nn.Linear(6, 8), o=nn.Linear(8, 3))


def folded_keras(heads: int, *, masked: bool = False) -> Any:
    def call(m: Any, x: Any) -> Any:
        q, k, v = (
            ops.transpose(ops.reshape(layer(x), (-1, 5, heads, 8 // heads)), (2, 0, 1, 3))
            for layer in m.inner[:3]
        )
        score = ops.matmul(q, ops.transpose(k, (0, 1, 3, 2)))
        score = score + np.triu(np.full((5, 5), -1e9, "float32"), 1) if masked else score
        y = ops.transpose(ops.matmul(ops.softmax(score), v), (1, 2, 0, 3))
        return ops.sort(m.inner[3](ops.reshape(y, (-1, 5, 8))), -1)

    return keras_model(Wrapped(call, [K.Dense(n) for n in (8, 8, 8, 3)]), (5, 6))


def experts(gate: Any = torch.softmax) -> nn.Module:
    """Three experts in a list."""

    def call(m: Any, x: torch.Tensor) -> torch.Tensor:
        every = torch.stack([torch.tanh(expert(x)) for expert in (m.a, m.b, m.c)], 1)
        return m.head(torch.einsum("be,beh->bh", gate(m.gate(x), -1), every))

    layers = {name: nn.Linear(6, 4) for name in "abc"}
    return Lambda(call, **layers, gate=nn.Linear(6, 3), head=nn.Linear(4, 2))


class Stacked(K.Layer):
    """Three experts in one tensor, wherever its axis of experts is."""

    def __init__(self, equation: str, shape: tuple[int, ...], **options: Any) -> None:
        super().__init__(**options)
        self.equation, self.shape = equation, shape

    def build(self, _: Any) -> None:
        self.kernel = self.add_weight(shape=self.shape, name="kernel")
        self.bias = self.add_weight(shape=(3, 4), name="bias")

    def call(self, x: Any) -> Any:
        return tf.tanh(tf.einsum(self.equation, x, self.kernel) + self.bias)


def experts_keras(equation: str, shape: tuple[int, ...], activation: str = "softmax") -> Any:
    x = keras.Input((6,))
    weight = K.Dense(3, activation=activation)(x)
    mixed = ops.sum(Stacked(equation, shape)(x) * weight[..., None], 1)
    return keras.Model(x, K.Dense(2)(mixed))


def modulated() -> nn.Module:
    def call(m: Any, x: torch.Tensor) -> torch.Tensor:
        return m.head(torch.sort(m.inner(x), -1).values * m.scale(x) + m.shift(x))

    return Lambda(
        call, inner=nn.Linear(6, 4), scale=nn.Linear(6, 4), shift=nn.Linear(6, 4), head=nn.Linear(4, 2)
    )


def modulated_keras(one: float = 0.0) -> Any:
    x = keras.Input((6,))
    both = K.Dense(8)(x)
    return keras.Model(x, K.Dense(2)(ops.sort(K.Dense(4)(x), -1) * (both[:, :4] + one) + both[:, 4:]))


@pytest.mark.parametrize("heads", [2, 4])
def test_one_projection_is_one_for_each_head(heads: int) -> None:
    assert bound(folded(heads), folded_keras(heads), STEPS).proof.proven


@pytest.mark.one_in(2)
@pytest.mark.parametrize(
    ("equation", "shape"),
    [("bi,ijh->bjh", (6, 3, 4)), ("bi,jhi->bjh", (3, 4, 6)), ("bi,hji->bjh", (4, 3, 6))],
)
def test_a_stack_of_experts_is_a_list_of_them(equation: str, shape: tuple[int, ...]) -> None:
    assert bound(experts(), experts_keras(equation, shape), ROWS).proof.proven


def test_one_layer_makes_scale_and_shift() -> None:
    assert bound(modulated(), modulated_keras(), ROWS).proof.proven


@pytest.mark.one_in(2)
@pytest.mark.parametrize(
    ("reference", "other", "example"),
    [
        pytest.param(lambda: folded(2), lambda: folded_keras(4), STEPS, id="heads"),
        pytest.param(lambda: folded(2), lambda: folded_keras(2, masked=True), STEPS, id="mask"),
        pytest.param(experts, lambda: experts_keras("bi,ijh->bjh", (6, 3, 4), "sigmoid"), ROWS, id="gate"),
        pytest.param(modulated, lambda: modulated_keras(1.0), ROWS, id="one in the scale"),
    ],
)
def test_other_functions_of_the_same_parameters_are_refused(reference: Any, other: Any, example: Any) -> None:
    with pytest.raises(MismatchError):
        bound(reference(), other(), example)


def test_every_number_lies_in_one_part() -> None:
    schema = xbackend_fl.describe(experts(), (ROWS,))
    for equation, shape in (("bi,ijh->bjh", (6, 3, 4)), ("bi,hji->bjh", (4, 3, 6))):
        description = (
            adapter_of(model := experts_keras(equation, shape)).load_model(model, (ROWS,)).description
        )
        seen = list(holdings(schema, description.schema, description.binding))
        assert seen
        for changed, binding in seen:
            layouts = binding.parameters
            natives = {name: np.full(native.shape, np.nan) for name, native in binding.natives.items()}
            values = {
                p.name: np.random.default_rng(i).standard_normal(p.shape)
                for i, p in enumerate(changed.parameters)
            }
            for name, layout in layouts.items():
                backward(layout, values[name], natives)
            assert not any(np.isnan(array).any() for array in natives.values())
            for name, layout in layouts.items():
                np.testing.assert_array_equal(forward(layout, natives), values[name])
