"""Scores far from zero make a softmax one-hot, and its gradients rounding: parameters are paired all the same, on any processor."""

from __future__ import annotations

from dataclasses import replace
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
from xbackend_fl.errors import MismatchError, UnsupportedError
from xbackend_fl.mapping.probe.cases import BY_SHAPE


class Similar(nn.Module):
    """Scores of three layers of one number, of context, query and their product."""

    def __init__(self) -> None:
        super().__init__()
        self.c, self.q, self.cq = (nn.Linear(24, 1, bias=False) for _ in range(3))
        self.out = nn.Linear(48, 3)

    def forward(self, context: torch.Tensor, query: torch.Tensor) -> torch.Tensor:
        product = self.cq(context.unsqueeze(2) * query.unsqueeze(1)).squeeze(-1)
        scores = self.c(context) + self.q(query).transpose(1, 2) + product
        read = torch.softmax(scores, dim=-1) @ query
        return self.out(torch.cat([context, read], dim=-1))


class KerasSimilar(K.Layer):
    """The same scores of one vector, as products of matrices."""

    def build(self, _: Any) -> None:
        self.w = self.add_weight(shape=(3, 24), name="w")

    def call(self, context: Any, query: Any) -> Any:
        scores = ops.matmul(context * self.w[2], ops.transpose(query, (0, 2, 1)))
        scores += ops.expand_dims(ops.matmul(context, self.w[0]), 2)
        scores += ops.expand_dims(ops.matmul(query, self.w[1]), 1)
        return ops.concatenate([context, ops.matmul(ops.softmax(scores), query)], -1)


def similar_keras() -> Any:
    context, query = keras.Input((5, 24)), keras.Input((4, 24))
    return keras.Model([context, query], K.Dense(3, name="answer")(KerasSimilar()(context, query)))


def test_gradients_that_are_rounding_are_not_the_last_word() -> None:
    keras.utils.clear_session()
    rng = np.random.default_rng(0)
    example = tuple(rng.standard_normal((2, n, 24)).astype(np.float32) for n in (5, 4))
    schema = xbackend_fl.describe(Similar(), example)
    # Data ten times as large makes the softmax one-hot: what is left of the gradients differs from processor to processor.
    evidence = [
        replace(
            item, gradients={name: rng.standard_normal(array.shape) for name, array in item.gradients.items()}
        )
        if item.case.label == BY_SHAPE
        else item
        for item in xbackend_fl.gather_evidence(Similar(), example)
    ]
    assert xbackend_fl.bind(similar_keras(), schema, example, evidence).proof.proven


class ChannelsFirst(tf.Module):
    """Pooling of channels first, of which TensorFlow has no gradient on a processor."""

    def __init__(self) -> None:
        super().__init__()
        self.kernel = tf.Variable(tf.ones((1, 1, 3, 3)))

    def __call__(self, x: Any) -> Any:
        return tf.nn.max_pool2d(
            tf.nn.conv2d(x, self.kernel, 1, "SAME", data_format="NCHW"), 2, 2, "VALID", "NCHW"
        )


def test_a_kernel_that_is_missing_is_no_fault_of_the_model() -> None:
    image = np.random.default_rng(1).standard_normal((2, 3, 8, 8)).astype(np.float32)
    reference = nn.Sequential(nn.Conv2d(3, 3, 1, bias=False), nn.MaxPool2d(2))
    schema, evidence = xbackend_fl.describe(reference, image), xbackend_fl.gather_evidence(reference, image)
    with pytest.raises(UnsupportedError, match="has no kernel for this model on this processor") as caught:
        xbackend_fl.bind(ChannelsFirst(), schema, image, evidence)
    assert "channels last" in str(caught.value.hint)


class Rare(nn.Module):
    """A chance that is nearly nothing: ONNX Runtime's sigmoid ends at 1e-8."""

    def __init__(self, last: float) -> None:
        super().__init__()
        self.layer, self.last = nn.Linear(4, 2), last

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return torch.sigmoid(self.layer(x) - self.last).reshape(-1, 2)


def test_the_sigmoid_of_onnx_runtime_ends_before_others() -> None:
    example = (np.random.default_rng(0).standard_normal((3, 4)).astype(np.float32),)
    x = keras.Input((4,))
    other = keras.Model(x, K.Reshape((2,))(ops.sigmoid(K.Dense(2, name="d")(x) - 40.0)))
    schema, evidence = xbackend_fl.describe_reference(Rare(40.0), example)
    proof = xbackend_fl.bind(other, schema, example, evidence).proof
    assert proof.proven
    assert any(check.what == "onnx runtime" for check in proof.checks)


def test_a_rare_chance_is_compared_with_the_other_framework_by_its_own_size() -> None:
    example = (np.random.default_rng(0).standard_normal((3, 4)).astype(np.float32),)
    x = keras.Input((4,))
    other = keras.Model(x, K.Reshape((2,))(ops.sigmoid(K.Dense(2, name="d")(x) - 41.0)))
    schema, evidence = xbackend_fl.describe_reference(Rare(40.0), example)
    with pytest.raises(MismatchError):
        xbackend_fl.bind(other, schema, example, evidence)
