"""Other convolutional networks: DenseNet, Inception, VGG, U-Net, a generator, WaveNet, LEAF's CNN, ConvLSTM."""

from __future__ import annotations

from types import SimpleNamespace
from typing import Any

import keras
import torch
from keras import layers as K
from torch import nn
from torch.nn import functional as F

from tests.networks.network import Network, images, torchvision_models, with_epsilon

_APPLICATION: dict[str, Any] = {"weights": None, "classes": 10, "classifier_activation": None}


def densenet() -> nn.Module:
    return with_epsilon(torchvision_models().densenet121(num_classes=10), 1.001e-5)


def densenet_keras() -> Any:
    return keras.applications.DenseNet121(input_shape=(64, 64, 3), **_APPLICATION)


def inception() -> nn.Module:
    """As in Keras: no scale in the normalisations, padding does not count in the averages."""
    module = torchvision_models().inception
    module.F = SimpleNamespace(
        **{name: getattr(F, name) for name in ("relu", "max_pool2d", "adaptive_avg_pool2d")},
        avg_pool2d=lambda x, **options: F.avg_pool2d(x, count_include_pad=False, **options),
    )
    model = torchvision_models().inception_v3(num_classes=10, aux_logits=False, init_weights=False)
    for layer in model.modules():
        if isinstance(layer, nn.BatchNorm2d):
            layer.weight = None
    return model


def inception_keras() -> Any:
    return keras.applications.InceptionV3(input_shape=(107, 107, 3), **_APPLICATION)


def vgg() -> nn.Module:
    model = torchvision_models().vgg16(num_classes=10)
    model.avgpool, model.classifier[0] = nn.Identity(), nn.Linear(512 * 2 * 2, 4096)
    return model


def vgg_keras() -> Any:
    return keras.applications.VGG16(input_shape=(64, 64, 3), **_APPLICATION)


class UNet(nn.Module):
    """The decoder is registered before the encoder."""

    def __init__(self, *, skip_first: bool) -> None:
        super().__init__()
        self.skip_first = skip_first
        self.ups = nn.ModuleList(nn.ConvTranspose2d(2 * w, w, 2, stride=2) for w in (16, 8))
        self.decoder = nn.ModuleList(self.block(2 * w, w) for w in (16, 8))
        self.encoder = nn.ModuleList([self.block(3, 8), self.block(8, 16)])
        self.bottom, self.head = self.block(16, 32), nn.Conv2d(8, 2, 1)

    @staticmethod
    def block(inputs: int, outputs: int) -> nn.Module:
        return nn.Sequential(
            nn.Conv2d(inputs, outputs, 3, padding=1), nn.BatchNorm2d(outputs), nn.ReLU(),
            nn.Conv2d(outputs, outputs, 3, padding=1), nn.BatchNorm2d(outputs), nn.ReLU(),
        )  # fmt: skip

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        skips = []
        for block in self.encoder:
            x = block(x)
            skips.append(x)
            x = F.max_pool2d(x, 2)
        x = self.bottom(x)
        for up, block, skip in zip(self.ups, self.decoder, reversed(skips), strict=True):
            pair = [skip, up(x)]
            x = block(torch.cat(pair if self.skip_first else pair[::-1], 1))
        return self.head(x)


def _unet_block(x: Any, filters: int) -> Any:
    for _ in range(2):
        x = K.Conv2D(filters, 3, padding="same")(x)
        x = K.ReLU()(K.BatchNormalization(epsilon=1e-5)(x))
    return x


def unet_keras(*, skip_first: bool) -> Any:
    image = keras.Input((None, None, 3))
    a = _unet_block(image, 8)
    b = _unet_block(K.MaxPooling2D()(a), 16)
    x = _unet_block(K.MaxPooling2D()(b), 32)
    for skip, filters in ((b, 16), (a, 8)):
        pair = [skip, K.Conv2DTranspose(filters, 2, strides=2)(x)]
        x = _unet_block(K.Concatenate()(pair if skip_first else pair[::-1]), filters)
    return keras.Model(image, K.Conv2D(2, 1)(x))


def generator() -> nn.Module:
    layers: list[nn.Module] = [nn.Unflatten(1, (20, 1, 1)), nn.ConvTranspose2d(20, 32, 4, bias=False)]
    for inputs, outputs in ((32, 16), (16, 8)):
        layers += [
            nn.BatchNorm2d(inputs),
            nn.ReLU(),
            nn.ConvTranspose2d(inputs, outputs, 4, 2, 1, bias=False),
        ]
    return nn.Sequential(*layers, nn.BatchNorm2d(8), nn.ReLU(), nn.ConvTranspose2d(8, 3, 4, 2, 1), nn.Tanh())


def generator_keras() -> Any:
    code = keras.Input((20,))
    x = K.Conv2DTranspose(32, 4, use_bias=False)(K.Reshape((1, 1, 20))(code))
    for filters in (16, 8):
        x = K.ReLU()(K.BatchNormalization(epsilon=1e-5)(x))
        x = K.Conv2DTranspose(filters, 4, strides=2, padding="same", use_bias=False)(x)
    x = K.ReLU()(K.BatchNormalization(epsilon=1e-5)(x))
    return keras.Model(code, K.Conv2DTranspose(3, 4, strides=2, padding="same", activation="tanh")(x))


class WaveNet(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.embed = nn.Conv1d(4, 16, 1)
        self.filters = nn.ModuleList(nn.Conv1d(16, 32, 2, dilation=2**i) for i in range(4))
        self.residuals = nn.ModuleList(nn.Conv1d(16, 16, 1) for _ in range(4))
        self.skips = nn.ModuleList(nn.Conv1d(16, 24, 1) for _ in range(4))
        self.head = nn.Conv1d(24, 4, 1)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        x, total = self.embed(x), torch.zeros(())
        for i, (layer, residual, skip) in enumerate(
            zip(self.filters, self.residuals, self.skips, strict=True)
        ):
            a, b = layer(F.pad(x, (2**i, 0))).chunk(2, 1)
            gated = torch.tanh(a) * torch.sigmoid(b)
            total = skip(gated) if not i else total + skip(gated)
            x = x + residual(gated)
        return self.head(F.relu(total))


def wavenet_keras() -> Any:
    """Two convolutions where the PyTorch model has one with twice the channels."""
    series = keras.Input((None, 4))
    x, skips = K.Conv1D(16, 1)(series), []
    for i in range(4):
        a = K.Conv1D(16, 2, padding="causal", dilation_rate=2**i, activation="tanh")(x)
        b = K.Conv1D(16, 2, padding="causal", dilation_rate=2**i, activation="sigmoid")(x)
        gated = K.Multiply()([a, b])
        skips.append(K.Conv1D(24, 1)(gated))
        x = K.Add()([x, K.Conv1D(16, 1)(gated)])
    return keras.Model(series, K.Conv1D(4, 1)(K.ReLU()(K.Add()(skips))))


def leaf() -> nn.Module:
    """FederatedScope's ConvNet2 without batch normalisation."""
    return nn.Sequential(
        nn.Conv2d(1, 32, 5, padding=2), nn.ReLU(), nn.MaxPool2d(2),
        nn.Conv2d(32, 64, 5, padding=2), nn.ReLU(), nn.MaxPool2d(2),
        nn.Flatten(), nn.Linear(7 * 7 * 64, 2048), nn.ReLU(), nn.Linear(2048, 62),
    )  # fmt: skip


def leaf_keras() -> Any:
    """LEAF's CNN: the image arrives flat."""
    flat = keras.Input((784,))
    x = K.Reshape((28, 28, 1))(flat)
    for filters in (32, 64):
        x = K.MaxPooling2D()(K.Conv2D(filters, 5, padding="same", activation="relu")(x))
    return keras.Model(flat, K.Dense(62)(K.Dense(2048, activation="relu")(K.Flatten()(x))))


def leaf_flat() -> nn.Module:
    return nn.Sequential(nn.Unflatten(1, (1, 28, 28)), *leaf())


class ConvLSTM(nn.Module):
    """One convolution of input and state together, gates in the order i, f, o, g."""

    def __init__(self) -> None:
        super().__init__()
        self.cell, self.head = nn.Conv2d(3 + 8, 4 * 8, 3, padding=1), nn.Conv2d(8, 2, 1)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        batch, steps, _, height, width = x.shape
        h, c = (torch.zeros(batch, 8, height, width) for _ in range(2))
        for step in range(steps):
            i, f, o, g = self.cell(torch.cat([x[:, step], h], 1)).chunk(4, 1)
            c = torch.sigmoid(f) * c + torch.sigmoid(i) * torch.tanh(g)
            h = torch.sigmoid(o) * torch.tanh(c)
        return self.head(h)


def conv_lstm_keras() -> Any:
    video = keras.Input((5, 8, 8, 3))
    return keras.Model(video, K.Conv2D(2, 1)(K.ConvLSTM2D(8, 3, padding="same")(video)))


NETWORKS = (
    Network("DenseNet-121", densenet, densenet_keras, images((1, 3, 64, 64))),
    Network("InceptionV3", inception, inception_keras, images((1, 3, 107, 107))),
    Network("VGG-16", vgg, vgg_keras, images((1, 3, 64, 64))),
    Network("U-Net", lambda: UNet(skip_first=True), lambda: unet_keras(skip_first=True), images((1, 3, 16, 16))),
    Network(
        "U-Net, other order", lambda: UNet(skip_first=False), lambda: unet_keras(skip_first=False),
        images((1, 3, 16, 16)),
    ),
    Network("DCGAN generator", generator, generator_keras, images((1, 20))),
    Network("WaveNet", WaveNet, wavenet_keras, images((1, 4, 24))),
    Network("FEMNIST CNN", leaf_flat, leaf_keras, images((1, 784))),
    Network("ConvLSTM", ConvLSTM, conv_lstm_keras, images((1, 5, 3, 8, 8))),
    Network(
        "U-Net, orders mixed", lambda: UNet(skip_first=True), lambda: unet_keras(skip_first=False),
        images((1, 3, 16, 16)), same=False,
    ),
)  # fmt: skip
