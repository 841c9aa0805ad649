"""A normalisation that several calls move averages them in their order; two models with other orders train alike all the same."""

from __future__ import annotations

from itertools import permutations
from typing import Any

import keras
import numpy as np
import pytest
import torch
from keras import layers as K
from torch import nn

import xbackend_fl

RNG = np.random.default_rng(5)
ROWS = tuple(RNG.standard_normal((6, 4)).astype(np.float32) for _ in range(3))


class Shared(nn.Module):
    """Three inputs through one layer and one normalisation, the first one first."""

    def __init__(self) -> None:
        super().__init__()
        self.layer, self.norm, self.out = nn.Linear(4, 5), nn.BatchNorm1d(5, momentum=0.3), nn.Linear(15, 2)

    def forward(self, a: torch.Tensor, b: torch.Tensor, c: torch.Tensor) -> torch.Tensor:
        return self.out(torch.cat([torch.tanh(self.norm(self.layer(x))) for x in (a, b, c)], dim=1))


class KerasShared(keras.Model):
    """The same, its calls in any order."""

    def __init__(self, order: tuple[int, ...]) -> None:
        super().__init__()
        self.order = order
        self.layer, self.norm, self.out = K.Dense(5), K.BatchNormalization(epsilon=1e-5), K.Dense(2)

    def call(self, a: Any, b: Any, c: Any, *, training: bool = False) -> Any:
        data = (a, b, c)
        made = {place: self.norm(self.layer(data[place]), training=training) for place in self.order}
        return self.out(keras.ops.concatenate([keras.ops.tanh(made[place]) for place in range(3)], axis=1))


@pytest.mark.one_in(4)
@pytest.mark.parametrize("order", list(permutations(range(3)))[2:5], ids=str)
def test_any_order_of_calls(order: tuple[int, ...]) -> None:
    schema, evidence = xbackend_fl.describe(Shared(), ROWS), xbackend_fl.gather_evidence(Shared(), ROWS)
    proof = xbackend_fl.bind(KerasShared(order), schema, ROWS, evidence).proof
    assert any(check.what == "statistics" for check in proof.checks)
    assert proof.proven
