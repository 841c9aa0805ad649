"""A parameter under a root or a logarithm is drawn positive: with both signs a model answers with NaN, and nothing is proven."""

from __future__ import annotations

from collections.abc import Callable
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

ROWS = np.random.default_rng(0).standard_normal((3, 6)).astype(np.float32)


class Scaled(K.Layer):
    def __init__(self, how: Callable[[Any], Any]) -> None:
        super().__init__()
        self.how = how

    def build(self, shape: Any) -> None:
        self.spread = self.add_weight(shape=(shape[-1],), initializer="ones", name="spread")

    def call(self, x: Any) -> Any:
        return x * self.how(self.spread)


def bound(one: Callable[[Any], Any], two: Callable[[Any], Any]) -> Any:
    reference = Forward(
        lambda m, x: m.head(torch.tanh(m.inner(x) * one(m.spread))),
        inner=nn.Linear(6, 5),
        spread=torch.ones(5),
        head=nn.Linear(5, 2),
    )
    x = keras.Input((6,))
    candidate = keras.Model(x, K.Dense(2)(ops.tanh(Scaled(two)(K.Dense(5)(x)))))
    schema, evidence = xbackend_fl.describe_reference(reference, (ROWS,))
    return xbackend_fl.bind(candidate, schema, (ROWS,), evidence)


@pytest.mark.one_in(2)
@pytest.mark.parametrize(
    ("one", "two"),
    [
        (lambda v: (v + 1e-3).rsqrt(), lambda v: 1.0 / ops.sqrt(v + 1e-3)),
        (lambda v: v.sqrt(), ops.sqrt),
        (torch.log, ops.log),
        (lambda v: v**0.3, lambda v: ops.power(v, 0.3)),
    ],
    ids=["variance", "root", "logarithm", "power"],
)
def test_a_positive_parameter(one: Callable[[Any], Any], two: Callable[[Any], Any]) -> None:
    assert bound(one, two).proof.proven


def test_another_power_of_it() -> None:
    with pytest.raises(MismatchError):
        bound(lambda v: v**0.3, lambda v: ops.power(v, 0.4))
