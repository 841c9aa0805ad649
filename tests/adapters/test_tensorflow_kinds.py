"""TensorFlow models of every kind: modules, custom layers, legacy Keras, SavedModel directories."""

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
from torch import nn

import xbackend_fl
from tests.adapters.row import Lambda
from xbackend_fl.errors import MismatchError

IMAGE = np.random.default_rng(0).standard_normal((1, 3, 8, 8)).astype(np.float32)
SERIES = np.random.default_rng(0).standard_normal((1, 6, 8)).astype(np.float32)
IDS = np.random.default_rng(0).integers(0, 20, (1, 6))


def torch_cnn() -> nn.Module:
    return nn.Sequential(
        nn.Conv2d(3, 8, 3, 2), nn.BatchNorm2d(8, eps=1e-3), nn.ReLU(), nn.Flatten(), nn.Linear(72, 5), nn.Tanh(), nn.Linear(5, 2)
    )  # fmt: skip


class RawModule(tf.Module):
    """No Keras at all; the batch normalisation is spelled out."""

    def __init__(self) -> None:
        super().__init__()
        draw = tf.random.stateless_normal
        self.kernel = tf.Variable(draw((3, 3, 3, 8), (0, 0)), name="kernel")
        self.bias = tf.Variable(tf.zeros(8), name="bias")
        self.gamma, self.beta = tf.Variable(tf.ones(8), name="gamma"), tf.Variable(tf.zeros(8), name="beta")
        self.mean = tf.Variable(tf.zeros(8), trainable=False, name="mean")
        self.variance = tf.Variable(tf.ones(8), trainable=False, name="variance")
        self.w1, self.b1 = tf.Variable(draw((72, 5), (1, 1)), name="w1"), tf.Variable(tf.zeros(5), name="b1")
        self.w2, self.b2 = tf.Variable(draw((5, 2), (2, 2)), name="w2"), tf.Variable(tf.zeros(2), name="b2")

    def __call__(self, x: Any) -> Any:
        x = tf.nn.bias_add(tf.nn.conv2d(x, self.kernel, 2, "VALID"), self.bias)
        x = tf.nn.relu(tf.nn.batch_normalization(x, self.mean, self.variance, self.beta, self.gamma, 1e-3))
        x = tf.reshape(x, (tf.shape(x)[0], -1))
        return tf.tanh(x @ self.w1 + self.b1) @ self.w2 + self.b2


class Gate(keras.layers.Layer):
    """A layer of the user's own: raw TensorFlow, a weight of its own, and another layer inside."""

    def __init__(self) -> None:
        super().__init__()
        self.inner = K.Dense(8)

    def build(self, shape: Any) -> None:
        self.scale = self.add_weight(shape=(shape[-1],), name="scale")

    @tf.function
    def call(self, x: Any) -> Any:
        return self.inner(x) * tf.sigmoid(tf.multiply(x, self.scale))


class Attention(keras.layers.Layer):
    """Self-attention of one head, by hand."""

    def build(self, shape: Any) -> None:
        self.kernels = [self.add_weight(shape=(shape[-1], 8), name=f"k{i}") for i in range(3)]

    def call(self, x: Any) -> Any:
        q, k, v = (tf.einsum("bti,io->bto", x, kernel) for kernel in self.kernels)
        scores = tf.matmul(q, k, transpose_b=True) / tf.sqrt(8.0)
        mask = tf.linalg.band_part(tf.ones((6, 6)), -1, 0)
        return tf.matmul(tf.nn.softmax(tf.where(mask > 0, scores, -1e9)), v)


class Inner(keras.Model):
    def __init__(self) -> None:
        super().__init__()
        self.gate, self.attention = Gate(), Attention()

    def call(self, x: Any) -> Any:
        return self.attention(self.gate(x))


class Outer(keras.Model):
    """A subclassed model inside a subclassed model."""

    def __init__(self) -> None:
        super().__init__()
        self.first, self.second, self.head = Inner(), Inner(), K.Dense(2)

    def call(self, x: Any) -> Any:
        return self.head(tf.reduce_mean(self.second(self.first(x)), axis=1))


class TorchInner(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.dense, self.scale = nn.Linear(8, 8), nn.Parameter(torch.rand(8))
        self.qkv = nn.Parameter(torch.rand(3, 8, 8))

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        x = self.dense(x) * torch.sigmoid(x * self.scale)
        q, k, v = (x @ self.qkv[i] for i in range(3))
        return nn.functional.scaled_dot_product_attention(q, k, v, is_causal=True)


def torch_outer() -> nn.Module:
    return Lambda(
        lambda m, x: m.head(m.b(m.a(x)).mean(1)), a=TorchInner(), b=TorchInner(), head=nn.Linear(8, 2)
    )


def legacy_cnn() -> Any:
    import tf_keras

    L = tf_keras.layers  # noqa: N806
    return tf_keras.Sequential(
        [
            L.Conv2D(8, 3, strides=2),
            L.BatchNormalization(),
            L.ReLU(),
            L.Flatten(),
            L.Dense(5, "tanh"),
            L.Dense(2),
        ]
    )


def legacy_text() -> Any:
    """Subclassed, without an input specification."""
    import tf_keras

    L = tf_keras.layers  # noqa: N806

    class Text(tf_keras.Model):
        def __init__(self) -> None:
            super().__init__()
            self.embed, self.rnn = L.Embedding(20, 6), L.Bidirectional(L.LSTM(4))
            self.norm, self.head = L.LayerNormalization(epsilon=1e-5), L.Dense(2)

        def call(self, x: Any) -> Any:
            return self.head(self.norm(self.rnn(self.embed(x))))

    return Text()


def torch_text() -> nn.Module:
    def call(m: Any, x: torch.Tensor) -> torch.Tensor:
        state = m.rnn(m.embed(x))[1][0]
        return m.head(m.norm(torch.cat([state[0], state[1]], 1)))

    rnn = nn.LSTM(6, 4, batch_first=True, bidirectional=True)
    return Lambda(call, embed=nn.Embedding(20, 6), rnn=rnn, norm=nn.LayerNorm(8), head=nn.Linear(8, 2))


def prove(left: Any, right: Any, example: np.ndarray[Any, Any]) -> xbackend_fl.mapping.BoundModel:
    schema, evidence = xbackend_fl.describe_reference(left, (example,))
    return xbackend_fl.bind(right, schema, (example,), evidence)


KINDS: list[tuple[str, Callable[[], nn.Module], Callable[[], Any], np.ndarray[Any, Any]]] = [
    ("tf.Module", torch_cnn, RawModule, IMAGE),
    ("custom layers in nested models", torch_outer, Outer, SERIES),
    ("legacy Sequential", torch_cnn, legacy_cnn, IMAGE),
    ("legacy subclass", torch_text, legacy_text, IDS),
]


@pytest.mark.one_in(4)
@pytest.mark.filterwarnings("ignore")  # the legacy package warns about itself
@pytest.mark.parametrize(("name", "left", "right", "example"), KINDS, ids=[kind[0] for kind in KINDS])
def test_every_kind_is_mapped_both_ways(name: str, left: Any, right: Any, example: Any) -> None:
    del name
    assert prove(left(), right(), example).proof.proven
    assert prove(right(), left(), example).proof.proven


@pytest.mark.filterwarnings("ignore")
def test_a_saved_model_directory(tmp_path: Path) -> None:
    """What `model.export` and `tf.saved_model.save` write, without a line of the code that made it."""
    model = keras.Sequential(
        [
            keras.Input((8, 8, 3)),
            K.Conv2D(8, 3, 2),
            K.BatchNormalization(),
            K.ReLU(),
            K.Flatten(),
            K.Dense(5, "tanh"),
            K.Dense(2),
        ]
    )
    model.export(tmp_path / "keras", verbose=False)
    module = RawModule()
    tf.saved_model.save(module, tmp_path / "module", _signature(module))
    for folder in ("keras", "module"):
        loaded = tf.saved_model.load(tmp_path / folder)
        bound = prove(torch_cnn(), loaded, IMAGE)
        assert bound.proof.proven
        assert len(bound.binding.parameters) == 10


def _signature(module: Any) -> Any:
    call = tf.function(module.__call__)
    return {"serving_default": call.get_concrete_function(tf.TensorSpec((None, 8, 8, 3), tf.float32))}


def test_a_swapped_mean_and_variance_is_seen() -> None:
    class Swapped(RawModule):
        def __call__(self, x: Any) -> Any:
            self.mean, self.variance = self.variance, self.mean
            try:
                return super().__call__(x)
            finally:
                self.mean, self.variance = self.variance, self.mean

    assert prove(torch_cnn(), Swapped(), IMAGE).proof.proven  # a name means nothing: the roles are found
    model = RawModule()
    schema = xbackend_fl.describe(model, (IMAGE,))
    assert {p.role for p in schema.parameters if p.operator == "BatchNormalization"} == {
        "weight", "bias", "mean", "variance",
    }  # fmt: skip


def test_a_variable_of_somebody_else_is_refused() -> None:
    stranger = tf.Variable(tf.ones(3))

    class Borrowing(tf.Module):
        def __call__(self, x: Any) -> Any:
            return x * stranger

    with pytest.raises(xbackend_fl.errors.UnsupportedError, match="does not own"):
        xbackend_fl.describe(Borrowing(), (IMAGE,))


class Scale(keras.layers.Layer):
    """A variable of the layer's own."""

    def __init__(self, make: Callable[[Scale], Any]) -> None:
        super().__init__()
        self.w = make(self)

    def call(self, x: Any) -> Any:
        return x * self.w


class Scaled(keras.Model):
    """A variable of the model's own, or of a layer."""

    def __init__(self, make: Callable[[Any], Any]) -> None:
        super().__init__()
        self.w = make(self)

    def call(self, x: Any) -> Any:
        return self.w(x) if callable(self.w) else x * (self.w[0] if isinstance(self.w, list) else self.w)


class ScaledModule(tf.Module):
    """What is no Keras model lists TensorFlow's variables."""

    def __init__(self) -> None:
        super().__init__()
        self.w = tf.Variable(tf.ones(3))

    def __call__(self, x: Any) -> Any:
        return x * self.w


def _added(owner: Any) -> Any:
    return owner.add_weight(shape=(3,), name="w", initializer="ones")


@pytest.mark.parametrize(
    "build",
    [
        lambda: Scaled(_added),
        lambda: Scaled(lambda _: keras.Variable(np.ones(3, np.float32))),
        lambda: Scaled(lambda _: [keras.Variable(np.ones(3, np.float32))]),
        lambda: Scaled(lambda _: Scale(_added)),
        ScaledModule,
    ],
)
def test_the_cure_for_a_variable_that_keras_does_not_list(build: Callable[[], Any]) -> None:
    schema = xbackend_fl.describe(build(), (IMAGE,))
    assert [np.squeeze(np.zeros(p.shape)).shape for p in schema.parameters] == [(3,)]


@pytest.mark.parametrize(
    "build",
    [
        lambda: Scaled(lambda _: tf.Variable(tf.ones(3))),
        lambda: Scaled(lambda _: [tf.Variable(tf.ones(3))]),
        lambda: Scaled(lambda _: Scale(lambda _: tf.Variable(tf.ones(3)))),
    ],
)
def test_a_variable_that_keras_does_not_list_is_refused_with_the_cure(build: Callable[[], Any]) -> None:
    with pytest.raises(xbackend_fl.errors.UnsupportedError, match="does not own") as caught:
        xbackend_fl.describe(build(), (IMAGE,))
    for part in ("self.w = self.add_weight(", "self.w = keras.Variable(", "tf.Module: self.w = tf.Variable("):
        assert part in str(caught.value.hint)


def test_the_legacy_default_epsilon_is_diagnosed() -> None:
    import tf_keras

    model = tf_keras.Sequential([tf_keras.layers.BatchNormalization()])
    schema = xbackend_fl.describe(nn.BatchNorm2d(3), (IMAGE,))
    with pytest.raises(MismatchError, match="epsilon is 1e-05"):
        xbackend_fl.bind(model, schema, (IMAGE,))
