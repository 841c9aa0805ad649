"""A model whose evaluation draws random numbers is no function: it is refused, and what draws is named."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import keras
import numpy as np
import onnx
import pytest
import tensorflow as tf
import torch
from keras import layers as K
from onnx import TensorProto, helper, numpy_helper
from torch import nn

import xbackend_fl
from tests.adapters.row import chain
from xbackend_fl.errors import UnsupportedError

EXAMPLE = (np.random.default_rng(0).standard_normal((2, 8)).astype(np.float32),)


class Drawing(keras.Model):
    """A dense layer and something that draws."""

    def __init__(self, drawn: Callable[[Any, Any], Any]) -> None:
        super().__init__()
        self.dense, self.drawn = K.Dense(3), drawn
        self.noise = K.GaussianNoise(0.5)

    def call(self, x: Any, training: bool = False) -> Any:  # noqa: FBT001, FBT002  Keras calls it so
        del training
        return self.drawn(self, self.dense(x))


KERAS: dict[str, tuple[Callable[[Any, Any], Any], str]] = {
    "tf.random.normal": (lambda _, y: y + tf.random.normal((3,)), "RandomStandardNormal"),
    "uniform of the data's shape": (lambda _, y: y * tf.random.uniform(tf.shape(y)), "RandomUniform"),
    "tf.nn.dropout": (lambda _, y: tf.nn.dropout(y, 0.5), "dropout/"),
    "a generator": (lambda _, y: y + tf.random.get_global_generator().normal((3,)), "RngReadAndSkip"),
    "keras.random": (lambda _, y: y + keras.random.normal((3,)), "stateless_random_normal"),
    "a noise layer": (lambda m, y: m.noise(y, training=True), "GaussianNoise"),
    "NumPy": (lambda _, y: y + np.random.rand(), "model Drawing"),  # noqa: NPY002  as users write it
}


@pytest.mark.parametrize("kind", KERAS)
def test_a_model_of_keras_that_draws_in_evaluation_is_named(kind: str) -> None:
    drawn, word = KERAS[kind]
    # What asks for determinism in the same process forbids the one that TensorFlow makes itself.
    tf.random.set_global_generator(tf.random.Generator.from_seed(1))
    with pytest.raises(UnsupportedError, match=rf"{word}.*draws random numbers in evaluation mode too"):
        xbackend_fl.describe(Drawing(drawn), EXAMPLE)


def test_numbers_from_a_fixed_seed_are_constants() -> None:
    model = Drawing(lambda _, y: y + tf.random.stateless_normal((3,), seed=(1, 2)))
    schema, evidence = xbackend_fl.describe_reference(model, EXAMPLE)
    assert xbackend_fl.bind(model, schema, EXAMPLE, evidence).proof.proven


def test_layers_that_draw_in_training_alone_pass() -> None:
    xbackend_fl.describe(chain(K.Dense(3), K.GaussianNoise(0.5), K.Dropout(0.5), shape=(8,)), EXAMPLE)


def test_a_model_of_torch_that_draws_in_evaluation_is_named() -> None:
    class Drawn(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.dense = nn.Linear(8, 3)

        def forward(self, x: torch.Tensor) -> torch.Tensor:
            result: torch.Tensor = self.dense(x) + torch.rand(3)
            return result

    with pytest.raises(UnsupportedError, match=r"rand.*draws random numbers in evaluation mode too"):
        xbackend_fl.describe(Drawn(), EXAMPLE)


def onnx_model(*nodes: onnx.NodeProto) -> onnx.ModelProto:
    weight = numpy_helper.from_array(np.ones((3, 8), np.float32), "w")
    more = [
        numpy_helper.from_array(np.array(value), name)
        for name, value in (("r", np.float32(0.5)), ("t", True))
    ]
    graph = helper.make_graph(
        [helper.make_node("Gemm", ["x", "w"], ["y"], transB=1, name="gemm"), *nodes],
        "graph",
        [helper.make_tensor_value_info("x", TensorProto.FLOAT, ["N", 8])],
        [helper.make_tensor_value_info("z", TensorProto.FLOAT, ["N", 3])],
        [weight, *more],
    )
    return helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=9)


@pytest.mark.parametrize("operator", ["RandomNormalLike", "RandomUniformLike", "Bernoulli", "Dropout"])
def test_a_node_of_onnx_that_draws_is_named(operator: str) -> None:
    if operator == "Dropout":
        nodes = [helper.make_node("Dropout", ["y", "r", "t"], ["z"], name="noise")]
    else:
        made = helper.make_node(operator, ["y"], ["drawn"], name="noise")
        nodes = [made, helper.make_node("Add", ["y", "drawn"], ["z"])]
    with pytest.raises(UnsupportedError, match=r"'noise'.*draws random numbers in evaluation too"):
        xbackend_fl.describe(onnx_model(*nodes), EXAMPLE)
