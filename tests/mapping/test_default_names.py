"""Two authors who name nothing: order of creation and default names lead astray, and only the mask's own data tells."""

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

NODES = 5


class GraphAttention(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.w = nn.Linear(8, 6, bias=False)
        self.l = nn.Linear(6, 1, bias=False)
        self.r = nn.Linear(6, 1, bias=False)

    def forward(self, x: torch.Tensor, a: torch.Tensor) -> torch.Tensor:
        h = self.w(x)
        scores = nn.functional.leaky_relu(self.l(h) + self.r(h).transpose(1, 2), 0.2)
        return nn.functional.elu((scores + (a - 1) * 1e9).softmax(-1) @ h)


def keras_attention(*, turned_first: bool) -> keras.Model:
    keras.backend.clear_session()  # names are counted from the start, as in a program of its own
    x, a = keras.Input((NODES, 8)), keras.Input((NODES, NODES))
    h = K.Dense(6, use_bias=False)(x)
    one, other = K.Dense(1, use_bias=False), K.Dense(1, use_bias=False)
    turned, plain = (one, other) if turned_first else (other, one)
    scores = K.LeakyReLU(negative_slope=0.2)(ops.transpose(turned(h), (0, 2, 1)) + plain(h))
    return keras.Model([x, a], K.Activation("elu")(ops.matmul(K.Softmax()(scores + (a - 1) * 1e9), h)))


@pytest.mark.one_in(2)
@pytest.mark.parametrize("turned_first", [True, False])
def test_the_order_of_creation_decides_nothing(*, turned_first: bool) -> None:
    torch.manual_seed(0)
    example: tuple[Any, ...] = (np.zeros((1, NODES, 8), np.float32), np.zeros((1, NODES, NODES), np.float32))
    left, right = GraphAttention(), keras_attention(turned_first=turned_first)
    schema, evidence = xbackend_fl.describe_reference(left, example)
    bound = xbackend_fl.bind(right, schema, example, evidence)
    bound.write(xbackend_fl.bind(left, schema, example, evidence).read())

    draw = np.random.default_rng(0)
    x = draw.standard_normal((4, NODES, 8)).astype(np.float32)
    adjacency = (draw.random((4, NODES, NODES)) < 0.5).astype(np.float32)
    adjacency[:, range(NODES), range(NODES)] = 1
    with torch.no_grad():
        expected = left(torch.from_numpy(x), torch.from_numpy(adjacency)).numpy()
    received = np.asarray(right([x, adjacency]))
    assert np.abs(received - expected).max() <= 1e-5 * np.abs(expected).max()
