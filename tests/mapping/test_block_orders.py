"""Channels behind blocks of pixels, counted in another order: vectors and activations on the way to a layer take it up."""

from __future__ import annotations

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

IMAGE = (np.random.default_rng(2).standard_normal((2, 3, 8, 6)).astype(np.float32),)


class Unshuffled(nn.Module):
    def __init__(self, end: str) -> None:
        super().__init__()
        self.scale, self.shift = (
            nn.Parameter(torch.arange(12.0).reshape(shape) / 12) for shape in ((12, 1, 1), (1, 12, 1, 1))
        )
        self.end = nn.Conv2d(12, 5, 3 if end == "convolution" else 1)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return self.end(F.relu(F.pixel_unshuffle(x, 2) * self.scale.exp() - self.shift))


class KerasUnshuffled(keras.Model):
    def __init__(self, end: str, *, read_twice: bool = False) -> None:
        super().__init__()
        self.scale, self.shift = (self.add_weight(shape=(12,), name=name) for name in ("scale", "shift"))
        self.end = K.Dense(5) if end == "dense" else K.Conv2D(5, 3)
        self.read_twice = read_twice

    def call(self, x: Any) -> Any:
        x = tf.nn.relu(tf.nn.space_to_depth(x, 2) * tf.exp(self.scale) - self.shift)
        y = self.end(x)
        return (y, tf.reduce_max(x, -1)) if self.read_twice else y


def operators(model: Any) -> list[str]:
    described = xbackend_fl.describe(xbackend_fl.with_axes(model, inputs=[(0, 2, 3, 1)]), IMAGE)
    return [node.operator for node in described.nodes]


@pytest.mark.parametrize("end", ["dense", "convolution"])
def test_the_order_of_channels_is_taken_up(end: str) -> None:
    assert "Take" not in operators(KerasUnshuffled(end))


def test_what_somebody_else_reads_stays_in_its_order() -> None:
    assert "Take" in operators(KerasUnshuffled("dense", read_twice=True))


@pytest.mark.slow
@pytest.mark.parametrize("end", ["dense", "convolution"])
def test_vectors_behind_blocks_are_mapped(end: str) -> None:
    model, other = Unshuffled(end), KerasUnshuffled(end)
    schema, evidence = xbackend_fl.describe_reference(model, IMAGE)
    turned = xbackend_fl.with_axes(other, inputs=[(0, 2, 3, 1)])
    there = xbackend_fl.bind(turned, schema, IMAGE, evidence)
    there.write(xbackend_fl.bind(model, schema, IMAGE, evidence).read())
    scale = model.scale.detach().numpy().reshape(3, 4).T.reshape(-1)
    np.testing.assert_array_equal(other.scale.numpy(), scale)
