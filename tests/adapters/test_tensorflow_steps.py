"""TensorFlow's local epoch is one graph, whatever the number and size of a participant's batches; a single batch has one of its own."""

from __future__ import annotations

import keras
import numpy as np
import pytest

import xbfl_tensorflow
from xbackend_fl.adapter import OPTIMIZERS, Batch, TrainConfig
from xbfl_tensorflow import rows
from xbfl_tensorflow.trainer import TensorFlowTrainer

GENERATOR = np.random.default_rng(3)


def opened() -> TensorFlowTrainer:
    keras.utils.set_random_seed(0)
    model = keras.Sequential(
        [keras.Input((6, 6, 1)), keras.layers.Conv2D(3, 3), keras.layers.Flatten(), keras.layers.Dense(4)]
    )
    return xbfl_tensorflow.adapter.load_model(model, (np.zeros((1, 1, 6, 6), np.float32),))


def batches(*sizes: int) -> list[Batch]:
    return [
        Batch((GENERATOR.standard_normal((size, 6, 6, 1), np.float32),), GENERATOR.integers(0, 4, size))
        for size in sizes
    ]


@pytest.mark.parametrize("name", ["sgd", "adam"])
def test_two_traces_serve_every_participant(name: str) -> None:
    trainer = opened()
    config = TrainConfig(OPTIMIZERS[name](lr=0.01))
    for sizes in ((8, 8, 3), (8, 5), (8, 8, 8, 8, 1), (2,), (8, 8, 7, 8)):
        found = trainer.train(batches(*sizes), config)
        assert found.positions == sum(sizes)
    several, alone = trainer._steps.values()
    assert several.experimental_get_tracing_count() <= 3  # type: ignore[attr-defined]
    assert alone.experimental_get_tracing_count() == 1  # type: ignore[attr-defined]


def test_a_batch_alone_takes_the_step_of_several() -> None:
    work, config = batches(8, 5, 2), TrainConfig(OPTIMIZERS["sgd"](lr=0.01), clip_norm=0.5)
    together, alone = opened(), opened()
    expected = together.train(work, config)
    found = [alone.train([batch], config) for batch in work]
    assert sum(each.total for each in found) == pytest.approx(expected.total, rel=1e-6)
    for one, other in zip(together.read().values(), alone.read().values(), strict=True):
        np.testing.assert_allclose(other, one, rtol=0, atol=1e-7)


@pytest.mark.parametrize("name", ["sgd", "adam"])
def test_steps_together_are_steps_one_by_one(name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    work = batches(8, 8, 8, 5, 5, 2)
    config = TrainConfig(OPTIMIZERS[name](lr=0.01), clip_norm=0.5)
    together = opened()
    expected = together.train(work, config)
    monkeypatch.setattr(rows, "_LONGEST", 1)
    alone = opened()
    found = alone.train(work, config)
    assert found.positions == expected.positions
    assert found.total == pytest.approx(expected.total, rel=1e-6)
    # Keras counts its automatic names on.
    for one, other in zip(together.read().values(), alone.read().values(), strict=True):
        np.testing.assert_allclose(other, one, rtol=0, atol=1e-7)


def test_other_rates_need_no_other_trace() -> None:
    trainer, work, rates = opened(), batches(8, 8, 8), (0.1, 0.02, 0.3)
    rule = OPTIMIZERS["sgd"](lr=0.01, weight_decay=0.1)
    start = trainer.read()
    trainer.train(work, TrainConfig(rule, rates=rates))
    changed = trainer.read()
    trainer.train(work, TrainConfig(rule, rates=(0.5, 0.5, 0.5)))
    (several,) = trainer._steps.values()
    assert several.experimental_get_tracing_count() == 1  # type: ignore[attr-defined]
    trainer.write(start)
    for rate, batch in zip(rates, work, strict=True):
        trainer.train([batch], TrainConfig(OPTIMIZERS["sgd"](lr=rate, weight_decay=0.1)))
    for found, expected in zip(trainer.read().values(), changed.values(), strict=True):
        np.testing.assert_allclose(found, expected, rtol=0, atol=1e-6)
