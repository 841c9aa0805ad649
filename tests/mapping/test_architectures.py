"""Small versions of what people really build, written independently for both frameworks."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import keras
import numpy as np
import pytest
import torch
from keras import layers as K
from torch import nn
from torch.nn import functional as F

import xbackend_fl
from tests.adapters.row import Lambda, chain
from xbackend_fl.errors import MismatchError, UnsupportedError

Pair = tuple[Callable[[], nn.Module], Callable[[], Any], tuple[int, ...]]


def _u_net(m: Any, x: torch.Tensor) -> torch.Tensor:
    a = F.relu(m.down(x))
    b = F.relu(m.bottom(F.max_pool2d(a, 2)))
    return m.out(F.relu(m.join(torch.cat([a, m.up(b)], 1))))


def u_net() -> nn.Module:
    return Lambda(
        _u_net,
        down=nn.Conv2d(1, 8, 3, padding=1),
        bottom=nn.Conv2d(8, 16, 3, padding=1),
        up=nn.ConvTranspose2d(16, 8, 2, stride=2),
        join=nn.Conv2d(16, 8, 3, padding=1),
        out=nn.Conv2d(8, 2, 1),
    )


def u_net_keras() -> Any:
    image = keras.Input((None, None, 1))
    a = K.Conv2D(8, 3, padding="same", activation="relu")(image)
    b = K.Conv2D(16, 3, padding="same", activation="relu")(K.MaxPooling2D()(a))
    up = K.Conv2DTranspose(8, 2, strides=2)(b)
    joined = K.Conv2D(8, 3, padding="same", activation="relu")(K.Concatenate()([a, up]))
    return keras.Model(image, K.Conv2D(2, 1)(joined))


def decoder() -> nn.Module:
    return Lambda(
        lambda m, z: torch.tanh(m.grow(F.relu(m.norm(m.dense(z))).view(-1, 4, 7, 6))),
        dense=nn.Linear(20, 168),
        norm=nn.BatchNorm1d(168),
        grow=nn.ConvTranspose2d(4, 3, 4, 2, 1),
    )


def decoder_keras() -> Any:
    code = keras.Input((20,))
    x = K.ReLU()(K.BatchNormalization(epsilon=1e-5)(K.Dense(168)(code)))
    x = K.Reshape((7, 6, 4))(x)
    return keras.Model(code, K.Conv2DTranspose(3, 4, strides=2, padding="same", activation="tanh")(x))


def transformer() -> nn.Module:
    block = nn.TransformerEncoderLayer(16, 4, 32, batch_first=True)
    return Lambda(
        lambda m, x: m.head(m.encoder(m.embed(x)).mean(1)),
        embed=nn.Embedding(50, 16),
        encoder=nn.TransformerEncoder(block, 2, enable_nested_tensor=False),
        head=nn.Linear(16, 3),
    )


def transformer_keras() -> Any:
    tokens = keras.Input((9,), dtype="int64")
    x = K.Embedding(50, 16)(tokens)
    for _ in range(2):
        mixed = K.MultiHeadAttention(4, 4, dropout=0.1)(x, x)
        x = K.LayerNormalization(epsilon=1e-5)(x + K.Dropout(0.1)(mixed))
        wide = K.Dropout(0.1)(K.Dense(32, activation="relu")(x))
        x = K.LayerNormalization(epsilon=1e-5)(x + K.Dropout(0.1)(K.Dense(16)(wide)))
    return keras.Model(tokens, K.Dense(3)(K.GlobalAveragePooling1D()(x)))


def _stem(m: Any, x: torch.Tensor) -> torch.Tensor:
    x = F.max_pool2d(F.relu(m.norm(m.conv(x))), 3, 2, 1)
    x = F.relu(x + m.norm2(m.conv2(x)))
    return m.head(F.adaptive_avg_pool2d(x, 1).flatten(1))


def resnet_stem() -> nn.Module:
    return Lambda(
        _stem,
        conv=nn.Conv2d(3, 8, 7, 2, 3, bias=False),
        norm=nn.BatchNorm2d(8),
        conv2=nn.Conv2d(8, 8, 3, 1, 1, bias=False),
        norm2=nn.BatchNorm2d(8),
        head=nn.Linear(8, 4),
    )


def resnet_stem_keras() -> Any:
    """As Keras writes it: explicit zero padding, also in front of the max pooling."""
    image = keras.Input((None, None, 3))
    x = K.Conv2D(8, 7, strides=2, use_bias=False)(K.ZeroPadding2D(3)(image))
    x = K.ReLU()(K.BatchNormalization(epsilon=1e-5)(x))
    x = K.MaxPooling2D(3, strides=2)(K.ZeroPadding2D(1)(x))
    y = K.Conv2D(8, 3, padding="same", use_bias=False)(x)
    x = K.ReLU()(x + K.BatchNormalization(epsilon=1e-5)(y))
    return keras.Model(image, K.Dense(4)(K.GlobalAveragePooling2D()(x)))


def _series(m: Any, x: torch.Tensor) -> torch.Tensor:
    return m.head(m.memory(F.relu(m.conv(x)).transpose(1, 2))[0][:, -1])


def series(call: Callable[..., torch.Tensor] = _series) -> nn.Module:
    return Lambda(
        call, conv=nn.Conv1d(6, 8, 3, padding=1), memory=nn.LSTM(8, 5, batch_first=True), head=nn.Linear(5, 2)
    )


def series_time_first() -> nn.Module:
    return series(lambda m, x: _series(m, x.transpose(1, 2)))


def series_keras() -> Any:
    return chain(K.Conv1D(8, 3, padding="same", activation="relu"), K.LSTM(5), K.Dense(2), shape=(None, 6))


class Subclassed(keras.Model):
    """A subclassed model with keras.ops and training arguments."""

    def __init__(self) -> None:
        super().__init__()
        self.conv = K.Conv2D(8, 3, padding="same")
        self.norm = K.BatchNormalization(epsilon=1e-5)
        self.drop = K.Dropout(0.5)
        self.head = K.Dense(3)

    def call(self, x: Any, training: bool | None = None) -> Any:  # noqa: FBT001  Keras's signature
        x = keras.ops.relu(self.norm(self.conv(x), training=training))
        x = keras.ops.reshape(x, (-1, 288))
        return self.head(self.drop(x, training=training))


def subclassed() -> nn.Module:
    return nn.Sequential(
        nn.Conv2d(3, 8, 3, padding=1),
        nn.BatchNorm2d(8),
        nn.ReLU(),
        nn.Flatten(),
        nn.Dropout(0.5),
        nn.Linear(288, 3),
    )


def mobile() -> nn.Module:
    return Lambda(
        lambda m, x: m.point(F.relu6(m.norm(m.depth(x)))).mean([2, 3]),
        depth=nn.Conv2d(4, 4, 3, padding=1, groups=4, bias=False),
        norm=nn.BatchNorm2d(4),
        point=nn.Conv2d(4, 6, 1, bias=False),
    )


def mobile_keras() -> Any:
    return chain(
        K.DepthwiseConv2D(3, padding="same", use_bias=False),
        K.BatchNormalization(epsilon=1e-5),
        K.ReLU(6.0),
        K.Conv2D(6, 1, use_bias=False),
        K.GlobalAveragePooling2D(),
        shape=(None, None, 4),
    )


def shared_keras() -> Any:
    x, dense = keras.Input((5,)), K.Dense(5)
    return keras.Model(x, dense(K.ReLU()(dense(x))))


def nested_keras() -> Any:
    inner = keras.Sequential([K.Conv2D(8, 3), K.ReLU()])
    return chain(K.Rescaling(4.0, offset=-2.0), inner, K.Flatten(), K.Dense(3), shape=(6, 6, 3))


PAIRS: dict[str, Pair] = {
    "u-net": (u_net, u_net_keras, (1, 1, 16, 16)),
    "decoder: dense features become an image": (decoder, decoder_keras, (1, 20)),
    "transformer encoder": (transformer, transformer_keras, (1, 9)),
    "resnet stem with explicit padding": (resnet_stem, resnet_stem_keras, (1, 3, 32, 32)),
    "convolution and LSTM, channels first": (series, series_keras, (1, 6, 12)),
    "convolution and LSTM, time first": (series_time_first, series_keras, (1, 12, 6)),
    "subclassed Keras model": (subclassed, Subclassed, (1, 3, 6, 6)),
    "mobile block": (mobile, mobile_keras, (1, 4, 9, 9)),
    "one layer used twice": (
        lambda: Lambda(lambda m, x: m.dense(torch.relu(m.dense(x))), dense=nn.Linear(5, 5)),
        shared_keras,
        (1, 5),
    ),
    "normalised input and a nested model": (
        lambda: Lambda(
            lambda m, x: m.head(torch.relu(m.conv((x - 0.5) / 0.25)).flatten(1)),
            conv=nn.Conv2d(3, 8, 3),
            head=nn.Linear(128, 3),
        ),
        nested_keras,
        (1, 3, 6, 6),
    ),
}


SLOW = {"u-net", "convolution and LSTM, channels first"}
"""A network of the catalogue is one, and the other has a twin that reads time first; both are in each run."""


@pytest.mark.one_in(4)
@pytest.mark.parametrize(
    "turned", [False, pytest.param(True, marks=pytest.mark.slow)], ids=["torch first", "keras first"]
)
@pytest.mark.parametrize(
    "name", [pytest.param(name, marks=pytest.mark.slow if name in SLOW else ()) for name in PAIRS]
)
def test_found_and_proven(name: str, *, turned: bool) -> None:
    left, right, shape = PAIRS[name]
    generator = np.random.default_rng(0)
    normal = generator.standard_normal(shape).astype(np.float32)
    example = (generator.integers(0, 50, shape) if name == "transformer encoder" else normal,)
    reference, candidate = (right(), left()) if turned else (left(), right())
    schema, evidence = xbackend_fl.describe_reference(reference, example)
    assert xbackend_fl.bind(candidate, schema, example, evidence).proof.proven


def test_dense_features_used_as_image_and_as_vector_are_refused() -> None:
    code = keras.Input((20,))
    features = K.Dense(168)(code)
    image = K.GlobalAveragePooling2D()(K.Reshape((7, 6, 4))(features))
    model = keras.Model(code, K.Concatenate()([image, K.Dense(2)(features)]))
    other = decoder()
    example = (np.zeros((1, 20), np.float32),)
    with pytest.raises((UnsupportedError, MismatchError)):
        xbackend_fl.bind(model, xbackend_fl.describe(other, example), example)
