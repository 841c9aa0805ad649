"""One parameter of one model is several of the other, or has other axes: they are cut, and the weights that move are right."""

from __future__ import annotations

from typing import Any

import keras
import numpy as np
import pytest
import torch
from keras import layers as K
from keras import ops
from torch import nn

import xbackend_fl
from tests.adapters.glue.pair import Forward
from xbackend_fl.errors import MismatchError

RNG = np.random.default_rng(0)
X, Y = (RNG.standard_normal((2, n)).astype(np.float32) for n in (3, 5))
TIME = RNG.standard_normal((2, 1)).astype(np.float32)


def moves(reference: nn.Module, candidate: Any, *example: Any) -> None:
    """The candidate is bound, and with the reference's weights it answers as the reference does."""
    schema, evidence = xbackend_fl.describe_reference(reference, example)
    there = xbackend_fl.bind(candidate, schema, example, evidence)
    here = xbackend_fl.bind(reference, schema, example, evidence)
    with torch.no_grad():
        for tensor in reference.parameters():
            tensor.copy_(torch.randn(tensor.shape, generator=torch.Generator().manual_seed(tensor.numel())))
    there.write(here.read())
    expected = reference(*map(torch.from_numpy, example)).detach().numpy()
    given = [axes.to_native(array) for axes, array in zip(there.binding.inputs, example, strict=True)]
    found = candidate(given if len(given) > 1 else given[0]).numpy()
    np.testing.assert_allclose(found, expected, rtol=1e-4, atol=1e-5)


def joined() -> nn.Module:
    """One matrix for rows of three inputs, a number among them."""

    def call(m: Any, x: Any, y: Any, t: Any) -> Any:
        return m.head(torch.tanh(m.all(torch.cat([y, t, x], 1))))

    return Forward(call, all=nn.Linear(9, 4), head=nn.Linear(4, 2))


def added(*, sign: float = 1.0, bend: bool = False) -> Any:
    x, y, t = keras.Input((3,)), keras.Input((5,)), keras.Input((1,))
    near, far = K.Dense(4, name="near"), K.Dense(4, use_bias=False, name="far")
    seen = near(x) + sign * (ops.tanh(far(y)) if bend else far(y)) + K.Dense(4, use_bias=False)(t)
    return keras.Model([x, y, t], K.Dense(2)(ops.tanh(seen)))


def test_a_matrix_for_several_inputs_and_one_for_each() -> None:
    moves(joined(), added(), X, Y, TIME)


def test_one_for_each_and_a_matrix_for_several() -> None:
    def call(m: Any, x: Any, y: Any) -> Any:
        return m.head(torch.tanh(m.near(x) + m.far(y)))

    reference = Forward(call, near=nn.Linear(3, 4, bias=False), far=nn.Linear(5, 4), head=nn.Linear(4, 2))
    x, y = keras.Input((3,)), keras.Input((5,))
    candidate = keras.Model([x, y], K.Dense(2)(K.Dense(4, activation="tanh")(K.Concatenate()([y, x]))))
    moves(reference, candidate, X, Y)


@pytest.mark.parametrize("changed", [{"sign": -2.0}, {"bend": True}])
def test_what_is_added_otherwise_is_another_function(changed: dict[str, Any]) -> None:
    with pytest.raises(MismatchError):
        moves(joined(), added(**changed), X, Y, TIME)


class Mixed(K.Layer):
    """Experts of which the kernels lie in one matrix."""

    def __init__(self, *, turned: bool = False) -> None:
        super().__init__()
        self.turned = turned

    def build(self, shape: Any) -> None:
        self.kernel = self.add_weight(shape=(shape[-1], 8), name="kernel")

    def call(self, x: Any) -> Any:
        each = ops.reshape(ops.matmul(x, self.kernel), (-1, 4, 2))
        return ops.tanh(ops.flip(each, 1) if self.turned else each)


@pytest.mark.parametrize("turned", [False, True])
def test_axes_of_one_model_are_one_axis_of_the_other(*, turned: bool) -> None:
    """Behind flipped experts the head has its rows flipped: the same function, which gradients tell."""

    def call(m: Any, x: Any) -> Any:
        return m.head(torch.tanh(torch.einsum("bf,ofe->beo", x, m.kernels)).flatten(1))

    x = keras.Input((5,))
    reference = Forward(call, kernels=torch.randn(2, 5, 4), head=nn.Linear(8, 3))
    candidate = keras.Model(x, K.Dense(3)(K.Flatten()(Mixed(turned=turned)(x))))
    moves(reference, candidate, Y)


def test_one_axis_is_axes_of_the_other() -> None:
    class Apart(K.Layer):
        def build(self, shape: Any) -> None:
            self.kernel = self.add_weight(shape=(4, shape[-1], 2), name="kernel")

        def call(self, x: Any) -> Any:
            return ops.reshape(ops.einsum("bf,efo->beo", x, self.kernel), (-1, 8))

    x = keras.Input((5,))
    reference = Forward(
        lambda m, x: m.head(torch.tanh(m.all(x))), all=nn.Linear(5, 8, bias=False), head=nn.Linear(8, 3)
    )
    moves(reference, keras.Model(x, K.Dense(3)(ops.tanh(Apart()(x)))), Y)
