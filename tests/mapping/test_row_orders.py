"""Rows of layers that two models count in another order: a made matrix, halves and neighbours, heads and their width."""

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
from tests.adapters.glue.pair import Wrapped, keras_model
from tests.adapters.row import Lambda
from xbackend_fl.canonical.layout import forward
from xbackend_fl.errors import MismatchError

ROWS = np.random.default_rng(0).standard_normal((3, 6)).astype(np.float32)
STEPS = np.random.default_rng(1).standard_normal((2, 5, 6)).astype(np.float32)
ANGLES = np.outer(np.arange(5), [1.0, 0.1])


def bound(reference: nn.Module, other: Any, example: Any) -> Any:
    schema, evidence = (
        xbackend_fl.describe(reference, (example,)),
        xbackend_fl.gather_evidence(reference, (example,)),
    )
    return xbackend_fl.bind(other, schema, (example,), evidence)


def made() -> nn.Module:
    """A layer makes the matrix that the data goes through."""
    return Lambda(
        lambda m, x: m.head(torch.tanh((m.make(x).view(-1, 3, 6) @ x.unsqueeze(-1)).squeeze(-1))),
        make=nn.Linear(6, 18), head=nn.Linear(3, 2),
    )  # fmt: skip


def made_keras(slope: float = 1.0) -> Any:
    """The same matrix, its columns first."""
    x = keras.Input((6,))
    matrix = ops.reshape(K.Dense(18)(x), (-1, 6, 3))
    return keras.Model(x, K.Dense(2)(ops.tanh(slope * ops.sum(matrix * x[:, :, None], 1))))


def rotary() -> nn.Module:
    """Halves are turned against each other."""
    cos, sin = (torch.from_numpy(f(ANGLES)).float() for f in (np.cos, np.sin))

    def turn(x: torch.Tensor) -> torch.Tensor:
        low, high = x.chunk(2, -1)
        return torch.cat([low * cos - high * sin, high * cos + low * sin], -1)

    def call(m: Any, x: torch.Tensor) -> torch.Tensor:
        q, k = (turn(layer(x).view(-1, 5, 2, 4).transpose(1, 2)) for layer in (m.q, m.k))
        return ((q @ k.mT).softmax(-1) @ x.unsqueeze(1)).sum(1)

    return Lambda(call, q=nn.Linear(6, 8), k=nn.Linear(6, 8))


def rotary_keras(angles: Any = ANGLES, *, backwards: bool = False) -> Any:
    """Neighbours are."""
    cos, sin = (f(angles).astype("float32") for f in (np.cos, np.sin))

    def turn(x: Any, sign: float = 1.0) -> Any:
        even, odd = x[..., ::2], x[..., 1::2]
        turned = ops.stack([even * cos - odd * sin * sign, odd * cos + even * sin * sign], -1)
        return ops.reshape(turned, (-1, 2, 5, 4))

    def call(m: Any, x: Any) -> Any:
        q, k = (ops.transpose(ops.reshape(layer(x), (-1, 5, 2, 4)), (0, 2, 1, 3)) for layer in m.inner)
        q, k = turn(q), turn(k, -1.0 if backwards else 1.0)
        weight = ops.softmax(ops.matmul(q, ops.transpose(k, (0, 1, 3, 2))))
        return ops.sum(ops.matmul(weight, x[:, None]), 1)

    return keras_model(Wrapped(call, [K.Dense(8), K.Dense(8)]), (5, 6))


def test_a_made_matrix_may_lie_by_columns() -> None:
    found = bound(made(), made_keras(), ROWS)
    assert found.proof.proven
    (bias,) = (native for native in found.binding.natives.items() if native[1].shape == (18,))
    order = forward(found.binding.parameters["make.bias"], {bias[0]: np.arange(18.0)})
    np.testing.assert_array_equal(order, np.arange(18.0).reshape(6, 3).T.ravel())


def test_halves_are_neighbours_in_another_order() -> None:
    assert bound(rotary(), rotary_keras(), STEPS).proof.proven


@pytest.mark.one_in(4)
@pytest.mark.parametrize(
    ("reference", "other", "example"),
    [
        pytest.param(made, lambda: made_keras(1.1), ROWS, id="scale"),
        pytest.param(rotary, lambda: rotary_keras(ANGLES * 1.05), STEPS, id="angles"),
        pytest.param(rotary, lambda: rotary_keras(backwards=True), STEPS, id="keys turned backwards"),
    ],
)
def test_other_functions_with_turned_rows_are_refused(reference: Any, other: Any, example: Any) -> None:
    with pytest.raises(MismatchError):
        bound(reference(), other(), example)
