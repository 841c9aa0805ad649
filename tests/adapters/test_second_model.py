"""A second Keras model of a process has the names and the bits of the first."""

from __future__ import annotations

from itertools import pairwise
from typing import Any

import keras
import numpy as np
from keras import layers

from xbackend_fl.adapter import OPTIMIZERS, Batch, Numbering, TrainConfig, load
from xbackend_fl.losses import LOSSES

CONFIG = TrainConfig(OPTIMIZERS["sgd"](lr=0.1), loss=LOSSES["cross_entropy"](), class_axis=1)


def network() -> keras.Model:
    keras.utils.set_random_seed(0)
    inner = [layers.Dense(8), layers.BatchNormalization(epsilon=1e-5), layers.Activation("tanh")]
    return keras.Sequential([keras.Input((6,)), *inner, layers.Dense(3)])


def batch(size: int) -> Batch:
    draw = np.random.default_rng(size)
    x = draw.standard_normal((size, 6)).astype(np.float32)
    return Batch((x,), x[:, :3].argmax(1))


def trained(sizes: list[int]) -> dict[str, Any]:
    """The weights after a step on the last batch; from the first weights, whatever was trained before."""
    adapter = load("tensorflow")
    assert isinstance(adapter, Numbering)
    adapter.number_anew()
    trainer = adapter.load_model(network(), (batch(2).inputs[0],))
    start = {name: array.copy() for name, array in trainer.read().items()}
    for size in sizes:
        trainer.reset(0)
        trainer.write(start)
        trainer.train([batch(size)], CONFIG)
    return {name: array.copy() for name, array in trainer.read().items()}


def test_what_was_trained_before_decides_nothing() -> None:
    for size in (5, 12, 20, 33):
        found = [trained(before) for before in ([size], [7, size], [20, 3, size])]
        for one, other in pairwise(found):
            assert list(one) == list(other)
            for name, array in one.items():
                np.testing.assert_array_equal(array, other[name], err_msg=f"{size}: {name}")
