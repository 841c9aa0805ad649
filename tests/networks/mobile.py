"""Networks of depthwise convolutions: MobileNets, EfficientNet, Xception, ConvNeXt."""

from __future__ import annotations

from functools import partial
from typing import Any

import keras
import torch
from keras import layers as K
from torch import nn
from torch.nn import functional as F

from tests.networks.network import (
    Network,
    images,
    torchvision_models,
    with_epsilon,
    with_uneven_padding,
)

_APPLICATION: dict[str, Any] = {"weights": None, "classes": 10, "classifier_activation": None}


def mobilenet_v2() -> nn.Module:
    return with_uneven_padding(with_epsilon(torchvision_models().mobilenet_v2(num_classes=10), 1e-3))


def mobilenet_v2_keras() -> Any:
    return keras.applications.MobileNetV2(input_shape=(64, 64, 3), **_APPLICATION)


def mobilenet_v3() -> nn.Module:
    return with_uneven_padding(torchvision_models().mobilenet_v3_small(num_classes=10))


def mobilenet_v3_keras() -> Any:
    return keras.applications.MobileNetV3Small(
        input_shape=(64, 64, 3), include_preprocessing=False, **_APPLICATION
    )


def efficientnet() -> nn.Module:
    return torchvision_models().efficientnet_b0(num_classes=10)


def _conv_norm(x: Any, filters: int, kernel: int, strides: int = 1, *, act: bool = True) -> Any:
    if kernel > 1:
        x = K.ZeroPadding2D(kernel // 2)(x)
    x = K.BatchNormalization(epsilon=1e-5, momentum=0.9)(
        K.Conv2D(filters, kernel, strides=strides, use_bias=False)(x)
    )
    return K.Activation("silu")(x) if act else x


def _inverted(x: Any, filters: int, expand: int, kernel: int, strides: int) -> Any:
    width = x.shape[-1]
    y = _conv_norm(x, width * expand, 1) if expand > 1 else x
    y = K.ZeroPadding2D(kernel // 2)(y)
    y = K.DepthwiseConv2D(kernel, strides=strides, use_bias=False)(y)
    y = K.Activation("silu")(K.BatchNormalization(epsilon=1e-5, momentum=0.9)(y))
    gate = K.GlobalAveragePooling2D(keepdims=True)(y)
    gate = K.Conv2D(max(1, width // 4), 1, activation="silu")(gate)
    y = K.Multiply()([y, K.Conv2D(width * expand, 1, activation="sigmoid")(gate)])
    y = _conv_norm(y, filters, 1, act=False)
    return K.Add()([y, x]) if strides == 1 and width == filters else y


def efficientnet_keras() -> Any:
    image = keras.Input((None, None, 3))
    x = _conv_norm(image, 32, 3, 2)
    rows = [(1, 3, 1, 16, 1), (6, 3, 2, 24, 2), (6, 5, 2, 40, 2), (6, 3, 2, 80, 3), (6, 5, 1, 112, 3),
            (6, 5, 2, 192, 4), (6, 3, 1, 320, 1)]  # fmt: skip
    for expand, kernel, strides, filters, repeats in rows:
        for index in range(repeats):
            x = _inverted(x, filters, expand, kernel, strides if not index else 1)
    x = K.GlobalAveragePooling2D()(_conv_norm(x, 1280, 1))
    return keras.Model(image, K.Dense(10)(K.Dropout(0.2)(x)))


def applications_efficientnet() -> Any:
    return keras.applications.EfficientNetB0(input_shape=(64, 64, 3), **_APPLICATION)


class Separable(nn.Sequential):
    """A depthwise and a pointwise convolution with normalisation."""

    def __init__(self, inputs: int, outputs: int) -> None:
        super().__init__(
            nn.Conv2d(inputs, inputs, 3, padding=1, groups=inputs, bias=False),
            nn.Conv2d(inputs, outputs, 1, bias=False),
            nn.BatchNorm2d(outputs, eps=1e-3),
        )


def _same_max_pool(x: torch.Tensor) -> torch.Tensor:
    low, high = ((0, 1) if n % 2 == 0 else (1, 1) for n in x.shape[2:])
    return F.max_pool2d(F.pad(x, (*high, *low), value=float("-inf")), 3, 2)


class XceptionBlock(nn.Module):
    def __init__(self, inputs: int, middle: int, outputs: int, *, first: bool = True) -> None:
        super().__init__()
        self.first = first
        self.skip = nn.Sequential(
            nn.Conv2d(inputs, outputs, 1, 2, bias=False), nn.BatchNorm2d(outputs, eps=1e-3)
        )
        self.one, self.two = Separable(inputs, middle), Separable(middle, outputs)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        y = self.one(F.relu(x) if self.first else x)
        return _same_max_pool(self.two(F.relu(y))) + self.skip(x)


class XceptionMiddle(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.steps = nn.ModuleList(Separable(728, 728) for _ in range(3))

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        y = x
        for step in self.steps:
            y = step(F.relu(y))
        return y + x


def xception() -> nn.Module:
    norm = partial(nn.BatchNorm2d, eps=1e-3)
    return nn.Sequential(
        nn.Conv2d(3, 32, 3, 2, bias=False), norm(32), nn.ReLU(),
        nn.Conv2d(32, 64, 3, bias=False), norm(64), nn.ReLU(),
        XceptionBlock(64, 128, 128, first=False), XceptionBlock(128, 256, 256), XceptionBlock(256, 728, 728),
        *(XceptionMiddle() for _ in range(8)),
        XceptionBlock(728, 728, 1024),
        Separable(1024, 1536), nn.ReLU(), Separable(1536, 2048), nn.ReLU(),
        nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(2048, 10),
    )  # fmt: skip


def xception_keras() -> Any:
    return keras.applications.Xception(input_shape=(75, 75, 3), **_APPLICATION)


def convnext() -> nn.Module:
    return torchvision_models().convnext_tiny(num_classes=10)


def convnext_keras() -> Any:
    return keras.applications.ConvNeXtTiny(
        input_shape=(64, 64, 3), include_preprocessing=False, **_APPLICATION
    )


NETWORKS = (
    Network("MobileNetV2", mobilenet_v2, mobilenet_v2_keras, images((1, 3, 64, 64))),
    Network("MobileNetV3-Small", mobilenet_v3, mobilenet_v3_keras, images((1, 3, 64, 64))),
    Network("EfficientNet-B0", efficientnet, efficientnet_keras, images((1, 3, 64, 64))),
    Network("Xception", xception, xception_keras, images((1, 3, 75, 75))),
    Network("ConvNeXt-Tiny", convnext, convnext_keras, images((1, 3, 64, 64))),
    Network(
        "EfficientNet-B0, torchvision against applications",
        efficientnet,
        applications_efficientnet,
        images((1, 3, 64, 64)),
        same=False,
    ),
)
