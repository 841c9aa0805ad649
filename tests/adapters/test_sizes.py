"""A model that decides by how many examples there are, or how long they are, says the line; in no graph does it stand."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import keras
import numpy as np
import pytest
import tensorflow as tf
import torch
from keras import layers as K
from keras import ops
from torch import nn

import xbackend_fl
from xbackend_fl.adapter import adapter_of

ROWS = (np.ones((2, 6), np.float32),)
SERIES = (np.ones((2, 6, 8), np.float32),)


def compared(x: Any) -> Any:
    return x * 2 if x.shape[0] > 64 else x


def read_first(x: Any) -> Any:
    count = x.shape[0]
    if count == 1:
        return x * 2
    return x


def a_part(x: Any) -> Any:
    return x * 2 if x.shape[0] / 2 > 64 else x


def a_product(x: Any) -> Any:
    return x * 2 if x.shape[0] * x.shape[1] >= 640 else x


def in_a_loop(x: Any) -> Any:
    count = x.shape[0]
    while count > 64:
        x, count = x * 2, count - 64
    return x


def of_helper(x: Any) -> Any:
    return x * 2 if many(x) else x


def many(x: Any) -> bool:
    return bool(x.shape[0] > 64)


def unpacked(x: Any) -> Any:
    count, _ = x.shape
    return x * 2 if count > 64 else x


def by_size(x: Any) -> Any:
    return x * 2 if x.size(0) > 64 else x


def by_len(x: Any) -> Any:
    return x * 2 if len(x) > 64 else x


def by_numel(x: Any) -> Any:
    return x * 2 if x.numel() > 640 else x


def cut(x: Any) -> Any:
    return x[:, :100] if x.shape[1] > 100 else x


def at_most(x: Any) -> Any:
    return x[:, : min(x.shape[1], 100)]


def odd(x: Any) -> Any:
    if x.shape[1] % 2:
        x = x[:, 1:]
    return x


def refused(x: Any) -> Any:
    assert x.shape[0] > 0
    if x.shape[-1] not in {6, 8}:
        raise ValueError(x.shape)
    return x


def reshaped(x: Any) -> Any:
    return x.reshape(x.shape[0], -1, x.shape[-1])[:, 0]


def by_ops(x: Any) -> Any:
    return x * 2 if ops.shape(x)[0] > 64 else x


def by_list(x: Any) -> Any:
    return x * 2 if x.shape.as_list()[0] > 64 else x


def by_condition(x: Any) -> Any:
    return tf.cond(tf.shape(x)[0] > 64, lambda: x * 2, lambda: x)


def by_autograph(x: Any) -> Any:
    if tf.shape(x)[0] > 64:
        x = x * 2
    return x


def whole(x: Any) -> Any:
    return ops.reshape(x, (-1, x.shape[-1]))


BOTH = (compared, read_first, a_part, a_product, in_a_loop, of_helper, unpacked)


class Torch(nn.Module):
    def __init__(self, function: Callable[[Any], Any]) -> None:
        super().__init__()
        self.function, self.head = function, nn.Linear(8 if function in {cut, at_most, odd} else 6, 3)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return self.head(self.function(x))  # type: ignore[no-any-return]


class Keras(keras.Model):
    def __init__(self, function: Callable[[Any], Any]) -> None:
        super().__init__()
        self.function, self.head = function, K.Dense(3)

    def call(self, x: Any) -> Any:
        return self.head(self.function(x))


class Module(tf.Module):
    def __init__(self, function: Callable[[Any], Any]) -> None:
        super().__init__()
        self.function, self.kernel = function, tf.Variable(tf.ones((6, 3)))

    def __call__(self, x: Any) -> Any:
        return self.function(x) @ self.kernel


def told(model: Any) -> list[str]:
    example = SERIES if model.function in {cut, at_most, odd} else ROWS
    found = adapter_of(model).load_model(model, example).description.notes
    return [note for note in found if "decides by how many" in note or "chooses by what" in note]


@pytest.mark.one_in(3)
@pytest.mark.parametrize(
    "function", [*BOTH, by_size, by_len, by_numel, cut, at_most, odd], ids=lambda one: one.__name__
)
def test_a_line_of_pytorch_that_decides_by_a_size_is_named(function: Callable[[Any], Any]) -> None:
    (note,) = told(Torch(function))
    assert Path(__file__).name in note


@pytest.mark.parametrize("function", [refused, reshaped], ids=lambda one: one.__name__)
def test_a_size_that_decides_nothing_in_pytorch_is_no_matter(function: Callable[[Any], Any]) -> None:
    assert not told(Torch(function))


@pytest.mark.one_in(3)
@pytest.mark.parametrize(
    "function", [*BOTH, by_ops, by_list, by_condition, cut, at_most, odd], ids=lambda one: one.__name__
)
def test_a_line_of_keras_that_decides_by_a_size_is_named(function: Callable[[Any], Any]) -> None:
    (note,) = told(Keras(function))
    assert Path(__file__).name in note


@pytest.mark.parametrize("function", [refused, whole], ids=lambda one: one.__name__)
def test_a_size_that_decides_nothing_in_keras_is_no_matter(function: Callable[[Any], Any]) -> None:
    assert not told(Keras(function))


@pytest.mark.parametrize("function", [compared, by_condition, by_autograph], ids=lambda one: one.__name__)
def test_a_line_of_a_tensorflow_module_that_decides_by_a_size_is_named(
    function: Callable[[Any], Any],
) -> None:
    (note,) = told(Module(function))
    assert Path(__file__).name in note


def test_a_layer_in_a_functional_model_is_looked_at_too() -> None:
    class Doubling(K.Layer):
        def call(self, x: Any) -> Any:
            return x * 2 if x.shape[0] is not None and x.shape[0] > 64 else x

    inputs = keras.Input((6,))
    model = keras.Model(inputs, K.Dense(3)(Doubling()(inputs)))
    model.function = None
    assert len(told(model)) == 1


def test_both_sides_are_said_with_the_bound_model() -> None:
    schema, evidence = xbackend_fl.describe_reference(Torch(compared), ROWS)
    found = xbackend_fl.bind(
        Keras(read_first), schema, ROWS, [item for item in evidence if "example" not in item.case.label]
    )
    notes = [note for note in found.notes if "decides by how many" in note]
    assert [note.startswith("the reference: ") for note in notes] == [False, True]
