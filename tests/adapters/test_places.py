"""Every place that drops, or has a padding row, follows the schema, however many places one layer has."""

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
from tests.adapters.row import Lambda, chain
from xbackend_fl.adapter import OPTIMIZERS, Batch, TrainConfig, Trainer, adapter_of
from xbackend_fl.adapter.attributes import training_attributes
from xbackend_fl.losses import LOSSES
from xbackend_fl.mapping import find_binding

WIDTH = 64
VECTOR = (np.ones((1, WIDTH), np.float32),)
SERIES = (np.ones((1, 1, WIDTH), np.float32),)
WORDS = (np.array([[0, 1, 2, 0, 3]]),)


def heads() -> dict[str, nn.Module]:
    return {"a": nn.Linear(WIDTH, 1, bias=False), "b": nn.Linear(WIDTH, 1, bias=False)}


def two_modules(first: float, second: float) -> nn.Module:
    return Lambda(
        lambda m, x: m.a(m.one(x)) + m.b(m.two(torch.sin(x))),
        one=nn.Dropout(first),
        two=nn.Dropout(second),
        **heads(),
    )


def one_module(rate: float) -> nn.Module:
    return Lambda(lambda m, x: m.a(m.d(x)) + m.b(m.d(torch.sin(x))), d=nn.Dropout(rate), **heads())


def functions(rate: float) -> nn.Module:
    return Lambda(
        lambda m, x: m.a(F.dropout(x, rate, m.training)) + m.b(F.dropout(torch.sin(x), rate, m.training)),
        **heads(),
    )


def keras_heads(drops: Callable[[], tuple[Any, Any]]) -> Any:
    x = keras.Input((WIDTH,))
    one, two = drops()
    dense = [K.Dense(1, use_bias=False) for _ in range(2)]
    return keras.Model(x, dense[0](one(x)) + dense[1](two(keras.ops.sin(x))))


def keras_one(rate: float) -> Any:
    def drops() -> tuple[Any, Any]:
        layer = K.Dropout(rate)
        return layer, layer

    return keras_heads(drops)


PLACES: list[tuple[str, Callable[[], Any]]] = [
    ("torch modules", lambda: two_modules(0.4, 0.4)),
    ("one torch module", lambda: one_module(0.4)),
    ("torch functions", lambda: functions(0.4)),
    ("keras layers", lambda: keras_heads(lambda: (K.Dropout(0.4), K.Dropout(0.4)))),
    ("one keras layer", lambda: keras_one(0.4)),
]


def steps(trainer: Trainer, schema: Any, seeds: range, *, dropout: bool = True) -> np.ndarray[Any, Any]:
    """Moves of both weights in one step from zero: those of inputs that were dropped are zero."""
    binding, _ = find_binding(schema, trainer.description)
    config = TrainConfig(
        OPTIMIZERS["sgd"](lr=0.1),
        loss=LOSSES["mean_squared_error"](),
        dropout=dropout,
        attributes=training_attributes(schema, binding),
    )
    moves = []
    for seed in seeds:
        trainer.reset(seed)
        trainer.write(
            binding.restore({name: np.zeros((1, WIDTH), np.float32) for name in binding.parameters})
        )
        trainer.train([Batch(VECTOR, np.ones((1, 1), np.float32))], config)
        moved = binding.export(trainer.read())
        moves.append([moved[name][0] for name in ("a.weight", "b.weight")])
    return np.array(moves)


@pytest.mark.parametrize(("name", "build"), PLACES, ids=[row[0] for row in PLACES])
def test_every_place_has_the_schemas_rate(name: str, build: Callable[[], Any]) -> None:
    del name
    schema = xbackend_fl.describe(two_modules(0.15, 0.75), VECTOR)
    candidate = build()
    trainer = adapter_of(candidate).load_model(candidate, VECTOR)
    moves = steps(trainer, schema, range(24))
    assert np.abs((moves == 0).mean((0, 2)) - (0.15, 0.75)).max() < 0.04
    assert len(np.unique(moves == 0, axis=0)) == 24, "every seed draws its own"
    assert not (steps(trainer, schema, range(2), dropout=False) == 0).any()


def test_a_place_that_the_schema_does_not_have_is_switched_off() -> None:
    schema = xbackend_fl.describe(
        Lambda(lambda m, x: m.a(m.d(x)) + m.b(torch.sin(x)), d=nn.Dropout(0.5), **heads()), VECTOR
    )
    for build in (lambda: one_module(0.4), lambda: functions(0.4), lambda: keras_one(0.4)):
        candidate = build()
        trainer = adapter_of(candidate).load_model(candidate, VECTOR)
        binding, notes = find_binding(schema, trainer.description)
        assert not binding.obstacles
        assert any("the schema has none there" in note for note in notes)
        dropped = (steps(trainer, schema, range(8)) == 0).mean((0, 2))
        assert abs(dropped[0] - 0.5) < 0.08
        assert dropped[1] == 0


def stacked(kind: type[nn.RNNBase], layers: int, rate: float, **options: Any) -> nn.Module:
    layer = kind(WIDTH, WIDTH, layers, batch_first=True, dropout=rate, **options)
    return Lambda(lambda m, x: m.r(x)[0], r=layer)


def test_a_stacked_recurrent_layer_drops_between_its_layers() -> None:
    """With identities for weights the outputs are the mask, so the loss against zero counts it: ``kept / (1 - p)²``."""
    schema = xbackend_fl.describe(
        chain(K.SimpleRNN(WIDTH, "relu", return_sequences=True), K.Dropout(0.3),
              K.SimpleRNN(WIDTH, "relu", return_sequences=True), shape=(None, WIDTH)), SERIES,
    )  # fmt: skip
    trainer = adapter_of(nn.Linear(1, 1)).load_model(stacked(nn.RNN, 2, 0.9, nonlinearity="relu"), SERIES)
    binding, notes = find_binding(schema, trainer.description)
    assert not binding.obstacles
    assert any("0.3 in the schema, 0.9 in 'r'" in note for note in notes)
    values = {p.name: np.eye(WIDTH, dtype=np.float32)[None] if p.role == "weight" else np.zeros(p.shape, np.float32)
              for p in schema.parameters}  # fmt: skip
    config = TrainConfig(
        OPTIMIZERS["sgd"](lr=0.0),
        loss=LOSSES["mean_squared_error"](),
        attributes=training_attributes(schema, binding),
    )
    kept = []
    for seed in range(24):
        trainer.reset(seed)
        trainer.write(binding.restore(values))
        loss = trainer.train([Batch(SERIES, np.zeros((1, 1, WIDTH), np.float32))], config).mean
        kept.append(loss * (1 - 0.3) ** 2)
    assert abs(1 - np.mean(kept) - 0.3) < 0.04


@pytest.mark.parametrize("kind", [nn.LSTM, nn.GRU, nn.RNN])
@pytest.mark.parametrize("both_ways", [False, True])
def test_a_recurrent_layer_alone_keeps_its_rate(kind: type[nn.RNNBase], both_ways: bool) -> None:  # noqa: FBT001  a parameter
    trainer = adapter_of(nn.Linear(1, 1)).load_model(stacked(kind, 2, 0.5, bidirectional=both_ways), SERIES)
    schema, binding = trainer.description.schema, trainer.description.binding
    assert training_attributes(schema, binding) == {"r": {"ratio": 0.5}}
    target = np.zeros((1, 1, WIDTH * (1 + both_ways)), np.float32)
    start = trainer.read()

    def losses(*, dropout: bool) -> set[float]:
        config = TrainConfig(
            OPTIMIZERS["sgd"](lr=0.0),
            loss=LOSSES["mean_squared_error"](),
            dropout=dropout,
            attributes=training_attributes(schema, binding),
        )
        found = set()
        for seed in range(3):
            trainer.reset(seed)
            trainer.write(start)
            found.add(trainer.train([Batch(SERIES, target)], config).mean)
        return found

    assert len(losses(dropout=True)) == 3
    assert len(losses(dropout=False)) == 1


def test_one_layer_cannot_have_two_rates() -> None:
    rates = (0.2, 0.4)
    layers = [layer for rate in rates for layer in (K.LSTM(WIDTH, return_sequences=True), K.Dropout(rate))]
    schema = xbackend_fl.describe(
        chain(*layers, K.LSTM(WIDTH, return_sequences=True), shape=(None, WIDTH)), SERIES
    )
    trainer = adapter_of(nn.Linear(1, 1)).load_model(stacked(nn.LSTM, 3, 0.2), SERIES)
    binding, _ = find_binding(schema, trainer.description)
    (obstacle,) = binding.obstacles
    assert "torch layer 'r': it has one dropout rate for all its places, and the schema has 0.2" in str(
        obstacle
    )


class Tied(nn.Module):
    """The table reads words and scores them: its padding row has a gradient from the scores alone."""

    def __init__(self, padding: int | None) -> None:
        super().__init__()
        self.table, self.inner = nn.Embedding(9, 4, padding_idx=padding), nn.Linear(4, 4)

    def forward(self, ids: torch.Tensor) -> torch.Tensor:
        return torch.tanh(self.inner(self.table(ids).mean(1))) @ self.table.weight.T


class KerasTied(keras.Model):
    def __init__(self) -> None:
        super().__init__()
        self.table, self.inner = K.Embedding(9, 4), K.Dense(4)

    def call(self, ids: Any) -> Any:
        hidden = tf.tanh(self.inner(tf.reduce_mean(self.table(ids), 1)))
        return tf.matmul(hidden, self.table.embeddings, transpose_b=True)


class KerasReversible(KerasTied):
    """One layer does both."""

    def __init__(self) -> None:
        super().__init__()
        self.table = K.ReversibleEmbedding(9, 4)

    def call(self, ids: Any) -> Any:
        return self.table(tf.tanh(self.inner(tf.reduce_mean(self.table(ids), 1))), reverse=True)


@pytest.mark.one_in(2)
@pytest.mark.parametrize("build", [lambda: Tied(0), lambda: Tied(None), lambda: Tied(3), KerasTied, KerasReversible],
                         ids=["same", "none", "another", "keras", "both ways"])  # fmt: skip
def test_a_padding_row_has_no_gradient_where_it_is_read(build: Callable[[], Any]) -> None:
    """Against PyTorch's own backward pass."""
    reference, candidate = Tied(0), build()
    schema = xbackend_fl.describe(reference, WORDS)
    trainer = adapter_of(candidate).load_model(candidate, WORDS)
    binding, _ = find_binding(schema, trainer.description)
    assert not binding.obstacles
    ids = np.array([[0, 1, 2, 0, 3], [4, 0, 0, 8, 8]])
    target = np.random.default_rng(0).standard_normal((2, 9)).astype(np.float32)
    start = adapter_of(reference).load_model(reference, WORDS)
    trainer.write(binding.restore(start.description.binding.export(start.read())))
    config = TrainConfig(
        OPTIMIZERS["sgd"](lr=1.0),
        loss=LOSSES["mean_squared_error"](),
        attributes=training_attributes(schema, binding),
    )
    trainer.train([Batch((ids,), target)], config)
    F.mse_loss(reference(torch.from_numpy(ids)), torch.from_numpy(target)).backward()
    expected = {
        name: (p - p.grad).detach().numpy() for name, p in reference.named_parameters() if p.grad is not None
    }
    moved = binding.export(trainer.read())
    np.testing.assert_allclose(moved["table.weight"], expected["table.weight"], atol=1e-6)
    np.testing.assert_allclose(moved["inner.weight"], expected["inner.weight"], atol=1e-6)
