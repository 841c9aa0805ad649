"""Pairs of models, one per row of the conversion catalogue, each written as its framework's users write it."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import keras
import torch
from keras import layers as K
from torch import nn
from torch.nn import functional as F

from tests.adapters.row import IMAGE, SERIES, VOLUME, Lambda, Row, chain
from tests.adapters.sequences import attention_rows, recurrent_rows


def _flat_keras() -> Any:
    image = keras.Input((4, 6, 3))
    x = K.Conv2D(5, 3, padding="same")(image)
    x = K.BatchNormalization(epsilon=1e-5)(K.Flatten()(x))
    return keras.Model(image, K.Dense(2)(x))


def _two_branches_keras() -> Any:
    image = keras.Input((6, 6, 4))
    left = K.Flatten()(K.Conv2D(3, 3)(image))
    right = K.Flatten()(K.Conv2D(2, 2)(image))
    return keras.Model(image, K.Dense(2)(K.Concatenate()([left, right])))


def _squeeze_excite(module: Any, x: torch.Tensor) -> torch.Tensor:
    y = module.conv(x)
    gate = torch.sigmoid(module.up(torch.relu(module.down(y.mean((2, 3))))))
    return module.head((y * gate[:, :, None, None]).mean((2, 3)))


def _squeeze_excite_keras() -> Any:
    image = keras.Input(IMAGE)
    y = K.Conv2D(6, 3, padding="same")(image)
    gate = K.Dense(6, activation="sigmoid")(K.Dense(2, activation="relu")(K.GlobalAveragePooling2D()(y)))
    y = K.Multiply()([y, K.Reshape((1, 1, 6))(gate)])
    return keras.Model(image, K.Dense(2)(K.GlobalAveragePooling2D()(y)))


def _residual(module: Any, x: torch.Tensor) -> torch.Tensor:
    y = module.b(torch.relu(module.a(x)))
    return module.head(torch.relu(y + module.short(x)).mean((2, 3)))


def _residual_keras() -> Any:
    image = keras.Input(IMAGE)
    y = K.Conv2D(4, 3, padding="same", name="second")(
        K.Conv2D(4, 3, padding="same", activation="relu", name="first")(image)
    )
    y = K.Add()([K.Conv2D(4, 1, name="shortcut")(image), y])
    y = K.GlobalAveragePooling2D()(K.Activation("relu")(y))
    return keras.Model(image, K.Dense(2)(y))


def _conv_rows() -> list[Row]:
    return [
        Row(
            "Conv1D",
            lambda: nn.Conv1d(4, 6, 3, padding=1),
            lambda: chain(K.Conv1D(6, 3, padding="same"), shape=SERIES),
            (1, 4, 9),
        ),
        Row(
            "Conv1D causal and dilated",
            lambda: nn.Sequential(nn.ConstantPad1d((4, 0), 0.0), nn.Conv1d(4, 6, 3, dilation=2)),
            lambda: chain(K.Conv1D(6, 3, padding="causal", dilation_rate=2), shape=SERIES),
            (1, 4, 9),
        ),
        Row(
            "Conv2D valid, stride 2",
            lambda: nn.Conv2d(4, 6, 3, stride=2),
            lambda: chain(K.Conv2D(6, 3, strides=2), shape=IMAGE),
            (1, 4, 9, 8),
        ),
        Row(
            "Conv2D groups",
            lambda: nn.Conv2d(4, 6, 3, groups=2, padding="same"),
            lambda: chain(K.Conv2D(6, 3, groups=2, padding="same"), shape=IMAGE),
            (1, 4, 8, 8),
        ),
        Row(
            "Conv2D uneven SAME by explicit padding",
            lambda: nn.Sequential(nn.ZeroPad2d((0, 1, 0, 1)), nn.Conv2d(4, 6, 3, stride=2)),
            lambda: keras.Sequential([keras.Input((8, 8, 4)), K.Conv2D(6, 3, strides=2, padding="same")]),
            (1, 4, 8, 8),
        ),
        Row(
            "Conv3D",
            lambda: nn.Conv3d(4, 5, 3, padding=1),
            lambda: chain(K.Conv3D(5, 3, padding="same"), shape=VOLUME),
            (1, 4, 5, 6, 7),
        ),
        Row(
            "DepthwiseConv2D with multiplier 3",
            lambda: nn.Conv2d(4, 12, 3, groups=4),
            lambda: chain(K.DepthwiseConv2D(3, depth_multiplier=3), shape=IMAGE),
            (1, 4, 8, 8),
        ),
        Row(
            "DepthwiseConv1D",
            lambda: nn.Conv1d(4, 8, 3, groups=4),
            lambda: chain(K.DepthwiseConv1D(3, depth_multiplier=2), shape=SERIES),
            (1, 4, 9),
        ),
        Row(
            "SeparableConv2D",
            lambda: nn.Sequential(nn.Conv2d(4, 8, 3, groups=4, bias=False, padding=1), nn.Conv2d(8, 5, 1)),
            lambda: chain(K.SeparableConv2D(5, 3, depth_multiplier=2, padding="same"), shape=IMAGE),
            (1, 4, 8, 8),
        ),
        Row(
            "Conv2DTranspose k2s2 same",
            lambda: nn.ConvTranspose2d(4, 6, 2, stride=2),
            lambda: chain(K.Conv2DTranspose(6, 2, strides=2, padding="same"), shape=IMAGE),
            (1, 4, 5, 6),
        ),
        Row(
            "Conv2DTranspose k4s2 same",
            lambda: nn.ConvTranspose2d(4, 6, 4, stride=2, padding=1),
            lambda: chain(K.Conv2DTranspose(6, 4, strides=2, padding="same"), shape=IMAGE),
            (1, 4, 5, 6),
        ),
        Row(
            "Conv2DTranspose k5s3 same",
            lambda: nn.ConvTranspose2d(4, 6, 5, stride=3, padding=1),
            lambda: chain(K.Conv2DTranspose(6, 5, strides=3, padding="same"), shape=IMAGE),
            (1, 4, 5, 6),
        ),
        Row(
            "Conv2DTranspose k2s3 same",
            lambda: nn.ConvTranspose2d(4, 6, 2, stride=3, output_padding=1),
            lambda: chain(K.Conv2DTranspose(6, 2, strides=3, padding="same"), shape=IMAGE),
            (1, 4, 5, 6),
        ),
        Row(
            "Conv1DTranspose valid",
            lambda: nn.ConvTranspose1d(4, 6, 3, stride=2),
            lambda: chain(K.Conv1DTranspose(6, 3, strides=2), shape=SERIES),
            (1, 4, 7),
        ),
        Row(
            "Conv3DTranspose valid",
            lambda: nn.ConvTranspose3d(4, 5, 2, stride=2),
            lambda: chain(K.Conv3DTranspose(5, 2, strides=2), shape=VOLUME),
            (1, 4, 3, 4, 5),
        ),
        Row(
            "average pooling SAME without counting the padding",
            lambda: nn.Sequential(
                nn.Conv2d(4, 5, 1), nn.AvgPool2d(3, stride=1, padding=1, count_include_pad=False)
            ),
            lambda: chain(K.Conv2D(5, 1), K.AveragePooling2D(3, strides=1, padding="same"), shape=IMAGE),
            (1, 4, 8, 8),
        ),
        Row(
            "upsampling nearest and bilinear",
            lambda: nn.Sequential(
                nn.Upsample(scale_factor=2),
                nn.Conv2d(4, 5, 3),
                nn.Upsample(scale_factor=2, mode="bilinear"),
            ),
            lambda: chain(
                K.UpSampling2D(2),
                K.Conv2D(5, 3),
                K.UpSampling2D(2, interpolation="bilinear"),
                shape=(5, 6, 4),
            ),
            (1, 4, 5, 6),
        ),
    ]


def _dense_rows() -> list[Row]:
    return [
        Row(
            "Dense, square",
            lambda: nn.Sequential(nn.Linear(4, 4), nn.Tanh(), nn.Linear(4, 4)),
            lambda: chain(K.Dense(4, activation="tanh"), K.Dense(4), shape=(4,)),
            (1, 4),
        ),
        Row(
            "Dense on sequences",
            lambda: nn.Sequential(nn.Linear(4, 5), nn.GELU(), nn.Linear(5, 2)),
            lambda: chain(K.Dense(5, activation="gelu"), K.Dense(2), shape=(None, 4)),
            (1, 6, 4),
        ),
        Row(
            "EinsumDense",
            lambda: nn.Linear(4, 6),
            lambda: chain(K.EinsumDense("abc,cd->abd", (None, 6), bias_axes="d"), shape=(5, 4)),
            (1, 5, 4),
        ),
        Row(
            "Embedding",
            lambda: nn.Sequential(nn.Embedding(20, 6), nn.Flatten(), nn.Linear(30, 3)),
            lambda: chain(K.Embedding(20, 6), K.Flatten(), K.Dense(3), shape=(5,), dtype="int64"),
            (1, 5),
            vocabulary=20,
        ),
        Row(
            "flatten order through BatchNorm",
            lambda: nn.Sequential(
                nn.Conv2d(3, 5, 3, padding=1), nn.Flatten(), nn.BatchNorm1d(120), nn.Linear(120, 2)
            ),
            _flat_keras,
            (1, 3, 4, 6),
        ),
        Row(
            "two flattened branches concatenated",
            lambda: Lambda(
                lambda m, x: m.head(torch.cat([m.a(x).flatten(1), m.b(x).flatten(1)], 1)),
                a=nn.Conv2d(4, 3, 3),
                b=nn.Conv2d(4, 2, 2),
                head=nn.Linear(3 * 16 + 2 * 25, 2),
            ),
            _two_branches_keras,
            (1, 4, 6, 6),
        ),
        Row(
            "residual",
            lambda: Lambda(
                _residual,
                a=nn.Conv2d(4, 4, 3, padding=1),
                b=nn.Conv2d(4, 4, 3, padding=1),
                short=nn.Conv2d(4, 4, 1),
                head=nn.Linear(4, 2),
            ),
            _residual_keras,
            (1, 4, 7, 7),
        ),
        Row(
            "squeeze and excite",
            lambda: Lambda(
                _squeeze_excite,
                conv=nn.Conv2d(4, 6, 3, padding=1),
                down=nn.Linear(6, 2),
                up=nn.Linear(2, 6),
                head=nn.Linear(6, 2),
            ),
            _squeeze_excite_keras,
            (1, 4, 8, 8),
        ),
    ]


def _norm_rows() -> list[Row]:
    return [
        Row(
            "BatchNorm1d on features",
            lambda: nn.Sequential(nn.Linear(4, 6), nn.BatchNorm1d(6, momentum=0.01)),
            lambda: chain(K.Dense(6), K.BatchNormalization(epsilon=1e-5), shape=(4,)),
            (1, 4),
        ),
        Row(
            "BatchNorm2d with Keras defaults",
            lambda: nn.Sequential(nn.Conv2d(4, 6, 3), nn.BatchNorm2d(6, eps=1e-3, momentum=0.01)),
            lambda: chain(K.Conv2D(6, 3), K.BatchNormalization(), shape=IMAGE),
            (1, 4, 8, 8),
        ),
        Row(
            "BatchNorm without scale and shift",
            lambda: nn.Sequential(nn.Conv2d(4, 6, 3), nn.BatchNorm2d(6, affine=False)),
            lambda: chain(
                K.Conv2D(6, 3), K.BatchNormalization(epsilon=1e-5, scale=False, center=False), shape=IMAGE
            ),
            (1, 4, 8, 8),
        ),
        Row(
            "BatchNorm3d",
            lambda: nn.Sequential(nn.Conv3d(4, 5, 2), nn.BatchNorm3d(5)),
            lambda: chain(K.Conv3D(5, 2), K.BatchNormalization(epsilon=1e-5), shape=VOLUME),
            (1, 4, 4, 5, 6),
        ),
        Row(
            "LayerNorm",
            lambda: nn.Sequential(nn.Linear(4, 6), nn.LayerNorm(6)),
            lambda: chain(K.Dense(6), K.LayerNormalization(epsilon=1e-5), shape=(None, 4)),
            (1, 5, 4),
        ),
        Row(
            "GroupNorm",
            lambda: nn.Sequential(nn.Conv2d(4, 6, 3), nn.GroupNorm(3, 6)),
            lambda: chain(K.Conv2D(6, 3), K.GroupNormalization(3, epsilon=1e-5), shape=IMAGE),
            (1, 4, 8, 8),
        ),
        Row(
            "InstanceNorm",
            lambda: nn.Sequential(nn.Conv2d(4, 6, 3), nn.InstanceNorm2d(6, affine=True)),
            lambda: chain(K.Conv2D(6, 3), K.GroupNormalization(-1, epsilon=1e-5), shape=IMAGE),
            (1, 4, 8, 8),
        ),
        Row(
            "InstanceNorm without affine",
            lambda: nn.Sequential(nn.Conv2d(4, 6, 3), nn.InstanceNorm2d(6)),
            lambda: chain(
                K.Conv2D(6, 3),
                K.GroupNormalization(-1, epsilon=1e-5, scale=False, center=False),
                shape=IMAGE,
            ),
            (1, 4, 8, 8),
        ),
        Row(
            "PReLU per channel",
            lambda: nn.Sequential(nn.Conv2d(4, 6, 3), nn.PReLU(6)),
            lambda: chain(K.Conv2D(6, 3), K.PReLU(shared_axes=[1, 2]), shape=IMAGE),
            (1, 4, 8, 8),
        ),
        Row(
            "PReLU on features",
            lambda: nn.Sequential(nn.Linear(4, 6), nn.PReLU(6)),
            lambda: chain(K.Dense(6), K.PReLU(), shape=(4,)),
            (1, 4),
        ),
    ]


def _activation_rows() -> list[Row]:
    pairs: list[tuple[str, Callable[[], nn.Module], Callable[[], Any]]] = [
        ("ReLU6", nn.ReLU6, lambda: K.ReLU(6.0)),
        ("LeakyReLU", lambda: nn.LeakyReLU(0.3), lambda: K.LeakyReLU(negative_slope=0.3)),
        ("ELU", lambda: nn.ELU(0.7), lambda: K.ELU(0.7)),
        ("SELU", nn.SELU, lambda: K.Activation("selu")),
        ("softplus", nn.Softplus, lambda: K.Activation("softplus")),
        ("SiLU", nn.SiLU, lambda: K.Activation("silu")),
        ("Mish", nn.Mish, lambda: K.Activation("mish")),
        ("hard sigmoid", nn.Hardsigmoid, lambda: K.Activation("hard_sigmoid")),
        ("hard swish", nn.Hardswish, lambda: K.Activation("hard_silu")),
        ("GELU", nn.GELU, lambda: K.Activation("gelu")),
        ("softmax", lambda: nn.Softmax(1), K.Softmax),
    ]
    return [
        Row(
            name,
            lambda t=theirs: nn.Sequential(nn.Conv2d(4, 6, 3), t(), nn.Conv2d(6, 2, 1)),
            lambda k=ours: chain(K.Conv2D(6, 3), k(), K.Conv2D(2, 1), shape=IMAGE),
            (1, 4, 7, 8),
        )
        for name, theirs, ours in pairs
    ]


ROWS = [
    *_conv_rows(),
    *_dense_rows(),
    *_norm_rows(),
    *_activation_rows(),
    *recurrent_rows(),
    *attention_rows(),
]


class TiedTorch(nn.Module):
    """An embedding whose rows also score the output."""

    def __init__(self) -> None:
        super().__init__()
        self.embedding = nn.Embedding(20, 6)
        self.score = nn.Linear(6, 20, bias=False)
        self.score.weight = self.embedding.weight

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return self.score(F.relu(self.embedding(x)).mean(1))
