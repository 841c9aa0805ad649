"""Images: segmentation in all its forms, detection, attention of places."""

from __future__ import annotations

from typing import Any

import keras
import numpy as np
import torch
from keras import layers as K
from keras import ops
from torch import Tensor, nn
from torch.nn import functional as F

from tests.networks.textbook.pair import IMAGE, Pair, draws, floats
from tests.networks.textbook.truth import (
    batch_norm,
    conv,
    depthwise,
    moved,
    several,
)


class UNet(nn.Module):
    """Three levels, unpadded convolutions, crops of the skips, transposed convolutions."""

    def __init__(self) -> None:
        super().__init__()
        self.down = nn.ModuleList(nn.Conv2d(a, b, 3) for a, b in ((2, 4), (4, 6)))
        self.middle, self.ups = (
            nn.Conv2d(6, 8, 3),
            nn.ModuleList(nn.ConvTranspose2d(a, b, 2, 2) for a, b in ((8, 6), (6, 4))),
        )
        self.up = nn.ModuleList(nn.Conv2d(a, b, 3) for a, b in ((12, 6), (8, 4)))
        self.last = nn.Conv2d(4, 2, 1)

    @staticmethod
    def crop(x: Tensor, like: Tensor) -> Tensor:
        high, wide = (x.size(2) - like.size(2)) // 2, (x.size(3) - like.size(3)) // 2
        return x[:, :, high : high + like.size(2), wide : wide + like.size(3)]

    def forward(self, x: Tensor) -> Tensor:
        skips = []
        for down in self.down:
            x = F.relu(down(x))
            skips.append(x)
            x = F.max_pool2d(x, 2)
        x = F.relu(self.middle(x))
        for widen, up in zip(self.ups, self.up, strict=True):
            x = widen(x)
            x = F.relu(up(torch.cat([self.crop(skips.pop(), x), x], dim=1)))
        return self.last(x)


def unet_keras(*, crops: tuple[int, int] = (1, 1)) -> Any:
    image = x = keras.Input((22, 22, 2))
    skips = []
    for i, width in enumerate((4, 6)):
        x = K.Conv2D(width, 3, activation="relu", name=f"down_{i}")(x)
        skips.append(x)
        x = K.MaxPooling2D()(x)
    x = K.Conv2D(8, 3, activation="relu", name="middle")(x)
    for i, width in enumerate((6, 4)):
        x = K.Conv2DTranspose(width, 2, strides=2, name=f"widen_{i}")(x)
        skip = skips[1 - i]
        less = skip.shape[1] - x.shape[1]
        low = less // 2 if crops[i] else 0
        x = K.Concatenate()([K.Cropping2D(((low, less - low), (low, less - low)))(skip), x])
        x = K.Conv2D(width, 3, activation="relu", name=f"up_{i}")(x)
    return keras.Model(image, K.Conv2D(2, 1, name="last")(x))


UNET = Pair(
    "U-Net with crops", "vision", UNet, unet_keras, draws(floats(2, 2, 22, 22)),
    several(conv, "down.0 down_0", "down.1 down_1", "middle middle", "ups.0 widen_0", "ups.1 widen_1")
    | several(conv, "up.0 up_0", "up.1 up_1", "last last"), inputs={0: IMAGE}, outputs={0: IMAGE},
)  # fmt: skip


class AttentionUNet(nn.Module):
    """A gate on the skip, from what comes from below."""

    def __init__(self, *, aligned: bool = False) -> None:
        super().__init__()
        self.aligned = aligned
        self.enc, self.mid = nn.Conv2d(3, 4, 3, padding=1), nn.Conv2d(4, 6, 3, stride=2, padding=1)
        self.wg, self.wx, self.psi = nn.Conv2d(6, 3, 1), nn.Conv2d(4, 3, 1, bias=False), nn.Conv2d(3, 1, 1)
        self.bg, self.dec = nn.BatchNorm2d(3), nn.Conv2d(10, 2, 3, padding=1)

    def forward(self, x: Tensor) -> Tensor:
        skip = F.relu(self.enc(x))
        g = F.interpolate(F.relu(self.mid(skip)), scale_factor=2, mode="bilinear", align_corners=self.aligned)
        gate = torch.sigmoid(self.psi(F.relu(self.bg(self.wg(g)) + self.wx(skip))))
        return torch.sigmoid(self.dec(torch.cat((g, skip * gate), 1)))


def attention_unet_keras(*, resize: str = "bilinear", pads: Any = 1, gated: bool = True) -> Any:
    image = keras.Input((8, 12, 3))
    skip = K.Conv2D(4, 3, padding="same", activation="relu", name="encode")(image)
    low = K.Conv2D(6, 3, 2, activation="relu", name="middle")(K.ZeroPadding2D(pads)(skip))
    g = K.UpSampling2D(2, interpolation=resize)(low)
    asked = K.BatchNormalization(epsilon=1e-5, name="bn")(K.Conv2D(3, 1, name="asked")(g))
    gate = K.ReLU()(K.Add()([K.Conv2D(3, 1, use_bias=False, name="offered")(skip), asked]))
    gate = K.Conv2D(1, 1, activation="sigmoid", name="gate")(gate)
    x = K.Concatenate()([g, K.Multiply()([skip, gate]) if gated else skip])
    return keras.Model(image, K.Conv2D(2, 3, padding="same", activation="sigmoid", name="decode")(x))


GATED = Pair(
    "attention U-Net", "vision", AttentionUNet, attention_unet_keras, draws(floats(2, 3, 8, 12)),
    several(conv, "enc encode", "mid middle", "wg asked", "psi gate", "dec decode") | conv("wx", "offered", bias=False)
    | batch_norm("bg", "bn"), inputs={0: IMAGE}, outputs={0: IMAGE},
)  # fmt: skip


class DeepLab(nn.Module):
    """Pyramid of dilations with the image's mean; decoder with low features; two outputs by name."""

    def __init__(self) -> None:
        super().__init__()
        self.low, self.high = nn.Conv2d(3, 5, 3, 2, 1), nn.Conv2d(5, 6, 3, 2, 1)
        self.one, self.rates = (
            nn.Conv2d(6, 4, 1),
            nn.ModuleList(nn.Conv2d(6, 4, 3, padding=r, dilation=r) for r in (2, 3)),
        )
        self.image, self.project, self.bn = (
            nn.Conv2d(6, 4, 1),
            nn.Conv2d(16, 4, 1, bias=False),
            nn.BatchNorm2d(4),
        )
        self.reduce, self.classifier, self.aux = (
            nn.Conv2d(5, 3, 1),
            nn.Conv2d(7, 2, 3, padding=1),
            nn.Conv2d(6, 2, 1),
        )

    def forward(self, x: Tensor) -> dict[str, Tensor]:
        size = x.shape[-2:]
        low = F.relu(self.low(x))
        high = F.relu(self.high(low))
        mean = F.relu(self.image(F.adaptive_avg_pool2d(high, 1)))
        mean = F.interpolate(mean, size=high.shape[-2:], mode="bilinear", align_corners=False)
        x = torch.cat([F.relu(self.one(high)), *(F.relu(rate(high)) for rate in self.rates), mean], dim=1)
        x = F.interpolate(
            F.relu(self.bn(self.project(x))), size=low.shape[-2:], mode="bilinear", align_corners=False
        )
        x = self.classifier(torch.cat([x, F.relu(self.reduce(low))], 1))
        return {"out": F.interpolate(x, size=size, mode="nearest"), "aux": self.aux(high)}


def deep_lab_keras(*, rates: tuple[int, int] = (2, 3), mean: bool = True, bn: float = 1e-5) -> Any:
    image = keras.Input((16, 16, 3))
    low = K.Conv2D(5, 3, 2, activation="relu", name="low")(K.ZeroPadding2D()(image))
    high = K.Conv2D(6, 3, 2, activation="relu", name="high")(K.ZeroPadding2D()(low))
    pooled = ops.mean(high, axis=(1, 2), keepdims=True) if mean else ops.max(high, axis=(1, 2), keepdims=True)
    parts = [K.Conv2D(4, 1, activation="relu", name="aspp_1")(high)]
    parts += [
        K.Conv2D(4, 3, padding="same", dilation_rate=r, activation="relu", name=f"aspp_{i}")(high)
        for i, r in zip((2, 3), rates, strict=True)
    ]
    parts.append(
        K.UpSampling2D(4, interpolation="bilinear")(K.Conv2D(4, 1, activation="relu", name="aspp_0")(pooled))
    )
    x = K.Conv2D(4, 1, use_bias=False, name="project")(K.Concatenate()(parts))
    x = K.UpSampling2D(2, interpolation="bilinear")(K.ReLU()(K.BatchNormalization(epsilon=bn, name="bn")(x)))
    x = K.Concatenate()([x, K.Conv2D(3, 1, activation="relu", name="reduce")(low)])
    x = K.UpSampling2D(2)(K.Conv2D(2, 3, padding="same", name="classify")(x))
    return keras.Model(image, {"out": x, "aux": K.Conv2D(2, 1, name="aux")(high)})


DEEP_LAB = Pair(
    "DeepLab", "vision", DeepLab, deep_lab_keras, draws(floats(2, 3, 16, 16)),
    several(conv, "low low", "high high", "one aspp_1", "rates.0 aspp_2", "rates.1 aspp_3", "image aspp_0", "reduce reduce")
    | several(conv, "classifier classify", "aux aux") | conv("project", "project", bias=False) | batch_norm("bn", "bn"),
    inputs={0: IMAGE}, outputs={0: IMAGE, 1: IMAGE},
)  # fmt: skip


class Detector(nn.Module):
    """One head on two maps, anchors in a row; boxes as centres and sizes behind a grid."""

    def __init__(self) -> None:
        super().__init__()
        self.c1, self.c2, self.head = (
            nn.Conv2d(3, 6, 3, 2, 1),
            nn.Conv2d(6, 6, 3, 2, 1),
            nn.Conv2d(6, 2 * 5, 1),
        )
        self.dw = nn.Conv2d(6, 6, 3, padding=1, groups=6)

    def forward(self, x: Tensor) -> Tensor:
        x = F.mish(self.c1(x))
        found = []
        for level in (x, F.mish(self.c2(x))):
            y = self.head(self.dw(level))
            b, _, h, w = y.shape
            y = y.view(b, 2, 5, h, w).permute(0, 3, 4, 1, 2)
            grid = torch.stack(torch.meshgrid(torch.arange(w), torch.arange(h), indexing="xy"), -1)[
                None, :, :, None
            ]
            centre = (y[..., :2].sigmoid() + grid) * (8 // h)
            found.append(torch.cat((centre, y[..., 2:4].clamp(max=4).exp(), y[..., 4:]), -1).view(b, -1, 5))
        return torch.cat(found, 1)


def detector_keras(*, swapped: bool = False, ceiling: float = 4.0) -> Any:
    image = keras.Input((8, 8, 3))
    deep, head = K.DepthwiseConv2D(3, padding="same", name="deep"), K.Conv2D(10, 1, name="head")
    x = K.Activation("mish")(K.Conv2D(6, 3, 2, name="c1")(K.ZeroPadding2D(1)(image)))
    found = []
    for level, size in (
        (x, 4),
        (K.Activation("mish")(K.Conv2D(6, 3, 2, name="c2")(K.ZeroPadding2D(1)(x))), 2),
    ):
        y = K.Reshape((size, size, 2, 5))(head(deep(level)))
        rows, columns = np.mgrid[:size, :size].astype("float32")
        grid = np.stack([rows, columns] if swapped else [columns, rows], -1)[:, :, None]
        centre = ops.multiply(ops.sigmoid(y[..., 0:2]) + grid, 8 // size)
        y = K.Concatenate()([centre, ops.exp(ops.minimum(y[..., 2:4], ceiling)), y[..., 4:5]])
        found.append(K.Reshape((-1, 5))(y))
    return keras.Model(image, K.Concatenate(axis=1)(found))


DETECTOR = Pair(
    "detection head on a grid", "vision", Detector, detector_keras, draws(floats(2, 3, 8, 8)),
    several(conv, "c1 c1", "c2 c2", "head head") | depthwise("dw", "deep"), inputs={0: IMAGE},
)  # fmt: skip


class NonLocal(nn.Module):
    """Attention over all places by one-pixel convolutions, a learned share of it."""

    def __init__(self) -> None:
        super().__init__()
        self.f, self.g, self.h = nn.Conv2d(6, 2, 1), nn.Conv2d(6, 2, 1), nn.Conv2d(6, 6, 1)
        self.gamma = nn.Parameter(torch.ones(1))

    def forward(self, x: Tensor) -> Tensor:
        b, c, w, h = x.size()
        f, g = self.f(x).view(b, -1, w * h).permute(0, 2, 1), self.g(x).view(b, -1, w * h)
        weight = torch.softmax(torch.bmm(f, g), dim=-1)
        out = torch.bmm(self.h(x).view(b, -1, w * h), weight.permute(0, 2, 1)).view(b, c, w, h)
        return self.gamma * out + x


class KerasNonLocal(K.Layer):
    def __init__(self, *, axis: int = -1) -> None:
        super().__init__(name="sagan")
        self.axis = axis
        self.f, self.g, self.h = (K.Conv2D(n, 1, name=name) for n, name in ((2, "f"), (2, "g"), (6, "h")))

    def build(self, _: Any) -> None:
        self.share = self.add_weight(shape=(), initializer="zeros", name="share")

    def call(self, x: Any) -> Any:
        score = ops.einsum("bijc,bklc->bijkl", self.f(x), self.g(x))
        shape = (-1, x.shape[1], x.shape[2], x.shape[1] * x.shape[2])
        weight = ops.softmax(ops.reshape(score, shape), axis=self.axis)
        values = ops.reshape(self.h(x), (-1, x.shape[1] * x.shape[2], 6))
        return x + self.share * ops.einsum("bijn,bnc->bijc", weight, values)


def non_local_keras(**options: Any) -> Any:
    image = keras.Input((4, 5, 6))
    return keras.Model(image, KerasNonLocal(**options)(image))


NON_LOCAL = Pair(
    "attention of places", "vision", NonLocal, non_local_keras, draws(floats(2, 6, 4, 5)),
    several(conv, "f f", "g g", "h h") | moved("gamma", "share", lambda value: value[0]), inputs={0: IMAGE}, outputs={0: IMAGE},
)  # fmt: skip


PAIRS = (
    UNET, GATED, DEEP_LAB, DETECTOR, NON_LOCAL,
    UNET.alike("cropped at the corner", {"crop", "Slice", "start"}, keras=lambda: unet_keras(crops=(1, 0))),
    GATED.alike("nearest for bilinear", {"bilinear", "linear", "nearest", "mode"}, keras=lambda: attention_unet_keras(resize="nearest")),
    GATED.alike("padding behind", {"pad"}, keras=lambda: attention_unet_keras(pads=((0, 1), (0, 1)))),
    GATED.alike("no gate", {"Mul", "missing", "unused"}, keras=lambda: attention_unet_keras(gated=False)),
    GATED.alike("align_corners", {"align_corners", "coordinate"}, torch=lambda: AttentionUNet(aligned=True)),
    DEEP_LAB.alike("dilation", {"dilation"}, keras=lambda: deep_lab_keras(rates=(2, 4))),
    DEEP_LAB.alike("maximum of the image", {"Max", "Mean", "pool"}, keras=lambda: deep_lab_keras(mean=False)),
    DETECTOR.alike("rows for columns", {"constant", "grid", "order"}, keras=lambda: detector_keras(swapped=True)),
    NON_LOCAL.alike("softmax over the other", {"axis"}, keras=lambda: non_local_keras(axis=2)),
)  # fmt: skip
