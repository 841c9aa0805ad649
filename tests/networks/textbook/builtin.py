"""What is a layer on one side and spelled on the other: packed texts, convolutional cells, attention of Keras."""

from __future__ import annotations

from typing import Any

import keras
import numpy as np
import torch
from keras import layers as K
from keras import ops
from torch import Tensor, nn
from torch.nn import functional as F
from torch.nn.utils.rnn import pack_padded_sequence, pad_packed_sequence

from tests.networks.textbook.pair import IMAGE, SERIES, VIDEO, Pair, draws, floats, ids, padded
from tests.networks.textbook.truth import (
    batch_norm,
    conv,
    dense,
    depthwise,
    embedding,
    from_heads,
    gru,
    heads,
    kernel,
    lstm,
    moved,
    norm,
    same,
    several,
)

T = 6


class Packed(nn.Module):
    """Texts are packed by their lengths, counted from the padding; the last state."""

    def __init__(self) -> None:
        super().__init__()
        self.emb, self.rnn, self.fc = (
            nn.Embedding(20, 5, padding_idx=0),
            nn.LSTM(5, 6, batch_first=True),
            nn.Linear(6, 2),
        )

    def forward(self, x: Tensor) -> Tensor:
        lengths = (x != 0).sum(dim=1)
        packed = pack_padded_sequence(self.emb(x), lengths.cpu(), batch_first=True, enforce_sorted=False)
        return self.fc(self.rnn(packed)[1][0][-1])


def packed_keras(*, masked: bool = True) -> Any:
    return keras.Sequential([
        keras.Input((T,), dtype="int32"), K.Embedding(20, 5, mask_zero=masked), K.LSTM(6), K.Dense(2),
    ])  # fmt: skip


PACKED = Pair(
    "packed, mask_zero", "builtin", Packed, packed_keras, draws(padded(20, 4, T)),
    embedding("emb", "embedding") | lstm("rnn", "lstm/lstm_cell") | dense("fc", "dense"),
)  # fmt: skip


class PackedBoth(nn.Module):
    """All steps of both directions, packed; the mean over words."""

    def __init__(self) -> None:
        super().__init__()
        self.table, self.rnn, self.out = (
            nn.Embedding(20, 5),
            nn.GRU(5, 4, batch_first=True, bidirectional=True),
            nn.Linear(8, 3),
        )

    def forward(self, x: Tensor) -> Tensor:
        lengths = x.gt(0).long().sum(1)
        y, _ = self.rnn(pack_padded_sequence(self.table(x), lengths, batch_first=True, enforce_sorted=False))
        y, _ = pad_packed_sequence(y, batch_first=True, total_length=T)
        return self.out(y.sum(1) / lengths[:, None])


def packed_both_keras(*, masked: bool = True) -> Any:
    text = keras.Input((T,), dtype="int64")
    x = K.Embedding(20, 5, mask_zero=masked, name="table")(text)
    y = K.Bidirectional(K.GRU(4, return_sequences=True, name="gru"), name="both")(x)
    return keras.Model(text, K.Dense(3, name="label")(K.GlobalAveragePooling1D()(y)))


BOTH = Pair(
    "packed both ways, mean", "builtin", PackedBoth, packed_both_keras, draws(padded(20, 4, T)),
    embedding("table", "table") | gru("rnn", "both/forward_gru/gru_cell") | gru("rnn", "both/backward_gru/gru_cell", "_l0_reverse")
    | dense("out", "label"),
)  # fmt: skip


class ConvLstm(nn.Module):
    """A convolutional LSTM from one convolution of input and state."""

    def __init__(self) -> None:
        super().__init__()
        self.gates, self.last = nn.Conv2d(2 + 4, 16, 3, padding="same"), nn.Conv2d(4, 1, 1)

    def forward(self, x: Tensor) -> Tensor:
        h = c = torch.zeros(x.size(0), 4, *x.shape[3:])
        for t in range(x.size(1)):
            i, f, g, o = torch.split(self.gates(torch.cat([x[:, t], h], dim=1)), 4, dim=1)
            c = torch.sigmoid(f) * c + torch.sigmoid(i) * torch.tanh(g)
            h = torch.sigmoid(o) * torch.tanh(c)
        return self.last(h)


def conv_lstm_keras(*, gate: str = "sigmoid") -> Any:
    film = keras.Input((3, 5, 4, 2))
    h = K.ConvLSTM2D(4, 3, padding="same", recurrent_activation=gate, name="cells")(film)
    return keras.Model(film, K.Conv2D(1, 1, name="last")(h))


CONV_LSTM = Pair(
    "ConvLSTM2D", "builtin", ConvLstm, conv_lstm_keras, draws(floats(2, 3, 2, 5, 4)),
    moved("gates.weight", "cells/conv_lstm_cell/kernel", lambda value: kernel(value[:, :2]))
    | moved("gates.weight", "cells/conv_lstm_cell/recurrent_kernel", lambda value: kernel(value[:, 2:]))
    | same("gates.bias", "cells/conv_lstm_cell/bias") | conv("last", "last"),
    inputs={0: VIDEO}, outputs={0: IMAGE},
)  # fmt: skip


class DotAttention(nn.Module):
    """Keras' Attention and AdditiveAttention are spelled here."""

    def __init__(self) -> None:
        super().__init__()
        self.q, self.k, self.v = nn.Linear(5, 4), nn.Linear(6, 4), nn.Linear(6, 7)
        self.scale, self.rate = nn.Parameter(torch.ones(())), nn.Parameter(torch.ones(4))

    def forward(self, query: Tensor, memory: Tensor) -> tuple[Tensor, Tensor]:
        q, k, v = self.q(query), self.k(memory), self.v(memory)
        dot = F.softmax(self.scale * q.matmul(k.mT), dim=-1) @ v
        added = (self.rate * torch.tanh(q.unsqueeze(2) + k.unsqueeze(1))).sum(-1)
        return dot, F.softmax(added, -1) @ v


def dot_attention_keras(*, scaled: bool = True, causal: bool = False) -> Any:
    query, memory = keras.Input((3, 5)), keras.Input((T, 6))
    q, k, v = K.Dense(4, name="q")(query), K.Dense(4, name="k")(memory), K.Dense(7, name="v")(memory)
    dot = K.Attention(use_scale=scaled, name="dot")([q, v, k], use_causal_mask=causal)
    return keras.Model([query, memory], [dot, K.AdditiveAttention(name="add")([q, v, k])])


DOT = Pair(
    "Attention and AdditiveAttention", "builtin", DotAttention, dot_attention_keras, draws(floats(2, 3, 5), floats(2, T, 6)),
    several(dense, "q q", "k k", "v v") | same("scale", "dot/scale") | same("rate", "add/scale"),
)  # fmt: skip


class Grouped(nn.Module):
    """Keras' GroupQueryAttention; here PyTorch's own with repeated keys."""

    def __init__(self) -> None:
        super().__init__()
        self.wq, self.wk, self.wv, self.wo = (
            nn.Linear(8, 12),
            nn.Linear(8, 6),
            nn.Linear(8, 6),
            nn.Linear(12, 8),
        )

    def forward(self, x: Tensor) -> Tensor:
        b, t, _ = x.shape
        q = self.wq(x).view(b, t, 4, 3).transpose(1, 2)
        k, v = (f(x).view(b, t, 2, 3).transpose(1, 2) for f in (self.wk, self.wv))
        y = F.scaled_dot_product_attention(q, k, v, is_causal=True, enable_gqa=True)
        return self.wo(y.transpose(1, 2).flatten(2))


def grouped_keras(*, causal: bool = True) -> Any:
    x = keras.Input((T, 8))
    layer = K.GroupQueryAttention(3, 4, 2, name="gqa")
    return keras.Model(x, layer(x, x, use_causal_mask=causal))


GROUPED = Pair(
    "GroupQueryAttention", "builtin", Grouped, grouped_keras, draws(floats(2, T, 8)),
    heads("wq", "gqa/query", 4) | several(heads, "wk gqa/key", "wv gqa/value", number=2) | from_heads("wo", "gqa/attention_output", 4),
)  # fmt: skip


class Separable(nn.Module):
    """SeparableConv2D with a multiplier, a convolution by groups for a depthwise one, instance norm for groups."""

    def __init__(self) -> None:
        super().__init__()
        self.dw, self.pw = nn.Conv2d(3, 6, 3, groups=3, bias=False), nn.Conv2d(6, 4, 1)
        self.each, self.norm = (
            nn.Conv2d(4, 4, 3, padding=1, groups=4),
            nn.InstanceNorm2d(4, affine=True, eps=1e-3),
        )

    def forward(self, x: Tensor) -> Tensor:
        return F.softsign(self.norm(self.each(F.relu(self.pw(self.dw(x))))))


def separable_keras(*, groups: int = -1, activation: str = "softsign") -> Any:
    image = keras.Input((7, 6, 3))
    x = K.SeparableConv2D(4, 3, depth_multiplier=2, activation="relu", name="apart")(image)
    x = K.Conv2D(4, 3, padding="same", groups=4, name="each")(x)
    x = K.GroupNormalization(groups, name="norm")(x)
    return keras.Model(image, K.Activation(activation)(x))


SEPARABLE = Pair(
    "SeparableConv2D", "builtin", Separable, separable_keras, draws(floats(2, 3, 7, 6)),
    moved("dw.weight", "apart/depthwise_kernel", lambda value: value.reshape(3, 2, 3, 3).transpose(2, 3, 0, 1))
    | moved("pw.weight", "apart/pointwise_kernel", kernel) | same("pw.bias", "apart/bias") | conv("each", "each")
    | norm("norm", "norm"), inputs={0: IMAGE}, outputs={0: IMAGE},
)  # fmt: skip


class Encoded(nn.Module):
    """Categories as one-hot and multi-hot vectors; a linear layer is an embedding there."""

    def __init__(self) -> None:
        super().__init__()
        self.kind, self.tags, self.out = (
            nn.Embedding(6, 5),
            nn.EmbeddingBag(9, 5, mode="sum"),
            nn.Linear(5, 2),
        )

    def forward(self, kind: Tensor, tags: Tensor) -> Tensor:
        return self.out(torch.relu(self.kind(kind) + self.tags(tags)))


def encoded_keras(*, mode: str = "count") -> Any:
    kind, tags = keras.Input((1,), dtype="int32"), keras.Input((4,), dtype="int32")
    one = K.CategoryEncoding(6, output_mode="one_hot")(kind)
    many = K.CategoryEncoding(9, output_mode=mode)(tags)
    x = K.Add()([K.Dense(5, use_bias=False, name="kind")(one), K.Dense(5, use_bias=False, name="tags")(many)])
    return keras.Model([kind, tags], K.Dense(2, name="out")(K.ReLU()(x)))


ENCODED = Pair(
    "CategoryEncoding", "builtin", Encoded, encoded_keras, draws(ids(6, 4), ids(9, 4, 4)),
    same("kind.weight", "kind/kernel") | same("tags.weight", "tags/kernel") | dense("out", "out"),
)  # fmt: skip


class Wave(nn.Module):
    """One dimension: transposed, upsampled, cropped, depthwise; dense layers for convolutions of one step."""

    def __init__(self) -> None:
        super().__init__()
        self.down, self.dw, self.up = (
            nn.Conv1d(2, 6, 4, 2, 1),
            nn.Conv1d(6, 6, 3, padding=1, groups=6),
            nn.ConvTranspose1d(6, 4, 4, 2, 1),
        )
        self.mid, self.bn, self.last = nn.Linear(6, 6), nn.BatchNorm1d(6), nn.Conv1d(4, 2, 1)

    def forward(self, x: Tensor) -> Tensor:
        x = F.leaky_relu(self.bn(self.down(x)), 0.1)
        y = self.mid(self.dw(x).transpose(1, 2)).transpose(1, 2)
        y = F.interpolate(F.avg_pool1d(y, 2), scale_factor=2)
        return self.last(torch.tanh(self.up(x + y)))


def wave_keras(*, slope: float = 0.1, pool: Any = K.AveragePooling1D) -> Any:
    sound = keras.Input((12, 2))
    x = K.Conv1D(6, 4, 2, name="down")(K.ZeroPadding1D(1)(sound))
    x = K.LeakyReLU(slope)(K.BatchNormalization(epsilon=1e-5, name="bn")(x))
    y = K.Conv1D(6, 1, name="mid")(K.DepthwiseConv1D(3, padding="same", name="deep")(x))
    x = K.Add()([K.UpSampling1D(2)(pool(2)(y)), x])
    x = K.Cropping1D(1)(K.Conv1DTranspose(4, 4, 2, name="up")(x))
    return keras.Model(sound, K.Dense(2, name="last")(K.Activation("tanh")(x)))


WAVE = Pair(
    "one dimension", "builtin", Wave, wave_keras, draws(floats(2, 2, 12)),
    several(conv, "down down", "up up") | depthwise("dw", "deep") | batch_norm("bn", "bn")
    | moved("mid.weight", "mid/kernel", lambda value: value.T[None]) | same("mid.bias", "mid/bias")
    | moved("last.weight", "last/kernel", lambda value: value[:, :, 0].T) | same("last.bias", "last/bias"),
    inputs={0: SERIES}, outputs={0: SERIES},
)  # fmt: skip


class Covariance(nn.Module):
    """Attention among channels: unit rows along the places, a temperature for each head."""

    def __init__(self) -> None:
        super().__init__()
        self.qkv, self.dw, self.out = (
            nn.Conv2d(4, 12, 1, bias=False),
            nn.Conv2d(12, 12, 3, padding=1, groups=12),
            nn.Conv2d(4, 4, 1),
        )
        self.heat = nn.Parameter(torch.ones(2, 1, 1))

    def forward(self, x: Tensor) -> Tensor:
        b, c, h, w = x.shape
        q, k, v = (one.reshape(b, 2, c // 2, h * w) for one in self.dw(self.qkv(x)).chunk(3, dim=1))
        weight = (F.normalize(q, dim=-1) @ F.normalize(k, dim=-1).transpose(-2, -1) * self.heat).softmax(
            dim=-1
        )
        return x + self.out((weight @ v).reshape(b, c, h, w))


class KerasCovariance(K.Layer):
    def __init__(self, *, axis: int = 1) -> None:
        super().__init__(name="mdta")
        self.axis = axis
        self.qkv, self.deep = (
            K.Conv2D(12, 1, use_bias=False, name="qkv"),
            K.DepthwiseConv2D(3, padding="same", name="deep"),
        )
        self.out = K.Conv2D(4, 1, name="out")

    def build(self, _: Any) -> None:
        self.heat = self.add_weight(shape=(2,), name="heat")

    def call(self, x: Any) -> Any:
        q, k, v = ops.split(ops.reshape(self.deep(self.qkv(x)), (-1, 20, 3 * 2, 2)), 3, axis=2)
        q, k = (ops.normalize(one, axis=self.axis) for one in (q, k))
        weight = ops.softmax(ops.einsum("bnhc,bnhd->bhcd", q, k) * self.heat[:, None, None])
        return x + self.out(ops.reshape(ops.einsum("bhcd,bnhd->bnhc", weight, v), (-1, 5, 4, 4)))


def covariance_keras(**options: Any) -> Any:
    image = keras.Input((5, 4, 4))
    return keras.Model(image, KerasCovariance(**options)(image))


COVARIANCE = Pair(
    "attention of channels", "builtin", Covariance, covariance_keras, draws(floats(2, 4, 5, 4)),
    conv("qkv", "qkv", bias=False) | depthwise("dw", "deep") | conv("out", "out") | moved("heat", "mdta/heat", np.ravel),
    inputs={0: IMAGE}, outputs={0: IMAGE},
)  # fmt: skip

PAIRS = (
    PACKED, BOTH, CONV_LSTM, DOT, GROUPED, SEPARABLE, ENCODED, WAVE, COVARIANCE,
    PACKED.alike("padding is read", {"mask"}, keras=lambda: packed_keras(masked=False)),
    CONV_LSTM.alike("gates", {"Sigmoid", "HardSigmoid", "activation"}, keras=lambda: conv_lstm_keras(gate="hard_sigmoid")),
    DOT.alike("causal", {"mask", "causal"}, keras=lambda: dot_attention_keras(causal=True)),
    GROUPED.alike("not causal", {"mask", "causal"}, keras=lambda: grouped_keras(causal=False)),
    SEPARABLE.alike("two groups", {"group"}, keras=lambda: separable_keras(groups=2)),
    ENCODED.alike("each tag once", {"count", "Min", "Max", "sum"}, keras=lambda: encoded_keras(mode="multi_hot")),
    WAVE.alike("maximum", {"Max", "Average", "Mean"}, keras=lambda: wave_keras(pool=K.MaxPooling1D)),
    COVARIANCE.alike("unit along channels", {"axis"}, keras=lambda: covariance_keras(axis=-1)),
)  # fmt: skip
