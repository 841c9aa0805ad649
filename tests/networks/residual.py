"""Residual networks: two styles of down-sampling, written by hand for Keras and taken from its applications."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import keras
from keras import layers as K
from torch import nn

from tests.networks.network import Network, images, torchvision_models


def _norm(x: Any) -> Any:
    return K.BatchNormalization(epsilon=1e-5, momentum=0.9)(x)


def _conv(x: Any, filters: int, kernel: int, strides: int = 1) -> Any:
    if kernel > 1:
        x = K.ZeroPadding2D(kernel // 2)(x)
    return _norm(K.Conv2D(filters, kernel, strides=strides, use_bias=False)(x))


def _basic(x: Any, width: int, strides: int) -> Any:
    y = _conv(K.ReLU()(_conv(x, width, 3, strides)), width, 3)
    if strides > 1 or x.shape[-1] != width:
        x = _conv(x, width, 1, strides)
    return K.ReLU()(K.Add()([y, x]))


def _bottleneck(x: Any, width: int, strides: int) -> Any:
    y = K.ReLU()(_conv(x, width, 1))
    y = _conv(K.ReLU()(_conv(y, width, 3, strides)), 4 * width, 1)
    if strides > 1 or x.shape[-1] != 4 * width:
        x = _conv(x, 4 * width, 1, strides)
    return K.ReLU()(K.Add()([x, y]))


def keras_resnet(block: Any, depths: Sequence[int]) -> Any:
    """As torchvision draws it."""
    image = keras.Input((None, None, 3))
    x = K.ReLU()(_conv(image, 64, 7, 2))
    x = K.MaxPooling2D(3, strides=2)(K.ZeroPadding2D(1)(x))
    for stage, depth in enumerate(depths):
        for index in range(depth):
            x = block(x, 64 << stage, 2 if stage and not index else 1)
    return keras.Model(image, K.Dense(10)(K.GlobalAveragePooling2D()(x)))


def resnet18_keras() -> Any:
    return keras_resnet(_basic, (2, 2, 2, 2))


def resnet50_keras() -> Any:
    return keras_resnet(_bottleneck, (3, 4, 6, 3))


def resnet18() -> nn.Module:
    return torchvision_models().resnet18(num_classes=10)


def resnet50() -> nn.Module:
    return torchvision_models().resnet50(num_classes=10)


def applications_resnet50() -> Any:
    return keras.applications.ResNet50(
        weights=None, input_shape=(64, 64, 3), classes=10, classifier_activation=None
    )


def resnet50_as_in_applications() -> nn.Module:
    """Biases in the convolutions, the stride in the first one of a block, another epsilon."""
    model = resnet50()
    for module in model.modules():
        if isinstance(module, nn.BatchNorm2d):
            module.eps = 1.001e-5
        if isinstance(module, nn.Conv2d):
            module.bias = nn.Parameter(module.weight.new_zeros(module.out_channels))
        if hasattr(module, "conv3"):
            module.conv1.stride, module.conv2.stride = module.conv2.stride, (1, 1)
    return model


NETWORKS = (
    Network("ResNet-18", resnet18, resnet18_keras, images((1, 3, 64, 64))),
    Network("ResNet-50", resnet50, resnet50_keras, images((1, 3, 64, 64))),
    Network(
        "ResNet-50, stride first", resnet50_as_in_applications, applications_resnet50, images((1, 3, 64, 64))
    ),
    Network(
        "ResNet-50, torchvision against applications",
        resnet50,
        applications_resnet50,
        images((1, 3, 64, 64)),
        same=False,
    ),
)
