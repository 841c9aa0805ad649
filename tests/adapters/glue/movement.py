"""What moves: turned round, repeated, picked by constants and by data, shuffled pixels, resized images, padded by hand."""

from __future__ import annotations

from typing import Any

import numpy as np
import tensorflow as tf
import torch
from keras import layers as K
from keras import ops
from torch import nn
from torch.nn import functional as F

from tests.adapters.glue.pair import Forward, Pair, Wrapped, ids, keras_model

_SERIES: dict[str, tuple[Any, Any]] = {
    "flip": (lambda x: x.flip(1), lambda x: ops.flip(x, 1)),
    "slice in reverse": (lambda x: torch.flip(x, [1]), lambda x: x[:, ::-1]),
    "roll": (lambda x: x.roll(2, 1), lambda x: ops.roll(x, 2, 1)),
    "roll back": (lambda x: torch.roll(x, (-1,), (1,)), lambda x: tf.roll(x, shift=-1, axis=1)),
    "repeat": (lambda x: x.repeat(1, 3, 1), lambda x: ops.tile(x, (1, 3, 1))),
    "repeat_interleave": (lambda x: x.repeat_interleave(2, dim=1), lambda x: ops.repeat(x, 2, axis=1)),
    "steps by constants": (lambda x: x[:, [0, 3, 1]], lambda x: tf.gather(x, [0, 3, 1], axis=1)),
    "features by constants": (
        lambda x: x[..., [5, 0, 2]],
        lambda x: ops.take(x, np.array([5, 0, 2]), axis=-1),
    ),
    "index_select": (
        lambda x: x.index_select(1, torch.tensor([4, 4, 0])),
        lambda x: ops.take(x, [4, 4, 0], 1),
    ),
    "narrow": (lambda x: x.narrow(1, 1, 3), lambda x: x[:, 1:4]),
    "unbind and stack": (
        lambda x: torch.stack(x.unbind(1)[1:], 1),
        lambda x: ops.stack(ops.unstack(x, axis=1)[1:], 1),
    ),
    "concatenation cut again": (
        lambda x: torch.cat([x, x.tanh()], -1)[..., 6:],
        lambda x: ops.split(ops.concatenate([x, ops.tanh(x)], -1), 2, axis=-1)[1],
    ),
    "stack and sum": (
        lambda x: torch.stack([x, x.tanh(), x.sigmoid()]).sum(0),
        lambda x: x + ops.tanh(x) + ops.sigmoid(x),
    ),
    "stack and mean": (lambda x: torch.stack([x, x.tanh()], -1).mean(-1), lambda x: (x + ops.tanh(x)) / 2),
    "two by two": (
        lambda x: x[:, ::2] + x[:, 1::2].mean(1, keepdim=True)[:, :1],
        lambda x: x[:, ::2] + ops.mean(x[:, 1::2], 1, keepdims=True),
    ),
    "broadcast": (
        lambda x: x.mean(1, keepdim=True).expand(-1, 5, -1) * x,
        lambda x: ops.broadcast_to(ops.mean(x, 1, keepdims=True), ops.shape(x)) * x,
    ),
    "diagonal": (
        lambda x: torch.diagonal(x @ x.mT, dim1=1, dim2=2),
        lambda x: tf.linalg.diag_part(ops.matmul(x, ops.swapaxes(x, 1, 2))),
    ),
    "moved axes": (lambda x: x.movedim(1, 2).mT, lambda x: ops.swapaxes(ops.moveaxis(x, 1, 2), 1, 2)),
    "differences": (lambda x: x[:, 1:] - x[:, :-1], lambda x: x[:, 1:, :] - x[:, :-1, :]),
    "one step": (lambda x: x.select(1, -2), lambda x: x[:, -2]),
}


def _series(name: str, one: Any, two: Any) -> Pair:
    def build() -> nn.Module:
        module = Forward(lambda m, x: m.b(one(m.a(x))), a=nn.Linear(4, 6), b=nn.LazyLinear(3))
        module(torch.zeros(1, 5, 4))
        return module

    return Pair(
        name,
        build,
        lambda: keras_model(lambda x: K.Dense(3)(Wrapped(lambda _, g: two(g))(K.Dense(6)(x))), (5, 4)),
        ((1, 5, 4),),
    )


_IMAGES: dict[str, tuple[Any, Any]] = {
    "resized by a fraction": (
        lambda x: F.interpolate(x, size=(9, 9), mode="bilinear", align_corners=False),
        lambda x: tf.image.resize(x, (9, 9)),
    ),
    "resized by a layer": (lambda x: F.interpolate(x, (12, 12)), K.Resizing(12, 12, interpolation="nearest")),
    "made smaller": (
        lambda x: F.interpolate(x, size=(3, 4), mode="bilinear"),
        lambda x: ops.image.resize(x, (3, 4)),
    ),
    "global pooling by max over axes": (
        lambda x: x.amax((2, 3), keepdim=True).expand(-1, -1, 6, 6) + x,
        lambda x: ops.max(x, (1, 2), keepdims=True) + x,
    ),
    "global pooling by a window": (
        lambda x: F.max_pool2d(x, 6) + x,
        lambda x: K.GlobalMaxPooling2D(keepdims=True)(x) + x,
    ),
    "max over channels": (
        lambda x: x * torch.sigmoid(x.max(1, keepdim=True)[0]),
        lambda x: x * ops.sigmoid(ops.max(x, -1, keepdims=True)),
    ),
    "pixel norm": (
        lambda x: x * torch.rsqrt((x**2).mean(1, keepdim=True) + 1e-8),
        lambda x: x / ops.sqrt(ops.mean(ops.square(x), -1, keepdims=True) + 1e-8),
    ),
    "mirrored": (lambda x: x.flip(3), tf.image.flip_left_right),
    "shifted windows": (lambda x: torch.roll(x, (-2, -2), (2, 3)), lambda x: ops.roll(x, (-2, -2), (1, 2))),
    "padded by hand": (
        lambda x: F.pad(x, (1, 1, 2, 0)),
        lambda x: ops.pad(x, ((0, 0), (2, 0), (1, 1), (0, 0))),
    ),
    "cropped": (lambda x: x[:, :, 1:-1, 2:5], K.Cropping2D(((1, 1), (2, 1)))),
    "channels in two parts": (
        lambda x: torch.cat([x[:, 2:], x[:, :2]], 1),
        lambda x: ops.concatenate([x[..., 2:], x[..., :2]], -1),
    ),
}


def _image(name: str, one: Any, two: Any) -> Pair:
    return Pair(
        name,
        lambda: Forward(lambda m, x: m.b(one(m.a(x))), a=nn.Conv2d(3, 4, 3, padding=1), b=nn.Conv2d(4, 2, 1)),
        lambda: keras_model(
            lambda x: K.Conv2D(2, 1)(_applied(two, K.Conv2D(4, 3, padding="same")(x))), (6, 6, 3)
        ),
        ((1, 3, 6, 6),),
    )


def _applied(two: Any, x: Any) -> Any:
    return two(x) if isinstance(two, K.Layer) else Wrapped(lambda _, given: two(given))(x)


def _shuffles() -> list[Pair]:
    def up_keras(x: Any) -> Any:
        y = K.Conv2D(12, 3, padding="same", activation="tanh")(x)
        return K.Conv2D(2, 3, padding="same")(K.Lambda(lambda t: tf.nn.depth_to_space(t, 2))(y))

    def down_keras(x: Any) -> Any:
        y = K.Lambda(lambda t: tf.nn.space_to_depth(t, 2))(K.Conv2D(3, 3, padding="same")(x))
        return K.Conv2D(4, 3, padding="same")(y)

    return [
        Pair(
            "pixel shuffle",
            lambda: nn.Sequential(
                nn.Conv2d(3, 12, 3, padding=1), nn.Tanh(), nn.PixelShuffle(2), nn.Conv2d(3, 2, 3, padding=1)
            ),
            lambda: keras_model(up_keras, (6, 6, 3)),
            ((1, 3, 6, 6),),
        ),
        Pair(
            "pixel unshuffle",
            lambda: nn.Sequential(
                nn.Conv2d(3, 3, 3, padding=1), nn.PixelUnshuffle(2), nn.Conv2d(12, 4, 3, padding=1)
            ),
            lambda: keras_model(down_keras, (6, 6, 3)),
            ((1, 3, 6, 6),),
        ),
    ]


def _convolutions() -> list[Pair]:
    def chomp(m: Any, x: torch.Tensor) -> torch.Tensor:
        return m.b(torch.relu(m.a(x)[:, :, :-4].contiguous()))[..., :-2]

    def causal(x: Any) -> Any:
        y = K.Conv1D(6, 3, dilation_rate=2, padding="causal", activation="relu")(x)
        return K.Conv1D(2, 3, padding="causal")(y)

    def same_keras(x: Any) -> Any:
        return K.Conv2D(2, 3, padding="same", strides=2)(x)

    def last_torch(m: Any, x: torch.Tensor, lengths: torch.Tensor) -> torch.Tensor:
        y = m.a(x)
        return m.b(y[torch.arange(x.shape[0]), lengths])

    def last_keras(x: Any, lengths: Any) -> Any:
        y = K.Dense(6)(x)
        return K.Dense(3)(Wrapped(lambda _, a, b: tf.gather(a, b, axis=1, batch_dims=1))(y, lengths))

    return [
        Pair(
            "chomp behind a padded convolution",
            lambda: Forward(
                chomp,
                a=nn.Conv1d(4, 6, 3, padding=4, dilation=2),
                b=nn.Conv1d(6, 2, 3, padding=2),
            ),
            lambda: keras_model(causal, (9, 4)),
            ((1, 4, 9),),
        ),
        Pair(
            "SAME by hand",
            lambda: Forward(lambda m, x: m.c(F.pad(x, (0, 1, 0, 1))), c=nn.Conv2d(3, 2, 3, stride=2)),
            lambda: keras_model(same_keras, (8, 8, 3)),
            ((1, 3, 8, 8),),
        ),
        Pair(
            "a step that data picks",
            lambda: Forward(last_torch, a=nn.Linear(4, 6), b=nn.Linear(6, 3)),
            lambda: keras_model(last_keras, (5, 4), ((), "int64")),
            ((1, 5, 4), ids(1, below=5)),
        ),
        Pair(
            "one hot",
            lambda: Forward(lambda m, i: m.a(F.one_hot(i, 9).float()), a=nn.Linear(9, 3)),
            lambda: keras_model(lambda i: K.Dense(3)(ops.one_hot(i, 9)), ((5,), "int64")),
            (ids(1, 5),),
        ),
    ]


PAIRS: list[Pair] = [
    *(_series(name, *both) for name, both in _SERIES.items()),
    *(_image(name, *both) for name, both in _IMAGES.items()),
    *_shuffles(),
    *_convolutions(),
]
