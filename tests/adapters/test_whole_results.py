"""What operations return beside their first result, states as arrays, and layers that are called twice."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import keras
import numpy as np
import pytest
import tensorflow as tf
import torch
from keras import layers as K
from torch import nn
from torch.nn import functional as F

import xbackend_fl
from tests.adapters.glue.pair import Forward

RNG = np.random.default_rng(0)
IMAGE = RNG.standard_normal((2, 3, 6, 6)).astype(np.float32)
SERIES = RNG.standard_normal((2, 5, 4)).astype(np.float32)
ROWS = RNG.standard_normal((2, 6)).astype(np.float32)


def bound(reference: Any, candidate: Any, *example: Any) -> Any:
    schema, evidence = xbackend_fl.describe_reference(reference, example)
    return xbackend_fl.bind(candidate, schema, example, evidence)


def pooled(size: Any) -> nn.Module:
    return Forward(
        lambda m, x: m.o(F.adaptive_max_pool2d(m.c(x), size)), c=nn.Conv2d(3, 4, 1), o=nn.Conv2d(4, 2, 1)
    )


def places() -> nn.Module:
    def call(m: Any, x: torch.Tensor) -> torch.Tensor:
        y, where = F.max_pool2d(m.c(x), 2, return_indices=True)
        return m.o(y + where / 36.0)

    return Forward(call, c=nn.Conv2d(3, 4, 1), o=nn.Conv2d(4, 2, 1))


def states(*, directions: bool = False) -> nn.Module:
    width = 3 * 2 * (1 + directions)

    def call(m: Any, x: torch.Tensor) -> torch.Tensor:
        return m.o(m.r(x)[1].permute(1, 0, 2).flatten(1)) + m.p(m.r(x)[1].view(-1, x.shape[0], 3)).mean(0)

    recurrent = nn.GRU(4, 3, 2, batch_first=True, bidirectional=directions)
    return Forward(call, r=recurrent, o=nn.Linear(width, 2), p=nn.Linear(3, 2))


@pytest.mark.one_in(2)
@pytest.mark.parametrize(
    "build", [lambda: pooled((3, 2)), places, states, lambda: states(directions=True)],
    ids=["windows that follow from the size", "places of maxima", "states as an array", "states of both ways"],
)  # fmt: skip
def test_a_model_is_itself(build: Callable[[], nn.Module]) -> None:
    example = IMAGE if "c" in dict(build().named_children()) else SERIES
    assert bound(build(), build(), example).proof.proven


def test_a_pool_to_a_size() -> None:
    image = keras.Input((6, 6, 3))
    candidate = keras.Model(image, K.Conv2D(2, 1)(K.MaxPooling2D((2, 3))(K.Conv2D(4, 1)(image))))
    assert bound(pooled((3, 2)), candidate, IMAGE).proof.proven


def test_a_batch_normalisation_that_is_called_twice() -> None:
    """Its statistics of the batch have two sources, and one name."""

    def call(m: Any, x: torch.Tensor, y: torch.Tensor) -> torch.Tensor:
        left, right = (m.o(torch.relu(m.n(m.i(z)))) for z in (x, y))
        return left - right

    def twice() -> nn.Module:
        return Forward(call, i=nn.Linear(6, 5), n=nn.BatchNorm1d(5), o=nn.Linear(5, 3))

    assert bound(twice(), twice(), ROWS, ROWS[::-1].copy()).proof.proven


def test_an_einsum_with_constants() -> None:
    fixed = RNG.standard_normal((5, 4)).astype(np.float32)

    class Weighed(K.Layer):
        def call(self, x: Any) -> Any:
            return tf.einsum("bnd,nd,bn->bd", x, fixed, tf.nn.softmax(x[..., 0]))

    x = keras.Input((5, 4))
    candidate = keras.Model(x, K.Dense(2)(Weighed()(K.Dense(4)(x))))

    def call(m: Any, x: torch.Tensor) -> torch.Tensor:
        y = m.a(x)
        return m.b((y * torch.from_numpy(fixed) * y[..., 0].softmax(-1)[..., None]).sum(1))

    assert bound(Forward(call, a=nn.Linear(4, 4), b=nn.Linear(4, 2)), candidate, SERIES).proof.proven
