"""Convolutional networks: attention of channels, pyramids, padding and cropping by hand, channels first by hand."""

from __future__ import annotations

from typing import Any

import keras
import tensorflow as tf
import torch
from keras import layers as K
from keras import ops
from torch import Tensor, nn
from torch.nn import functional as F

from tests.networks.textbook.pair import IMAGE, Pair, draws, floats
from tests.networks.textbook.truth import (
    batch_norm,
    conv,
    dense,
    depthwise,
    moved,
    same,
    several,
)


class SqueezeExcite(nn.Module):
    """Squeeze and excite with linear layers, behind a residual block."""

    def __init__(self) -> None:
        super().__init__()
        self.conv, self.bn = nn.Conv2d(3, 8, 3, padding=1, bias=False), nn.BatchNorm2d(8)
        self.fc = nn.Sequential(nn.Linear(8, 4), nn.ReLU(), nn.Linear(4, 8), nn.Sigmoid())
        self.head = nn.Linear(8, 3)

    def forward(self, x: Tensor) -> Tensor:
        x = F.relu(self.bn(self.conv(x)))
        weight = self.fc(x.mean(dim=(2, 3)))
        x = x + x * weight[:, :, None, None]
        return self.head(F.adaptive_avg_pool2d(x, 1).flatten(1))


def squeeze_excite_keras(*, gate: str = "sigmoid", residual: bool = True, epsilon: float = 1e-5) -> Any:
    """The same with convolutions of one pixel."""
    image = keras.Input((7, 9, 3))
    x = K.Conv2D(8, 3, padding="same", use_bias=False, name="conv")(image)
    x = K.ReLU()(K.BatchNormalization(epsilon=epsilon, name="bn")(x))
    weight = K.Conv2D(4, 1, activation="relu", name="squeeze")(K.GlobalAveragePooling2D(keepdims=True)(x))
    y = K.Multiply()([x, K.Conv2D(8, 1, activation=gate, name="excite")(weight)])
    y = K.Add()([y, x]) if residual else y
    return keras.Model(image, K.Dense(3, name="head")(K.GlobalAveragePooling2D()(y)))


def one_pixel(value: Any) -> Any:
    return value.T[None, None]


SQUEEZE = Pair(
    "squeeze and excite", "convolutional", SqueezeExcite, squeeze_excite_keras, draws(floats(2, 3, 7, 9)),
    conv("conv", "conv", bias=False) | batch_norm("bn", "bn") | dense("head", "head")
    | moved("fc.0.weight", "squeeze/kernel", one_pixel) | same("fc.0.bias", "squeeze/bias")
    | moved("fc.2.weight", "excite/kernel", one_pixel) | same("fc.2.bias", "excite/bias"),
    inputs={0: IMAGE},
)  # fmt: skip


class Cbam(nn.Module):
    """Attention of channels by mean and maximum, then of places."""

    def __init__(self) -> None:
        super().__init__()
        self.stem = nn.Conv2d(3, 8, 3)
        self.mlp = nn.Sequential(nn.Conv2d(8, 2, 1, bias=False), nn.ReLU(), nn.Conv2d(2, 8, 1, bias=False))
        self.spatial = nn.Conv2d(2, 1, 7, padding=3, bias=False)

    def forward(self, x: Tensor) -> Tensor:
        x = self.stem(x)
        x = x * torch.sigmoid(self.mlp(F.adaptive_avg_pool2d(x, 1)) + self.mlp(F.adaptive_max_pool2d(x, 1)))
        places = torch.cat([x.mean(1, keepdim=True), x.max(1, keepdim=True)[0]], dim=1)
        return x * torch.sigmoid(self.spatial(places))


def cbam_keras(*, shared: bool = True, best: bool = True) -> Any:
    image = keras.Input((8, 8, 3))
    x = K.Conv2D(8, 3, name="stem")(image)
    down, up = K.Dense(2, "relu", use_bias=False, name="down"), K.Dense(8, use_bias=False, name="up")
    mean, most = up(down(K.GlobalAveragePooling2D()(x))), up(down(K.GlobalMaxPooling2D()(x)))
    gate = K.Activation("sigmoid")(K.Add()([mean, most]) if shared else mean)
    x = K.Multiply()([x, K.Reshape((1, 1, 8))(gate)])
    top = ops.max(x, axis=-1, keepdims=True) if best else ops.min(x, axis=-1, keepdims=True)
    places = K.Concatenate()([ops.mean(x, axis=-1, keepdims=True), top])
    return keras.Model(
        image, x * K.Conv2D(1, 7, padding="same", activation="sigmoid", use_bias=False, name="places")(places)
    )


def from_pixel(value: Any) -> Any:
    return value[:, :, 0, 0].T


CBAM = Pair(
    "CBAM", "convolutional", Cbam, cbam_keras, draws(floats(2, 3, 8, 8)),
    conv("stem", "stem") | conv("spatial", "places", bias=False)
    | moved("mlp.0.weight", "down/kernel", from_pixel) | moved("mlp.2.weight", "up/kernel", from_pixel),
    inputs={0: IMAGE}, outputs={0: IMAGE},
)  # fmt: skip


class EfficientChannels(nn.Module):
    """A convolution along the channels, on their means; then the hard sigmoid's gate."""

    def __init__(self) -> None:
        super().__init__()
        self.inner, self.conv = nn.Conv2d(3, 6, 3, 2, 1), nn.Conv1d(1, 1, 3, padding=1, bias=False)

    def forward(self, x: Tensor) -> Tensor:
        x = F.hardswish(self.inner(x))
        y = self.conv(x.mean((2, 3)).unsqueeze(1)).transpose(1, 2).unsqueeze(-1)
        return x * F.hardsigmoid(y)


def efficient_keras(*, gate: str = "hard_sigmoid", side: str = "both") -> Any:
    image = keras.Input((9, 7, 3))
    pads = {"both": ((1, 1), (1, 1)), "front": ((2, 0), (2, 0))}[side]
    x = K.Conv2D(6, 3, strides=2, name="inner")(K.ZeroPadding2D(pads)(image))
    x = x * ops.relu6(x + 3.0) / 6.0
    y = K.Conv1D(1, 3, padding="same", use_bias=False, name="across")(
        K.Reshape((6, 1))(K.GlobalAveragePooling2D()(x))
    )
    return keras.Model(image, K.Multiply()([x, K.Reshape((1, 1, 6))(K.Activation(gate)(y))]))


EFFICIENT = Pair(
    "ECA and hard swish", "convolutional", EfficientChannels, efficient_keras, draws(floats(2, 3, 9, 7)),
    conv("inner", "inner") | conv("conv", "across", bias=False), inputs={0: IMAGE}, outputs={0: IMAGE},
)  # fmt: skip


class Pyramid(nn.Module):
    """A feature pyramid of three levels, with names."""

    def __init__(self) -> None:
        super().__init__()
        self.c1, self.c2, self.c3 = (
            nn.Conv2d(3, 6, 3, 2, 1),
            nn.Conv2d(6, 8, 3, 2, 1),
            nn.Conv2d(8, 10, 3, 2, 1),
        )
        self.lateral = nn.ModuleList(nn.Conv2d(width, 5, 1) for width in (6, 8, 10))
        self.smooth = nn.ModuleList(nn.Conv2d(5, 5, 3, padding=1) for _ in range(3))

    def forward(self, x: Tensor) -> dict[str, Tensor]:
        c1 = F.relu(self.c1(x))
        c2 = F.relu(self.c2(c1))
        c3 = F.relu(self.c3(c2))
        p3 = self.lateral[2](c3)
        p2 = self.lateral[1](c2) + F.interpolate(p3, scale_factor=2, mode="nearest")
        p1 = self.lateral[0](c1) + F.interpolate(p2, size=c1.shape[-2:], mode="nearest")
        return {"p1": self.smooth[0](p1), "p2": self.smooth[1](p2), "p3": self.smooth[2](p3)}


def pyramid_keras(*, resize: str = "nearest", padding: str = "symmetric") -> Any:
    image = keras.Input((16, 16, 3))
    steps, x = [], image
    for i, width in enumerate((6, 8, 10)):
        x = K.ZeroPadding2D(1)(x) if padding == "symmetric" else K.ZeroPadding2D(((0, 1), (0, 1)))(x)
        x = K.Conv2D(width, 3, 2, activation="relu", name=f"down_{i}")(x)
        steps.append(x)
    found, above = {}, None
    for i in (2, 1, 0):
        y = K.Conv2D(5, 1, name=f"side_{i}")(steps[i])
        above = y if above is None else K.Add()([K.UpSampling2D(2, interpolation=resize)(above), y])
        found[f"p{i + 1}"] = K.Conv2D(5, 3, padding="same", name=f"last_{i}")(above)
    return keras.Model(image, found)


PYRAMID = Pair(
    "feature pyramid", "convolutional", Pyramid, pyramid_keras, draws(floats(2, 3, 16, 16)),
    several(conv, "c1 down_0", "c2 down_1", "c3 down_2", *(f"lateral.{i} side_{i}" for i in range(3)))
    | several(conv, *(f"smooth.{i} last_{i}" for i in range(3))),
    inputs={0: IMAGE}, outputs={0: IMAGE, 1: IMAGE, 2: IMAGE},
)  # fmt: skip


class SameByHand(nn.Module):
    """TensorFlow's SAME at stride 2, spelled with ``F.pad``: one more below and on the right."""

    def __init__(self) -> None:
        super().__init__()
        self.first, self.dw, self.pw = (
            nn.Conv2d(3, 6, 3, 2),
            nn.Conv2d(6, 6, 5, 2, groups=6),
            nn.Conv2d(6, 4, 1),
        )
        self.bn = nn.BatchNorm2d(6, eps=1e-3)

    @staticmethod
    def pad(x: Tensor, kernel: int, stride: int) -> Tensor:
        height, width = x.shape[-2:]
        down = max((-(-height // stride) - 1) * stride + kernel - height, 0)
        right = max((-(-width // stride) - 1) * stride + kernel - width, 0)
        return F.pad(x, [right // 2, right - right // 2, down // 2, down - down // 2])

    def forward(self, x: Tensor) -> Tensor:
        x = F.relu6(self.bn(self.first(self.pad(x, 3, 2))))
        x = F.max_pool2d(F.pad(x, (0, 1, 0, 1), value=float("-inf")), 2, 1)
        return self.pw(self.dw(self.pad(x, 5, 2)))


def same_keras(*, padding: str = "same", ceiling: float = 6.0) -> Any:
    image = keras.Input((12, 10, 3))
    first = image if padding == "same" else K.ZeroPadding2D(1)(image)
    x = K.Conv2D(6, 3, 2, padding="same" if padding == "same" else "valid", name="first")(first)
    x = K.ReLU(max_value=ceiling)(K.BatchNormalization(name="bn")(x))
    x = K.MaxPooling2D(2, 1, padding="same")(x)
    x = K.DepthwiseConv2D(5, 2, padding="same", name="deep")(x)
    return keras.Model(image, K.Conv2D(4, 1, name="point")(x))


SAME = Pair(
    "SAME by hand", "convolutional", SameByHand, same_keras, draws(floats(2, 3, 12, 10)),
    several(conv, "first first", "pw point") | depthwise("dw", "deep") | batch_norm("bn", "bn"),
    inputs={0: IMAGE}, outputs={0: IMAGE},
)  # fmt: skip


class Cropped(nn.Module):
    """Transposed convolutions whose rim is cut off."""

    def __init__(self) -> None:
        super().__init__()
        self.fc = nn.Linear(6, 8 * 3 * 3)
        self.up, self.last = (
            nn.ConvTranspose2d(8, 5, 4, 2),
            nn.ConvTranspose2d(5, 2, 3, 2, padding=1, output_padding=1),
        )

    def forward(self, z: Tensor) -> Tensor:
        x = F.leaky_relu(self.fc(z), 0.2).view(-1, 8, 3, 3)
        x = self.up(x)[:, :, 1:-1, 1:-1]
        return torch.tanh(self.last(F.leaky_relu(x, 0.2)))


def cropped_keras(*, slope: float = 0.2, crop: Any = ((1, 1), (1, 1))) -> Any:
    z = keras.Input((6,))
    x = K.Reshape((3, 3, 8))(K.LeakyReLU(slope)(K.Dense(72, name="start")(z)))
    if crop is None:
        x = K.Conv2DTranspose(5, 4, 2, padding="same", name="up")(x)
    else:
        x = K.Cropping2D(crop)(K.Conv2DTranspose(5, 4, 2, name="up")(x))
    x = K.Conv2DTranspose(2, 3, 2, name="last")(K.LeakyReLU(slope)(x))
    return keras.Model(z, K.Activation("tanh")(K.Cropping2D(((1, 0), (1, 0)))(x)))


def start(value: Any) -> Any:
    """``[8 * 3 * 3, 6]`` as ``[6, 3 * 3 * 8]``."""
    apart = value.reshape(8, 3, 3, -1).transpose(3, 1, 2, 0)
    return apart.reshape(-1, 72) if value.ndim > 1 else apart.ravel()


CROPPED = Pair(
    "crop behind transposed", "convolutional", Cropped, lambda: cropped_keras(crop=None), draws(floats(3, 6)),
    moved("fc.weight", "start/kernel", start) | moved("fc.bias", "start/bias", start) | several(conv, "up up", "last last"),
    outputs={0: IMAGE},
)  # fmt: skip


class Shuffle(nn.Module):
    """Sub-pixel convolution and its reverse."""

    def __init__(self) -> None:
        super().__init__()
        self.a, self.b, self.c = (
            nn.Conv2d(12, 6, 3, padding=1),
            nn.Conv2d(6, 6, 3, padding=1),
            nn.Conv2d(6, 12, 1),
        )

    def forward(self, x: Tensor) -> Tensor:
        x = torch.tanh(self.a(F.pixel_unshuffle(x, 2)))
        return F.pixel_shuffle(self.c(x + torch.tanh(self.b(x))), 2)


def shuffle_keras(*, activation: str = "tanh", by_hand: bool = False) -> Any:
    image = keras.Input((8, 6, 3))
    x = K.Lambda(lambda one: tf.nn.space_to_depth(one, 2), output_shape=(4, 3, 12))(image)
    x = K.Conv2D(6, 3, padding="same", activation=activation, name="a")(x)
    x = K.Add()([K.Conv2D(6, 3, padding="same", activation=activation, name="b")(x), x])
    x = K.Conv2D(12, 1, name="c")(x)
    if by_hand:
        x = K.Permute((1, 4, 2, 5, 3))(K.Reshape((4, 3, 3, 2, 2))(x))
        return keras.Model(image, K.Reshape((8, 6, 3))(x))
    return keras.Model(image, K.Lambda(lambda one: tf.nn.depth_to_space(one, 2), output_shape=(8, 6, 3))(x))


def depth_first(axis: int) -> Any:
    """Channels times four there, four times channels here."""

    def change(value: Any) -> Any:
        apart = value.reshape(*value.shape[:axis], 3, 4, *value.shape[axis + 1 :]).swapaxes(axis, axis + 1)
        moved_ = apart.reshape(value.shape)
        return moved_.transpose(2, 3, 1, 0) if value.ndim > 1 else moved_

    return change


SHUFFLE = Pair(
    "pixel shuffle, depth to space", "convolutional", Shuffle, shuffle_keras, draws(floats(2, 3, 8, 6)),
    conv("b", "b") | moved("a.weight", "a/kernel", depth_first(1)) | same("a.bias", "a/bias")
    | moved("c.weight", "c/kernel", depth_first(0)) | moved("c.bias", "c/bias", depth_first(0)),
    inputs={0: IMAGE}, outputs={0: IMAGE},
)  # fmt: skip


PAIRS = (
    SQUEEZE, CBAM, EFFICIENT, PYRAMID, SAME, CROPPED, SHUFFLE,
    Pair("crop spelled", "convolutional", Cropped, cropped_keras, CROPPED.example, CROPPED.truth, outputs={0: IMAGE}),
    Pair("pixel shuffle by hand", "convolutional", Shuffle, lambda: shuffle_keras(by_hand=True), SHUFFLE.example,
         SHUFFLE.truth | same("c.bias", "c/bias") | conv("c", "c"), inputs={0: IMAGE}, outputs={0: IMAGE}),
    SQUEEZE.alike("gate", {"Sigmoid", "HardSigmoid", "activation"}, keras=lambda: squeeze_excite_keras(gate="hard_sigmoid")),
    SQUEEZE.alike("no residual", {"Add", "residual"}, keras=lambda: squeeze_excite_keras(residual=False)),
    SQUEEZE.alike("epsilon", {"epsilon"}, keras=lambda: squeeze_excite_keras(epsilon=1e-1)),
    CBAM.alike("mean alone", {"Max", "Add", "missing"}, keras=lambda: cbam_keras(shared=False)),
    CBAM.alike("minimum", {"Min", "Max"}, keras=lambda: cbam_keras(best=False)),
    EFFICIENT.alike("padding in front", {"pad"}, keras=lambda: efficient_keras(side="front")),
    PYRAMID.alike("bilinear", {"bilinear", "linear", "nearest", "mode"}, keras=lambda: pyramid_keras(resize="bilinear")),
    PYRAMID.alike("padding behind", {"pad"}, keras=lambda: pyramid_keras(padding="behind")),
    SAME.alike("padding on both sides", {"pad"}, keras=lambda: same_keras(padding="symmetric")),
    SAME.alike("ceiling", {"Clip", "max", "constant"}, keras=lambda: same_keras(ceiling=2.0)),
    CROPPED.alike("cropped elsewhere", {"crop", "pad", "Slice"}, keras=lambda: cropped_keras(crop=((0, 2), (0, 2)))),
    CROPPED.alike("slope", {"slope", "alpha"}, keras=lambda: cropped_keras(slope=0.3)),
    SHUFFLE.alike("activation", {"Tanh", "Sigmoid", "activation"}, keras=lambda: shuffle_keras(activation="sigmoid")),
)  # fmt: skip
