"""Rows of tables and pixels of patches that one model counts in another order than the other."""

from __future__ import annotations

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
from tests.adapters.glue.pair import Wrapped, keras_model
from tests.adapters.row import Lambda
from xbackend_fl.canonical.layout import forward
from xbackend_fl.errors import MismatchError

STEPS = (np.random.default_rng(0).standard_normal((2, 5, 6)).astype(np.float32),)
IMAGE = (np.random.default_rng(1).standard_normal((2, 3, 4, 8)).astype(np.float32),)
APART = np.arange(5)[:, None] - np.arange(5)


def bound(reference: nn.Module, other: Any, example: tuple[Any, ...]) -> Any:
    schema, evidence = (
        xbackend_fl.describe(reference, example),
        xbackend_fl.gather_evidence(reference, example),
    )
    return xbackend_fl.bind(other, schema, example, evidence)


def relative() -> nn.Module:
    """A weight for every distance of two steps, from -4 to 4."""
    index = torch.from_numpy(APART + 4)

    def call(m: Any, x: torch.Tensor) -> torch.Tensor:
        score = m.a(x) @ m.b(x).mT + m.table(index).squeeze(-1)
        return score.softmax(-1) @ x

    return Lambda(call, a=nn.Linear(6, 4), b=nn.Linear(6, 4), table=nn.Embedding(9, 1))


def relative_keras(index: Any) -> Any:
    def call(m: Any, x: Any) -> Any:
        score = ops.matmul(m.inner[0](x), ops.transpose(m.inner[1](x), (0, 2, 1)))
        return ops.matmul(ops.softmax(score + tf.gather(m.table, index)), x)

    return keras_model(Wrapped(call, [K.Dense(4), K.Dense(4)], table=(9,)), (5, 6))


def test_rows_of_a_table_may_be_counted_the_other_way() -> None:
    found = bound(relative(), relative_keras(4 - APART), STEPS)
    assert found.proof.proven
    values = {
        name: np.arange(9.0).reshape(native.shape)
        for name, native in found.binding.natives.items()
        if native.shape == (9,)
    }
    np.testing.assert_array_equal(
        forward(found.binding.parameters["table.weight"], values).ravel(), np.arange(8.0, -1, -1)
    )


def test_or_in_any_order() -> None:
    order = np.array([3, 0, 7, 1, 8, 2, 5, 4, 6])
    assert bound(relative(), relative_keras(order[APART + 4]), STEPS).proof.proven


def test_distances_without_a_sign_are_another_function() -> None:
    with pytest.raises(MismatchError):
        bound(relative(), relative_keras(abs(APART)), STEPS)


def patches(**options: Any) -> nn.Module:
    def call(m: Any, x: torch.Tensor) -> torch.Tensor:
        return m.head(torch.tanh(m.patch(x).flatten(2).mT)).amax(1)

    return Lambda(call, patch=nn.Conv2d(3, 7, 2, 2, **options), head=nn.Linear(7, 3))


def patches_keras(perm: tuple[int, ...] = (0, 1, 3, 2, 4, 5)) -> Any:
    """A reshape and a dense layer; ``perm`` of rows, row in the patch, columns, column in the patch, channels."""
    image = keras.Input((4, 8, 3))
    x = ops.transpose(ops.reshape(image, (-1, 2, 2, 4, 2, 3)), perm)
    x = K.Dense(7, activation="tanh")(ops.reshape(x, (-1, 8, 12)))
    return keras.Model(image, K.GlobalMaxPooling1D()(K.Dense(3)(x)))


@pytest.mark.parametrize("perm", [(0, 1, 3, 2, 4, 5), (0, 3, 1, 5, 4, 2)])
def test_a_convolution_of_patches_is_a_dense_layer_on_each(perm: tuple[int, ...]) -> None:
    assert bound(patches(), patches_keras(perm), IMAGE).proof.proven


def test_patches_of_other_pixels_are_another_function() -> None:
    with pytest.raises(MismatchError):
        bound(patches(), patches_keras((0, 2, 4, 1, 3, 5)), IMAGE)
    with pytest.raises(MismatchError):
        bound(patches(dilation=2, padding=1), patches_keras(), IMAGE)
