"""PyTorch models of every kind: bare parameters, shared modules, parametrizations, buffers, unused weights."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import keras
import numpy as np
import pytest
import torch
from keras import layers as K
from torch import nn
from torch.nn import functional as F

import xbackend_fl
from tests.adapters.row import Lambda, chain
from xbackend_fl.errors import RefusedInput

VECTOR = np.random.default_rng(0).standard_normal((1, 6)).astype(np.float32)
IMAGE = np.random.default_rng(0).standard_normal((1, 3, 8, 8)).astype(np.float32)


class Functional(nn.Module):
    """Bare parameters, shared through a list, one used twice; a buffer that is a constant; weights nobody uses."""

    def __init__(self) -> None:
        super().__init__()
        self.w = nn.ParameterList([nn.Parameter(torch.rand(6, 6)), nn.Parameter(torch.rand(6, 2))])
        self.b = nn.Parameter(torch.rand(6))
        self.scale = nn.Parameter(torch.rand(1))
        self.unused = nn.Linear(3, 3)
        self.register_buffer("seen", torch.zeros((), dtype=torch.int64))
        self.register_buffer("shift", torch.arange(6.0))

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        x = torch.tanh(x @ self.w[0] + self.b)
        x = torch.tanh(F.linear(x, self.w[0].t(), self.b))
        return (x * self.scale) @ self.w[1] + 0.0


class Scale(keras.layers.Layer):
    def __init__(self) -> None:
        super().__init__()
        self.factor = self.add_weight(shape=(1,), name="factor")

    def call(self, x: Any) -> Any:
        return x * self.factor


def functional_keras() -> Any:
    x, dense = keras.Input((6,)), K.Dense(6, activation="tanh")
    return keras.Model(x, K.Dense(2, use_bias=False)(Scale()(dense(dense(x)))))


def bind(left: Any, right: Any, example: np.ndarray[Any, Any]) -> xbackend_fl.mapping.BoundModel:
    schema, evidence = xbackend_fl.describe_reference(left, (example,))
    return xbackend_fl.bind(right, schema, (example,), evidence)


def test_functional_code_with_bare_parameters() -> None:
    bound = bind(functional_keras(), Functional(), VECTOR)
    assert bound.proof.proven
    assert set(bound.binding.local) == {"unused.weight", "unused.bias", "seen", "shift"}
    assert all("no output" in reason for reason in bound.binding.local.values())


def weight_norm() -> nn.Module:
    model = nn.Sequential(nn.Conv2d(3, 4, 3), nn.ReLU(), nn.Flatten(), nn.Linear(144, 2))
    nn.utils.parametrizations.weight_norm(model[0])
    return model


def spectral_norm() -> nn.Module:
    model = nn.Sequential(nn.Conv2d(3, 4, 3), nn.ReLU(), nn.Flatten(), nn.Linear(144, 2))
    nn.utils.parametrizations.spectral_norm(model[3])
    return model


def old_spectral_norm() -> nn.Module:
    model = nn.Sequential(nn.Conv2d(3, 4, 3), nn.ReLU(), nn.Flatten(), nn.Linear(144, 2))
    nn.utils.spectral_norm(model[0])
    return model


@pytest.mark.one_in(2)
@pytest.mark.parametrize("build", [weight_norm, spectral_norm, old_spectral_norm])
def test_a_parametrization_is_materialised_and_said_to_be_one_way(build: Callable[[], nn.Module]) -> None:
    model = build().eval()
    before = {name: tensor.clone() for name, tensor in model.state_dict().items()}
    with torch.no_grad():
        expected = model(torch.from_numpy(IMAGE)).numpy()
    reference = chain(K.Conv2D(4, 3, activation="relu"), K.Flatten(), K.Dense(2), shape=(8, 8, 3))
    bound = bind(reference, model, IMAGE)
    assert any("one way" in note for note in bound.notes)
    assert model.state_dict().keys() == before.keys()
    other = bind(build(), reference, IMAGE)
    other.write(xbackend_fl.bind(model, other.schema, (IMAGE,)).read())
    np.testing.assert_allclose(reference(IMAGE.transpose(0, 2, 3, 1)).numpy(), expected, rtol=1e-4, atol=1e-5)
    with pytest.raises(RefusedInput, match="one way"):
        bound.write(bound.read())
    for name, tensor in model.state_dict().items():
        torch.testing.assert_close(tensor, before[name], rtol=0, atol=0)


class Experts(nn.Module):
    """Three experts in one stack; the Keras model holds three layers."""

    def __init__(self) -> None:
        super().__init__()
        self.stack, self.bias = nn.Parameter(torch.rand(3, 6, 5)), nn.Parameter(torch.rand(3, 5))
        self.gate = nn.Linear(6, 3)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        every = torch.einsum("bi,eio->beo", x, self.stack) + self.bias
        return torch.einsum("be,beo->bo", torch.softmax(self.gate(x), -1), torch.tanh(every))


def experts_keras() -> Any:
    x = keras.Input((6,))
    every = keras.ops.stack([K.Dense(5)(x) for _ in range(3)], axis=1)
    gate = K.Dense(3, activation="softmax")(x)
    return keras.Model(x, keras.ops.einsum("be,beo->bo", gate, keras.ops.tanh(every)))


class Cell(nn.Module):
    """Two steps of an LSTM cell by hand: all gates in one matrix, input and state together."""

    def __init__(self) -> None:
        super().__init__()
        self.gates = nn.Linear(3 + 4, 16)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        h = c = torch.zeros(x.shape[0], 4)
        for part in x.chunk(2, 1):
            i, f, g, o = self.gates(torch.cat([part, h], 1)).chunk(4, 1)
            c = torch.sigmoid(f) * c + torch.sigmoid(i) * torch.tanh(g)
            h = torch.sigmoid(o) * torch.tanh(c)
        return h


class FourMatrices(keras.Model):
    """The same cell with a matrix for each gate and each source."""

    def __init__(self) -> None:
        super().__init__()
        self.of_input = [K.Dense(4) for _ in range(4)]
        self.of_state = [K.Dense(4, use_bias=False) for _ in range(4)]

    def call(self, x: Any) -> Any:
        first, second = x[:, :3], x[:, 3:]
        i, _, g, o = (dense(first) for dense in self.of_input)
        c = keras.ops.sigmoid(i) * keras.ops.tanh(g)
        h = keras.ops.sigmoid(o) * keras.ops.tanh(c)
        i, f, g, o = (a(second) + b(h) for a, b in zip(self.of_input, self.of_state, strict=True))
        c = keras.ops.sigmoid(f) * c + keras.ops.sigmoid(i) * keras.ops.tanh(g)
        return keras.ops.sigmoid(o) * keras.ops.tanh(c)


def fused_projection() -> nn.Module:
    """Queries, keys and values in one reshaped matrix, as timm writes it."""

    def call(m: Any, x: torch.Tensor) -> torch.Tensor:
        batch, steps, width = x.shape
        q, k, v = m.qkv(x).reshape(batch, steps, 3, 2, width // 2).permute(2, 0, 3, 1, 4).unbind(0)
        weights = (q @ k.transpose(-2, -1) * (width // 2) ** -0.5).softmax(-1)
        return m.out((weights @ v).transpose(1, 2).reshape(batch, steps, width))

    return Lambda(call, qkv=nn.Linear(8, 24), out=nn.Linear(8, 8))


def separate_projections() -> Any:
    x = keras.Input((5, 8))
    return keras.Model(x, K.MultiHeadAttention(2, 4)(x, x))


class Table(nn.Module):
    """Two fields looked up in one table, the rows of the second behind those of the first."""

    def __init__(self) -> None:
        super().__init__()
        self.table, self.head = nn.Embedding(12, 4), nn.Linear(8, 2)
        self.register_buffer("offsets", torch.tensor([0, 5]))

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return self.head(self.table(x + self.offsets).flatten(1))


def two_tables() -> Any:
    x = keras.Input((2,), dtype="int64")
    return keras.Model(
        x, K.Dense(2)(K.Concatenate()([K.Embedding(5, 4)(x[:, 0]), K.Embedding(7, 4)(x[:, 1])]))
    )


STORED_APART: list[tuple[str, Callable[[], nn.Module], Callable[[], Any], np.ndarray[Any, Any]]] = [
    ("stacked experts", Experts, experts_keras, VECTOR),
    ("gates in one matrix or eight", Cell, FourMatrices, VECTOR),
    ("several embedding tables in one", Table, two_tables, np.array([[1, 3]])),
    ("fused projection", fused_projection, separate_projections,
     np.random.default_rng(0).standard_normal((1, 5, 8)).astype(np.float32)),
]  # fmt: skip


@pytest.mark.one_in(2)
@pytest.mark.parametrize(
    ("name", "left", "right", "example"), STORED_APART, ids=[row[0] for row in STORED_APART]
)
def test_stored_together_or_apart(name: str, left: Any, right: Any, example: Any) -> None:
    del name
    for one, two in ((left, right), (right, left)):
        bound = bind(one(), two(), example)
        assert bound.proof.proven
        weights = bound.read()
        bound.write(weights)
        assert bound.read().digest == weights.digest
