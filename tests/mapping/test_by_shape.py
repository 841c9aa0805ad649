"""Equal weights by shape tell two forms apart also where a model is at its bounds, takes no negative numbers, or reads a weight twice."""

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
from xbackend_fl.mapping.probe.probe import by_shape

RNG = np.random.default_rng(0)
IDS = tuple(RNG.integers(0, 9, (4, 3)))
POSITIVE = RNG.uniform(0, 3, (3, 1)).astype(np.float32)
ROWS = RNG.standard_normal((3, 6)).astype(np.float32)
IMAGE = RNG.standard_normal((2, 3, 5, 4)).astype(np.float32)


def bound(reference: Any, candidate: Any, *example: Any) -> Any:
    schema, evidence = xbackend_fl.describe_reference(reference, example)
    return xbackend_fl.bind(candidate, schema, example, evidence)


def chances() -> nn.Module:
    """Products of all pairs as the square of a sum; the sigmoid is at its end for weights that are all positive."""

    def call(m: Any, *ids: torch.Tensor) -> torch.Tensor:
        each = torch.stack([m.get_submodule(f"t{i}")(one) for i, one in enumerate(ids)], 1)
        pairs = (each.sum(1) ** 2 - (each**2).sum(1)).sum(1, keepdim=True) / 2
        deep = m.deep(torch.relu(m.inner(each.flatten(1))))
        return torch.sigmoid(12 * pairs + deep)

    tables = {f"t{i}": nn.Embedding(9, 5) for i in range(4)}
    return Forward(call, **tables, inner=nn.Linear(20, 8), deep=nn.Linear(8, 1))


def chances_keras(*, left_out: int = 0) -> Any:
    """Its tables are made in another order than that of its inputs."""
    ids = [keras.Input((), dtype="int64") for _ in range(4)]
    made = {i: K.Embedding(9, 5)(ids[i]) for i in (2, 3, 1, 0)}
    x = [made[i] for i in range(4)]
    every = [(i, j) for i in range(4) for j in range(i + 1, 4)][left_out:]
    pairs = sum(ops.sum(x[i] * x[j], -1, keepdims=True) for i, j in every)
    deep = K.Dense(1)(K.Dense(8, activation="relu")(K.Concatenate()(x)))
    return keras.Model(ids, ops.sigmoid(12 * pairs + deep))


def test_a_model_at_its_bounds() -> None:
    assert bound(chances(), chances_keras(), *IDS).proof.proven


def test_pairs_that_are_missing() -> None:
    with pytest.raises(MismatchError):
        bound(chances(), chances_keras(left_out=1), *IDS)


def logarithms() -> nn.Module:
    def call(m: Any, x: torch.Tensor) -> torch.Tensor:
        return m.head(torch.cumsum(m.inner(torch.log1p(x)), 1))

    return Forward(call, inner=nn.Linear(1, 5), head=nn.Linear(5, 2))


def test_a_model_of_what_is_not_negative() -> None:
    class Summed(K.Layer):
        def call(self, x: Any) -> Any:
            return ops.matmul(x, np.triu(np.ones((5, 5), np.float32)))

    x = keras.Input((1,))
    candidate = keras.Model(x, K.Dense(2)(Summed()(K.Dense(5)(ops.log(1.0 + x)))))
    assert bound(logarithms(), candidate, POSITIVE).proof.proven


def test_a_probe_by_shape_says_something() -> None:
    found = by_shape(xbackend_fl.gather_evidence(logarithms(), (POSITIVE,)))
    assert found
    for item in found:
        assert all(np.isfinite(array).all() for array in (*item.outputs, *item.gradients.values()))


class Backwards(K.Layer):
    """Reads the weight of a dense layer the other way round."""

    def __init__(self, of: Any) -> None:
        super().__init__()
        self.of = of

    def call(self, x: Any) -> Any:
        return ops.matmul(x, ops.transpose(self.of.kernel))


def test_a_weight_and_its_transpose() -> None:
    def call(m: Any, x: torch.Tensor) -> torch.Tensor:
        return torch.tanh(x @ m.w.t() + m.b) @ m.w

    one, x = K.Dense(4, activation="tanh"), keras.Input((6,))
    reference = Forward(call, w=torch.randn(4, 6), b=torch.zeros(4))
    assert bound(reference, keras.Model(x, Backwards(one)(one(x))), ROWS).proof.proven
    two = K.Dense(4, activation="tanh"), K.Dense(4)
    untied = keras.Model(x, Backwards(two[1])(two[0](x) + 0.0 * ops.sum(two[1](x))))
    with pytest.raises(MismatchError):
        bound(reference, untied, ROWS)


class Routed(keras.Model):
    """Nothing declares its image; what reads the mean of the image says nothing of its order."""

    def __init__(self) -> None:
        super().__init__()
        self.route, self.each = K.Dense(2), [K.Conv2D(4, 3, use_bias=False) for _ in range(2)]

    def call(self, x: Any) -> Any:
        weight = ops.softmax(self.route(ops.mean(x, (1, 2))))
        return sum(one(x) * weight[:, i, None, None, None] for i, one in enumerate(self.each))


def test_kernels_of_one_matrix() -> None:
    def call(m: Any, x: torch.Tensor) -> torch.Tensor:
        kernels = (m.route(x.mean((2, 3))).softmax(-1) @ m.kernels).view(-1, 3, 3, 3)
        y = torch.conv2d(x.flatten(0, 1)[None], kernels, groups=x.shape[0])
        return y.view(x.shape[0], 4, *y.shape[2:])

    reference = Forward(call, route=nn.Linear(3, 2), kernels=torch.randn(2, 108))
    found = bound(reference, Routed(), IMAGE)
    assert found.proof.proven
    assert found.binding.inputs[0].perm == (0, 2, 3, 1)
