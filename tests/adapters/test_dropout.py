"""Dropout follows the schema on both sides: its rate, its absence, and its seed."""

from __future__ import annotations

from typing import Any

import keras
import numpy as np
import pytest
from keras import layers as K
from torch import nn

from tests.adapters.row import Lambda, chain
from tests.adapters.sequences import attend
from xbackend_fl.adapter import OPTIMIZERS, Batch, TrainConfig, Trainer
from xbackend_fl.errors import RefusedInput
from xbackend_fl.losses import LOSSES
from xbfl_tensorflow.trainer import TensorFlowTrainer
from xbfl_torch.trainer import TorchTrainer

VECTOR = (np.ones((1, 64), np.float32),)


def dense(rate: float) -> tuple[Trainer, Trainer]:
    left = nn.Sequential(nn.Dropout(rate), nn.Linear(64, 1, bias=False))
    right = chain(K.Dropout(rate, name="drop"), K.Dense(1, use_bias=False), shape=(64,))
    return TorchTrainer(left, VECTOR), TensorFlowTrainer(right, VECTOR)


def share_of_dropped(trainer: Trainer, config: TrainConfig, seed: int) -> float:
    """One step from zero moves exactly the weights whose inputs were kept."""
    binding = trainer.description.binding
    (name,) = binding.parameters
    trainer.reset(seed)
    trainer.write(binding.restore({name: np.zeros((1, 64), np.float32)}))
    trainer.train([Batch(VECTOR, np.ones((1, 1), np.float32))], config)
    return float((binding.export(trainer.read())[name] == 0).mean())


@pytest.mark.parametrize("side", [0, 1], ids=["torch", "tensorflow"])
def test_the_schemas_rate_is_applied(side: int) -> None:
    trainer = dense(0.1)[side]
    name = {0: "0", 1: "drop"}[side]
    for rate in (0.75, 0.25):
        config = TrainConfig(
            OPTIMIZERS["sgd"](lr=0.1), loss=LOSSES["mean_squared_error"](), attributes={name: {"ratio": rate}}
        )
        measured = np.mean([share_of_dropped(trainer, config, seed) for seed in range(40)])
        assert abs(measured - rate) < 0.05
    off = TrainConfig(OPTIMIZERS["sgd"](lr=0.1), loss=LOSSES["mean_squared_error"](), dropout=False)
    assert share_of_dropped(trainer, off, 0) == 0


@pytest.mark.parametrize("side", [0, 1], ids=["torch", "tensorflow"])
def test_the_seed_decides_the_mask(side: int) -> None:
    trainer = dense(0.5)[side]
    binding = trainer.description.binding
    (name,) = binding.parameters
    config = TrainConfig(OPTIMIZERS["sgd"](lr=0.1), loss=LOSSES["mean_squared_error"]())

    def mask(seed: int) -> bytes:
        share_of_dropped(trainer, config, seed)
        return (binding.export(trainer.read())[name] == 0).tobytes()

    assert mask(3) == mask(3)
    assert len({mask(seed) for seed in range(8)}) == 8


def attention() -> tuple[Trainer, Trainer]:
    example = (np.random.default_rng(0).standard_normal((1, 5, 8)).astype(np.float32),)
    layers: dict[str, Any] = {
        "norm": nn.LayerNorm(8),
        "mixer": nn.MultiheadAttention(8, 2, dropout=0.1, batch_first=True),
        "head": nn.Linear(8, 3),
    }
    x = keras.Input((5, 8))
    y = K.LayerNormalization(epsilon=1e-5)(x)
    mixed = K.MultiHeadAttention(num_heads=2, key_dim=4, dropout=0.1)(y, y)
    model = keras.Model(x, K.Dense(3)(K.GlobalAveragePooling1D()(x + mixed)))
    return TorchTrainer(Lambda(attend, **layers), example), TensorFlowTrainer(model, example)


def spelled_attention() -> Trainer:
    """Attention by hand, with a dropout layer of its own between the weights and the values."""

    def call(m: Any, x: Any) -> Any:
        q, k, v = m.q(x), m.k(x), m.v(x)
        return m.head((m.drop((q @ k.transpose(1, 2) / 8**0.5).softmax(-1)) @ v).mean(1))

    parts: dict[str, Any] = {name: nn.Linear(8, 8) for name in "qkv"}
    example = (np.random.default_rng(0).standard_normal((1, 5, 8)).astype(np.float32),)
    return TorchTrainer(Lambda(call, **parts, drop=nn.Dropout(0.1), head=nn.Linear(8, 3)), example)


@pytest.mark.one_in(2)
@pytest.mark.parametrize("side", [0, 1, 2], ids=["torch", "tensorflow", "torch, by hand"])
def test_attention_drops_at_the_schemas_rate(side: int) -> None:
    trainer = (*attention(), spelled_attention())[side]
    inputs = np.random.default_rng(1).standard_normal((4, 5, 8)).astype(np.float32)
    batch = Batch((inputs,), np.zeros((4, 3), np.float32))
    start = trainer.read()
    node = next(node for node in trainer.description.schema.nodes if node.operator == "Attention")
    name = trainer.description.binding.nodes[node.name]

    def spread(rate: float, *, dropout: bool = True) -> float:
        config = TrainConfig(
            OPTIMIZERS["sgd"](lr=1e-6),
            loss=LOSSES["mean_squared_error"](),
            dropout=dropout,
            attributes={name: {"dropout": rate}},
        )
        losses = []
        for seed in range(12):
            trainer.reset(seed)
            trainer.write({key: start[key] for key in trainer.description.binding.owners})
            losses.append(trainer.train([batch], config).mean)
        return float(np.std(losses))

    assert spread(0.5, dropout=False) == pytest.approx(0, abs=1e-9)
    assert spread(0.8) > 1.5 * spread(0.05) > 0


def test_a_layer_built_without_dropout_cannot_be_given_any() -> None:
    _, trainer = dense(0.0)
    config = TrainConfig(
        OPTIMIZERS["sgd"](), loss=LOSSES["mean_squared_error"](), attributes={"drop": {"ratio": 0.5}}
    )
    with pytest.raises(RefusedInput, match="rate of 0"):
        share_of_dropped(trainer, config, 0)
