"""Tokens of images: windows that shift, mixers, gates along places, blocks between convolution and attention."""

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

from tests.networks.textbook.pair import IMAGE, Pair, draws, floats
from tests.networks.textbook.truth import (
    attention,
    conv,
    dense,
    from_heads,
    moved,
    norm,
    same,
    several,
    third,
)


class Swin(nn.Module):
    """A block with shifted windows: roll, partition, a bias of relative positions, a mask at the seam."""

    def __init__(self) -> None:
        super().__init__()
        self.norm1, self.qkv, self.proj = nn.LayerNorm(8), nn.Linear(8, 24), nn.Linear(8, 8)
        self.table = nn.Parameter(torch.zeros(9, 2))
        self.norm2, self.mlp = nn.LayerNorm(8), nn.Sequential(nn.Linear(8, 16), nn.GELU(), nn.Linear(16, 8))
        at = torch.stack(torch.meshgrid(torch.arange(2), torch.arange(2), indexing="ij")).flatten(1)
        apart = (at[:, :, None] - at[:, None, :]) + 1
        self.register_buffer("index", apart[0] * 3 + apart[1], persistent=False)
        region = torch.zeros(1, 4, 6, 1)
        for i, rows in enumerate((slice(0, -2), slice(-2, -1), slice(-1, None))):
            for j, columns in enumerate((slice(0, -2), slice(-2, -1), slice(-1, None))):
                region[:, rows, columns] = 3 * i + j
        windows = self.windows(region).squeeze(-1)
        mask = windows[:, None] - windows[:, :, None]
        self.register_buffer("mask", mask.masked_fill(mask != 0, -100.0), persistent=False)

    @staticmethod
    def windows(x: Tensor) -> Tensor:
        b, h, w, c = x.shape
        return x.view(b, h // 2, 2, w // 2, 2, c).permute(0, 1, 3, 2, 4, 5).reshape(-1, 4, c)

    def forward(self, x: Tensor) -> Tensor:
        x = x.permute(0, 2, 3, 1)
        b, h, w, c = x.shape
        y = self.windows(torch.roll(self.norm1(x), (-1, -1), dims=(1, 2)))
        q, k, v = self.qkv(y).reshape(-1, 4, 3, 2, 4).permute(2, 0, 3, 1, 4)
        score = (q * 0.5) @ k.transpose(-2, -1) + self.table[self.index.view(-1)].view(4, 4, 2).permute(
            2, 0, 1
        )
        score = (score.view(b, -1, 2, 4, 4) + self.mask[None, :, None]).view(-1, 2, 4, 4)
        y = self.proj((score.softmax(-1) @ v).transpose(1, 2).reshape(-1, 4, c))
        y = y.view(b, h // 2, w // 2, 2, 2, c).permute(0, 1, 3, 2, 4, 5).reshape(b, h, w, c)
        x = x + torch.roll(y, shifts=(1, 1), dims=(1, 2))
        return (x + self.mlp(self.norm2(x))).permute(0, 3, 1, 2)


class KerasSwin(keras.Model):
    """Windows keep axes of their own; query, key and value apart."""

    def __init__(self, *, shift: int = 1, biased: bool = True, masked: bool = True) -> None:
        super().__init__()
        self.shift, self.biased = shift, biased
        self.norms = [K.LayerNormalization(epsilon=1e-5, name=f"norm_{i}") for i in range(2)]
        self.q, self.k, self.v = (
            K.EinsumDense("bxytd,dhe->bxyhte", (2, 3, 2, 4, 4), bias_axes="he", name=n) for n in "qkv"
        )
        self.out = K.EinsumDense("bxyhte,hed->bxytd", (2, 3, 4, 8), bias_axes="d", name="out")
        self.wide, self.narrow = K.Dense(16, activation="gelu", name="wide"), K.Dense(8, name="narrow")
        self.bias = self.add_weight(shape=(2, 3, 3), name="relative")
        rows, columns = np.array([0, 0, 1, 2]), np.array([0, 0, 0, 0, 1, 2])
        region = rows[:, None] * 3 + columns
        region = region.reshape(2, 2, 3, 2).transpose(0, 2, 1, 3).reshape(2, 3, 4)
        self.seam = np.where(
            region[..., None] == region[..., None, :], 0.0, -100.0 if masked else 0.0
        ).astype("float32")

    def call(self, inputs: Any) -> Any:
        x = tf.roll(self.norms[0](inputs), [-self.shift, -self.shift], axis=[1, 2])
        x = tf.transpose(tf.reshape(x, (-1, 2, 2, 3, 2, 8)), (0, 1, 3, 2, 4, 5))
        x = tf.reshape(x, (-1, 2, 3, 4, 8))
        score = tf.matmul(self.q(x), self.k(x), transpose_b=True) / 2.0 + self.seam[:, :, None]
        if self.biased:
            at = np.arange(4)
            table = tf.reshape(self.bias, (2, 9))
            index = (at[:, None] // 2 - at // 2 + 1) * 3 + at[:, None] % 2 - at % 2 + 1
            score += tf.gather(table, index, axis=1)
        weight = tf.reshape(tf.nn.softmax(tf.reshape(score, (-1, 4, 4))), (-1, 2, 3, 2, 4, 4))
        y = self.out(tf.matmul(weight, self.v(x)))
        y = tf.transpose(tf.reshape(y, (-1, 2, 3, 2, 2, 8)), (0, 1, 3, 2, 4, 5))
        x = inputs + tf.roll(tf.reshape(y, (-1, 4, 6, 8)), [self.shift, self.shift], axis=[1, 2])
        return x + self.narrow(self.wide(self.norms[1](x)))


def window_heads(which: int) -> Any:
    return third(which, lambda value: value.T.reshape(8, 2, 4) if value.ndim > 1 else value.reshape(2, 1, 4))


SWIN = Pair(
    "Swin, shifted windows", "tokens", Swin, KerasSwin, draws(floats(2, 8, 4, 6)),
    several(norm, "norm1 norm_0", "norm2 norm_1") | several(dense, "mlp.0 wide", "mlp.2 narrow") | from_heads("proj", "out", 2)
    | {end: step for i, name in enumerate("qkv") for kind in ("weight kernel", "bias bias") for end, step in moved(
        f"qkv.{kind.split()[0]}", f"{name}/{kind.split()[1]}", window_heads(i)).items()}
    | moved("table", "relative", lambda value: value.T.reshape(2, 3, 3)), inputs={0: IMAGE}, outputs={0: IMAGE},
)  # fmt: skip


class GMlp(nn.Module):
    """A gate along places, by a convolution of one tap."""

    def __init__(self) -> None:
        super().__init__()
        self.norm, self.up, self.down = nn.LayerNorm(8), nn.Linear(8, 20), nn.Linear(10, 8)
        self.inner, self.place = nn.LayerNorm(10), nn.Conv1d(6, 6, 1)

    def forward(self, x: Tensor) -> Tensor:
        u, v = F.gelu(self.up(self.norm(x))).chunk(2, dim=-1)
        return x + self.down(u * self.place(self.inner(v)))


def g_mlp_keras(*, epsilon: float = 1e-5) -> Any:
    x = keras.Input((6, 8))
    y = K.Dense(20, name="up")(K.LayerNormalization(epsilon=epsilon, name="outer")(x))
    u, v = ops.split(ops.gelu(y, approximate=False), 2, axis=-1)
    v = K.Permute((2, 1))(K.LayerNormalization(epsilon=epsilon, name="inner")(v))
    v = K.Permute((2, 1))(K.Dense(6, name="places")(v))
    return keras.Model(x, K.Add()([x, K.Dense(8, name="down")(K.Multiply()([u, v]))]))


GMLP = Pair(
    "gMLP", "tokens", GMlp, g_mlp_keras, draws(floats(3, 6, 8)),
    several(norm, "norm outer", "inner inner") | several(dense, "up up", "down down")
    | moved("place.weight", "places/kernel", lambda value: value[:, :, 0].T) | same("place.bias", "places/bias"),
)  # fmt: skip


class Mixer(nn.Module):
    """Patches mixed by convolutions over a transposed image of tokens."""

    def __init__(self) -> None:
        super().__init__()
        self.patch, self.n1, self.n2 = nn.Conv2d(3, 8, 2, 2), nn.LayerNorm(8), nn.LayerNorm(8)
        self.t1, self.t2, self.c1, self.c2 = (
            nn.Linear(6, 5),
            nn.Linear(5, 6),
            nn.Linear(8, 10),
            nn.Linear(10, 8),
        )
        self.head = nn.Linear(8, 3)

    def forward(self, x: Tensor) -> Tensor:
        x = self.patch(x).flatten(2).permute(0, 2, 1)
        x = x + self.t2(F.gelu(self.t1(self.n1(x).permute(0, 2, 1)))).permute(0, 2, 1)
        x = x + self.c2(F.gelu(self.c1(self.n2(x))))
        return self.head(x.mean(dim=1))


class KerasMixer(keras.Model):
    """The image stays an image: tokens are mixed by einsum over both axes."""

    def __init__(self, *, residual: bool = True) -> None:
        super().__init__()
        self.residual, self.patch = residual, K.Conv2D(8, 2, 2, name="patch")
        self.norms = [K.LayerNormalization(epsilon=1e-5, name=f"ln_{i}") for i in range(2)]
        self.into = K.EinsumDense("bhwc,hwk->bkc", (5, 8), bias_axes="k", activation="gelu", name="into")
        self.back = K.EinsumDense("bkc,khw->bhwc", (2, 3, 8), bias_axes="hw", name="back")
        self.wide, self.narrow, self.head = (
            K.Dense(10, activation="gelu", name="wide"),
            K.Dense(8, name="narrow"),
            K.Dense(3, name="head"),
        )

    def call(self, inputs: Any) -> Any:
        x = self.patch(inputs)
        y = self.back(self.into(self.norms[0](x)))
        x = x + y if self.residual else y
        x = x + self.narrow(self.wide(self.norms[1](x)))
        return self.head(tf.reduce_mean(x, [1, 2]))


MIXER = Pair(
    "MLP-Mixer on images", "tokens", Mixer, KerasMixer, draws(floats(2, 3, 4, 6)),
    conv("patch", "patch") | several(norm, "n1 ln_0", "n2 ln_1") | several(dense, "c1 wide", "c2 narrow", "head head")
    | moved("t1.weight", "into/kernel", lambda value: value.T.reshape(2, 3, 5)) | moved("t1.bias", "into/bias", lambda value: value[:, None])
    | moved("t2.weight", "back/kernel", lambda value: value.T.reshape(5, 2, 3))
    | moved("t2.bias", "back/bias", lambda value: value.reshape(2, 3, 1)), inputs={0: IMAGE},
)  # fmt: skip


class MobileVit(nn.Module):
    """Convolution, attention among equal places of all patches, convolution; concatenated with what came in."""

    def __init__(self) -> None:
        super().__init__()
        self.local, self.point = nn.Conv2d(4, 4, 3, padding=1, bias=False), nn.Conv2d(4, 6, 1, bias=False)
        self.ln, self.attn = nn.LayerNorm(6), nn.MultiheadAttention(6, 2, batch_first=True)
        self.back, self.fuse = nn.Conv2d(6, 4, 1), nn.Conv2d(8, 4, 3, padding=1)

    def forward(self, x: Tensor) -> Tensor:
        y = self.point(F.silu(self.local(x)))
        b, c, h, w = y.shape
        z = y.reshape(b, c, h // 2, 2, w // 2, 2).permute(0, 3, 5, 2, 4, 1).reshape(b * 4, h * w // 4, c)
        n = self.ln(z)
        z = z + self.attn(n, n, n)[0]
        z = z.reshape(b, 2, 2, h // 2, w // 2, c).permute(0, 5, 3, 1, 4, 2).reshape(b, c, h, w)
        return F.silu(self.fuse(torch.cat((x, self.back(z)), 1)))


def mobile_vit_keras(*, places: bool = True, epsilon: float = 1e-5) -> Any:
    """Patches are an axis of the attention."""
    image = keras.Input((4, 6, 4))
    y = K.Conv2D(4, 3, padding="same", use_bias=False, activation="silu", name="local")(image)
    y = K.Conv2D(6, 1, use_bias=False, name="point")(y)
    z = ops.transpose(ops.reshape(y, (-1, 2, 2, 3, 2, 6)), (0, 2, 4, 1, 3, 5))
    z = ops.reshape(z, (-1, 4, 6, 6))
    n = K.LayerNormalization(epsilon=epsilon, name="ln")(z)
    z = K.Add()([z, K.MultiHeadAttention(2, 3, attention_axes=2 if places else 1, name="mha")(n, n)])
    z = ops.transpose(ops.reshape(z, (-1, 2, 2, 2, 3, 6)), (0, 3, 1, 4, 2, 5))
    z = K.Conv2D(4, 1, name="back")(ops.reshape(z, (-1, 4, 6, 6)))
    return keras.Model(
        image, K.Conv2D(4, 3, padding="same", activation="silu", name="fuse")(K.Concatenate()([image, z]))
    )


MOBILE_VIT = Pair(
    "MobileViT", "tokens", MobileVit, mobile_vit_keras, draws(floats(2, 4, 4, 6)),
    several(conv, "local local", "point point", bias=False) | several(conv, "back back", "fuse fuse") | norm("ln", "ln")
    | attention("attn", "mha", 2), inputs={0: IMAGE}, outputs={0: IMAGE},
)  # fmt: skip


PAIRS = (
    SWIN, GMLP, MIXER, MOBILE_VIT,
    SWIN.alike("no shift", {"roll", "shift", "Slice", "Concat", "missing"}, keras=lambda: KerasSwin(shift=0)),
    SWIN.alike("no mask at the seam", {"mask", "constant", "Add"}, keras=lambda: KerasSwin(masked=False)),
    GMLP.alike("epsilon", {"epsilon"}, keras=lambda: g_mlp_keras(epsilon=1e-2)),
    MIXER.alike("no residual", {"Add", "residual"}, keras=lambda: KerasMixer(residual=False)),
    MOBILE_VIT.alike("attention inside patches", {"axis", "axes", "Transpose", "order"}, keras=lambda: mobile_vit_keras(places=False)),
)  # fmt: skip
