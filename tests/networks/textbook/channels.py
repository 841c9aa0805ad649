"""Norms and orders of channels: by hand, first, grouped, shuffled, modulated, in three dimensions."""

from __future__ import annotations

from typing import Any

import keras
import numpy as np
import tensorflow as tf
import torch
from keras import layers as K
from keras import ops
from torch import Tensor, nn
from torch.nn import functional as F

from tests.networks.textbook.pair import IMAGE, SERIES, VOLUME, Pair, draws, floats, uniform
from tests.networks.textbook.truth import (
    batch_norm,
    conv,
    dense,
    depthwise,
    flattened,
    moved,
    norm,
    same,
    several,
)


class ChannelsFirstNorm(nn.Module):
    """ConvNeXt's block: the norm over channels by hand, a scale for each."""

    def __init__(self) -> None:
        super().__init__()
        self.stem, self.dw = nn.Conv2d(3, 8, 2, 2), nn.Conv2d(8, 8, 7, padding=3, groups=8)
        self.weight, self.bias = nn.Parameter(torch.ones(8)), nn.Parameter(torch.zeros(8))
        self.up, self.down, self.gamma = nn.Linear(8, 16), nn.Linear(16, 8), nn.Parameter(torch.ones(8))
        self.norm, self.head = nn.LayerNorm(8, eps=1e-6), nn.Linear(8, 3)

    def forward(self, x: Tensor) -> Tensor:
        x = self.stem(x)
        mean = x.mean(1, keepdim=True)
        variance = (x - mean).pow(2).mean(1, keepdim=True)
        x = (x - mean) / torch.sqrt(variance + 1e-6)
        x = self.weight[:, None, None] * x + self.bias[:, None, None]
        y = self.norm(self.dw(x).permute(0, 2, 3, 1))
        y = (self.gamma * self.down(F.gelu(self.up(y)))).permute(0, 3, 1, 2)
        return self.head((x + y).mean([-2, -1]))


class LayerScale(K.Layer):
    def build(self, shape: Any) -> None:
        self.gamma = self.add_weight(shape=(shape[-1],), initializer="ones", name="gamma")

    def call(self, x: Any) -> Any:
        return x * self.gamma


def convnext_keras(*, scaled: bool = True, epsilon: float = 1e-6) -> Any:
    image = keras.Input((10, 10, 3))
    x = K.Conv2D(8, 2, 2, name="stem")(image)
    x = K.LayerNormalization(epsilon=epsilon, name="ln_stem")(x)
    y = K.DepthwiseConv2D(7, padding="same", name="dw")(x)
    y = K.Dense(16, "gelu", name="up")(K.LayerNormalization(epsilon=1e-6, name="ln")(y))
    y = K.Dense(8, name="down")(y)
    y = LayerScale(name="scale")(y) if scaled else y
    return keras.Model(image, K.Dense(3, name="head")(K.GlobalAveragePooling2D()(K.Add()([x, y]))))


CONVNEXT = Pair(
    "ConvNeXt, norm by hand", "channels", ChannelsFirstNorm, convnext_keras, draws(floats(2, 3, 10, 10)),
    conv("stem", "stem") | same("weight", "ln_stem/gamma") | same("bias", "ln_stem/beta") | depthwise("dw", "dw")
    | norm("norm", "ln") | several(dense, "up up", "down down", "head head") | same("gamma", "scale/gamma"),
    inputs={0: IMAGE},
)  # fmt: skip


class ChannelsFirst(nn.Module):
    """Nothing special; the Keras side says ``channels_first``."""

    def __init__(self) -> None:
        super().__init__()
        self.features = nn.Sequential(
            nn.Conv2d(3, 6, 3, padding=1), nn.BatchNorm2d(6, momentum=0.01), nn.PReLU(6), nn.MaxPool2d(2),
            nn.Conv2d(6, 8, 3), nn.GroupNorm(2, 8), nn.ELU(),
        )  # fmt: skip
        self.classifier = nn.Sequential(nn.Flatten(), nn.Linear(8 * 2 * 3, 4))

    def forward(self, x: Tensor) -> Tensor:
        return self.classifier(self.features(x))


def channels_first_keras(*, groups: int = 2, shared: Any = (2, 3)) -> Any:
    image = keras.Input((3, 8, 10))
    x = K.Conv2D(6, 3, padding="same", data_format="channels_first", name="c1")(image)
    x = K.BatchNormalization(axis=1, epsilon=1e-5, name="bn")(x)
    x = K.MaxPooling2D(data_format="channels_first")(K.PReLU(shared_axes=shared, name="prelu")(x))
    x = K.Conv2D(8, 3, data_format="channels_first", name="c2")(x)
    x = K.ELU()(K.GroupNormalization(groups, axis=1, epsilon=1e-5, name="gn")(x))
    return keras.Model(image, K.Dense(4, name="fc")(K.Flatten()(x)))


FIRST = Pair(
    "Keras with channels first", "channels", ChannelsFirst, channels_first_keras, draws(floats(2, 3, 8, 10)),
    several(conv, "features.0 c1", "features.4 c2") | batch_norm("features.1", "bn") | norm("features.5", "gn")
    | moved("features.2.weight", "prelu/alpha", lambda value: value[:, None, None]) | dense("classifier.1", "fc"),
)  # fmt: skip


class PlacePRelu(nn.Module):
    """A slope for each place and channel, as a raw parameter; a mean over maxima."""

    def __init__(self) -> None:
        super().__init__()
        self.conv, self.slope, self.fc = (
            nn.Conv2d(3, 4, 3),
            nn.Parameter(torch.zeros(4, 4, 5)),
            nn.Linear(80, 3),
        )

    def forward(self, x: Tensor) -> Tensor:
        x = self.conv(x)
        return self.fc((x.clamp(min=0) + self.slope * x.clamp(max=0)).flatten(1))


def place_keras(*, low: float = 0.0) -> Any:
    image = keras.Input((6, 7, 3))
    x = K.Conv2D(4, 3, name="conv")(image)
    x = K.PReLU(name="prelu")(x if not low else ops.maximum(x, low))
    return keras.Model(image, K.Dense(3, name="fc")(K.Flatten()(x)))


PLACE = Pair(
    "PReLU per place", "channels", PlacePRelu, place_keras, draws(floats(2, 3, 6, 7)),
    conv("conv", "conv") | moved("slope", "prelu/alpha", lambda value: value.transpose(1, 2, 0))
    | flattened("fc", "fc", 4, 4, 5), inputs={0: IMAGE},
)  # fmt: skip


class Inception(nn.Module):
    """Branches of several kinds, concatenated; the average counts no padding."""

    def __init__(self) -> None:
        super().__init__()
        self.b1, self.b3, self.b5, self.bp = (nn.Conv2d(4, 3, k, padding=k // 2) for k in (1, 3, 5, 1))

    def forward(self, x: Tensor) -> Tensor:
        pooled = F.avg_pool2d(x, 3, stride=1, padding=1, count_include_pad=False)
        return torch.cat(
            [F.relu(one) for one in (self.b1(x), self.b3(x), self.b5(x), self.bp(pooled))], dim=1
        )


def inception_keras(*, order: tuple[int, ...] = (0, 1, 2, 3), padded: bool = False) -> Any:
    image = keras.Input((6, 7, 4))
    if padded:
        pooled = K.AveragePooling2D(3, 1)(K.ZeroPadding2D(1)(image))
    else:
        pooled = K.AveragePooling2D(3, 1, padding="same")(image)
    each = [
        K.Conv2D(3, k, padding="same", name=name)(one)
        for name, k, one in (("one", 1, image), ("three", 3, image), ("five", 5, image), ("pool", 1, pooled))
    ]
    return keras.Model(image, K.ReLU()(K.Concatenate()([each[i] for i in order])))


INCEPTION = Pair(
    "inception", "channels", Inception, inception_keras, draws(floats(2, 4, 6, 7)),
    several(conv, "b1 one", "b3 three", "b5 five", "bp pool"), inputs={0: IMAGE}, outputs={0: IMAGE},
)  # fmt: skip


class Volume(nn.Module):
    """Three dimensions, a grouped convolution, instance norm by hand in Keras."""

    def __init__(self) -> None:
        super().__init__()
        self.c1, self.norm = nn.Conv3d(2, 4, 3, padding=1), nn.InstanceNorm3d(4, affine=True)
        self.c2, self.fc = nn.Conv3d(4, 4, 1, groups=2), nn.Linear(4, 2)

    def forward(self, x: Tensor) -> Tensor:
        x = self.c2(F.silu(self.norm(self.c1(x))))
        return self.fc(F.max_pool3d(x, 2).amax((-3, -2, -1)))


class InstanceNorm(K.Layer):
    def __init__(self, axes: tuple[int, ...], epsilon: float, **options: Any) -> None:
        super().__init__(**options)
        self.axes, self.epsilon = axes, epsilon

    def build(self, shape: Any) -> None:
        self.gamma = self.add_weight(shape=(shape[-1],), initializer="ones", name="gamma")
        self.beta = self.add_weight(shape=(shape[-1],), initializer="zeros", name="beta")

    def call(self, x: Any) -> Any:
        mean, variance = tf.nn.moments(x, self.axes, keepdims=True)
        return tf.nn.batch_normalization(x, mean, variance, self.beta, self.gamma, self.epsilon)


def volume_keras(*, epsilon: float = 1e-5, axes: tuple[int, ...] = (1, 2, 3)) -> Any:
    x = scan = keras.Input((4, 6, 4, 2))
    x = K.Activation("silu")(
        InstanceNorm(axes, epsilon, name="norm")(K.Conv3D(4, 3, padding="same", name="c1")(x))
    )
    x = K.GlobalMaxPooling3D()(K.Conv3D(4, 1, groups=2, name="c2")(x))
    return keras.Model(scan, K.Dense(2, name="fc")(x))


VOLUME_PAIR = Pair(
    "volumes, instance norm", "channels", Volume, volume_keras, draws(floats(2, 2, 4, 6, 4)),
    several(conv, "c1 c1", "c2 c2") | norm("norm", "norm") | dense("fc", "fc"), inputs={0: VOLUME},
)  # fmt: skip


class Modulated(nn.Module):
    """StyleGAN's convolution: a style scales the kernel, which is normalised; one batch as groups."""

    def __init__(self) -> None:
        super().__init__()
        self.weight, self.affine, self.bias = (
            nn.Parameter(torch.zeros(5, 4, 3, 3)),
            nn.Linear(6, 4),
            nn.Parameter(torch.zeros(5)),
        )

    def forward(self, x: Tensor, w: Tensor) -> Tensor:
        b, c, height, width = x.shape
        kernel = self.weight[None] * (self.affine(w) + 1)[:, None, :, None, None]
        kernel = kernel * torch.rsqrt(kernel.square().sum([2, 3, 4], keepdim=True) + 1e-8)
        x = F.conv2d(x.reshape(1, b * c, height, width), kernel.reshape(b * 5, c, 3, 3), padding=1, groups=b)
        return F.leaky_relu(x.view(b, 5, height, width) + self.bias[:, None, None], 0.2)


class KerasModulated(K.Layer):
    """The input is scaled instead, and the output."""

    def __init__(self, *, demodulated: bool = True) -> None:
        super().__init__(name="styled")
        self.demodulated, self.style = demodulated, K.Dense(4, bias_initializer="ones", name="style")

    def build(self, _: Any) -> None:
        self.kernel = self.add_weight(shape=(3, 3, 4, 5), name="kernel")
        self.bias = self.add_weight(shape=(5,), initializer="zeros", name="bias")

    def call(self, x: Any, w: Any) -> Any:
        style = self.style(w) + 1.0
        y = tf.nn.conv2d(x * style[:, None, None, :], self.kernel, 1, "SAME")
        if self.demodulated:
            power = tf.einsum("hwio,bi->bo", tf.square(self.kernel), tf.square(style))
            y *= tf.math.rsqrt(power + 1e-8)[:, None, None]
        return tf.nn.leaky_relu(y + self.bias, 0.2)


def modulated_keras(**options: Any) -> Any:
    image, style = keras.Input((6, 5, 4)), keras.Input((6,))
    return keras.Model([image, style], KerasModulated(**options)(image, style))


MODULATED = Pair(
    "modulated convolution", "channels", Modulated, modulated_keras, draws(floats(3, 4, 6, 5), floats(3, 6)),
    moved("weight", "styled/kernel", lambda value: value.transpose(2, 3, 1, 0)) | same("bias", "styled/bias")
    | dense("affine", "style"), inputs={0: IMAGE}, outputs={0: IMAGE},
)  # fmt: skip


class ShuffleUnit(nn.Module):
    """Half of the channels pass; then channels are shuffled."""

    def __init__(self) -> None:
        super().__init__()
        self.c1, self.dw, self.c2 = (
            nn.Conv2d(4, 4, 1),
            nn.Conv2d(4, 4, 3, padding=1, groups=4, bias=False),
            nn.Conv2d(4, 4, 1),
        )
        self.bn = nn.BatchNorm2d(4)

    def forward(self, x: Tensor) -> Tensor:
        rest, y = x.chunk(2, dim=1)
        y = F.relu(self.c2(self.bn(self.dw(F.relu(self.c1(y))))))
        x = torch.cat((rest, y), dim=1)
        return x.view(x.size(0), 2, 4, *x.shape[2:]).transpose(1, 2).flatten(1, 2)


def shuffle_unit_keras(*, groups: int = 2, first: int = 0) -> Any:
    image = keras.Input((5, 6, 8))
    halves = image[..., :4], image[..., 4:]
    y = K.Conv2D(4, 1, activation="relu", name="c1")(halves[1 - first])
    y = K.BatchNormalization(epsilon=1e-5, name="bn")(
        K.DepthwiseConv2D(3, padding="same", use_bias=False, name="dw")(y)
    )
    x = K.Concatenate()([halves[first], K.Conv2D(4, 1, activation="relu", name="c2")(y)])
    x = K.Reshape((5, 6, groups, 8 // groups))(x)
    return keras.Model(image, K.Reshape((5, 6, 8))(K.Permute((1, 2, 4, 3))(x)))


SHUFFLED = Pair(
    "shuffled channels", "channels", ShuffleUnit, shuffle_unit_keras, draws(floats(2, 8, 5, 6)),
    several(conv, "c1 c1", "c2 c2") | depthwise("dw", "dw", bias=False) | batch_norm("bn", "bn"),
    inputs={0: IMAGE}, outputs={0: IMAGE},
)  # fmt: skip


class WeightNorm(nn.Module):
    """Direction and length of a kernel apart, both raw; a standardised kernel behind it."""

    def __init__(self) -> None:
        super().__init__()
        self.v, self.g, self.b = (
            nn.Parameter(torch.zeros(6, 3, 3)),
            nn.Parameter(torch.ones(6, 1, 1)),
            nn.Parameter(torch.zeros(6)),
        )
        self.w = nn.Parameter(torch.zeros(4, 6, 3))

    def forward(self, x: Tensor) -> Tensor:
        kernel = self.g * self.v / self.v.norm(dim=(1, 2), keepdim=True)
        x = F.relu(F.conv1d(x, kernel, self.b, dilation=2))
        w = self.w - self.w.mean(dim=(1, 2), keepdim=True)
        return F.conv1d(x, w / (w.pow(2).mean((1, 2), keepdim=True) + 1e-5).sqrt())


class KerasWeightNorm(keras.Model):
    def __init__(self, *, epsilon: float = 1e-5) -> None:
        super().__init__()
        self.epsilon = epsilon
        self.v, self.w = (
            self.add_weight(shape=(3, 3, 6), name="v"),
            self.add_weight(shape=(3, 6, 4), name="w"),
        )
        self.g, self.b = self.add_weight(shape=(6,), name="g"), self.add_weight(shape=(6,), name="b")

    def call(self, inputs: Any) -> Any:
        kernel = tf.nn.l2_normalize(self.v, axis=[0, 1]) * self.g
        x = tf.nn.relu(tf.nn.conv1d(inputs, kernel, 1, "VALID", dilations=2) + self.b)
        mean, variance = tf.nn.moments(self.w, [0, 1])
        return tf.nn.conv1d(x, (self.w - mean) / tf.sqrt(variance + self.epsilon), 1, "VALID")


def along(value: Any) -> Any:
    return value.transpose(2, 1, 0)


WEIGHT_NORM = Pair(
    "weight norm, standardised weights", "channels", WeightNorm, KerasWeightNorm, draws(floats(2, 3, 11)),
    moved("v", "v", along) | moved("g", "g", np.ravel) | same("b", "b") | moved("w", "w", along),
    inputs={0: SERIES}, outputs={0: SERIES},
)  # fmt: skip


class Pixels(nn.Module):
    """Bytes go in: scaled, normalised by constants, clamped in two steps; coordinates are two more channels."""

    def __init__(self) -> None:
        super().__init__()
        self.register_buffer("mean", torch.tensor([0.485, 0.456, 0.406]).view(1, 3, 1, 1))
        self.register_buffer("std", torch.tensor([0.229, 0.224, 0.225]).view(1, 3, 1, 1))
        self.conv = nn.Conv2d(5, 4, 3)

    def forward(self, x: Tensor) -> Tensor:
        x = (x / 255.0 - self.mean) / self.std
        rows, columns = torch.linspace(-1, 1, 6).view(6, 1), torch.linspace(-1, 1, 8).view(1, 8)
        at = torch.stack([rows.expand(6, 8), columns.expand(6, 8)]).expand(x.size(0), -1, -1, -1)
        y = self.conv(torch.cat([x.clamp(min=-1.5).clamp(max=1.5), at], 1))
        return y.amax((2, 3))


def pixels_keras(*, high: float = 1.5, mean: float = 0.485) -> Any:
    image = keras.Input((6, 8, 3))
    x = K.Rescaling(1 / 255)(image)
    x = K.Normalization(mean=[mean, 0.456, 0.406], variance=[0.229**2, 0.224**2, 0.225**2])(x)
    grid = np.stack(np.meshgrid(np.linspace(-1, 1, 6), np.linspace(-1, 1, 8), indexing="ij"), -1).astype(
        "float32"
    )
    at = K.Lambda(lambda one: tf.tile(grid[None], [tf.shape(one)[0], 1, 1, 1]), output_shape=(6, 8, 2))(x)
    x = K.Concatenate()([ops.clip(x, -1.5, high), at])
    return keras.Model(image, K.GlobalMaxPooling2D()(K.Conv2D(4, 3, name="conv")(x)))


PIXELS = Pair(
    "preprocessing and coordinates", "channels", Pixels, pixels_keras, draws(uniform(0, 255, 2, 3, 6, 8)),
    conv("conv", "conv"), inputs={0: IMAGE},
)  # fmt: skip

PAIRS = (
    CONVNEXT, FIRST, PLACE, INCEPTION, VOLUME_PAIR, MODULATED, SHUFFLED, WEIGHT_NORM, PIXELS,
    CONVNEXT.alike("no scale of the layer", {"scale", "gamma", "Mul", "missing"}, keras=lambda: convnext_keras(scaled=False)),
    CONVNEXT.alike("epsilon", {"epsilon", "constant"}, keras=lambda: convnext_keras(epsilon=1e-1)),
    FIRST.alike("groups", {"group"}, keras=lambda: channels_first_keras(groups=4)),
    PLACE.alike("negative side missing", {"slope", "PRelu", "missing", "Max"}, keras=lambda: place_keras(low=-0.5)),
    INCEPTION.alike("order of branches", {"order", "Concat"}, keras=lambda: inception_keras(order=(0, 1, 3, 2))),
    INCEPTION.alike("padding counted", {"count_include_pad", "pad"}, keras=lambda: inception_keras(padded=True)),
    VOLUME_PAIR.alike("epsilon", {"epsilon", "constant"}, keras=lambda: volume_keras(epsilon=1e-1)),
    VOLUME_PAIR.alike("norm over two axes", {"axis", "axes"}, keras=lambda: volume_keras(axes=(1, 2))),
    MODULATED.alike("not demodulated", {"norm", "missing", "Rsqrt", "Mul"}, keras=lambda: modulated_keras(demodulated=False)),
    SHUFFLED.alike("shuffled by four", {"shape", "groups", "order"}, keras=lambda: shuffle_unit_keras(groups=4)),
    SHUFFLED.alike("the other half passes", {"Slice", "order", "split"}, keras=lambda: shuffle_unit_keras(first=1)),
    WEIGHT_NORM.alike("epsilon", {"epsilon", "constant"}, keras=lambda: KerasWeightNorm(epsilon=1e-1)),
    PIXELS.alike("ceiling", {"Clip", "max", "constant"}, keras=lambda: pixels_keras(high=1.0)),
    PIXELS.alike("mean of a channel", {"mean", "constant"}, keras=lambda: pixels_keras(mean=0.685)),
)  # fmt: skip
