"""Where a token stands: rotary, sinusoid, learned, by type; and what grouped queries share."""

from __future__ import annotations

import math
from typing import Any

import keras
import numpy as np
import tensorflow as tf
import torch
from keras import layers as K
from keras import ops
from torch import Tensor, nn

from tests.networks.textbook.pair import Pair, draws, floats, ids, mask, padded
from tests.networks.textbook.truth import (
    Array,
    attention,
    dense,
    embedding,
    from_heads,
    heads,
    linear,
    moved,
    norm,
    same,
    several,
)

D, T = 16, 6


class Rotary(nn.Module):
    """Halves turned against each other, angles in buffers; queries in four heads, keys and values in two."""

    def __init__(self, groups: int = 2) -> None:
        super().__init__()
        self.heads, self.groups, self.dim = 4, groups, 4
        self.q_proj = nn.Linear(D, 16, bias=False)
        self.k_proj, self.v_proj = (nn.Linear(D, groups * 4, bias=False) for _ in range(2))
        self.o_proj = nn.Linear(16, D, bias=False)
        angle = torch.outer(torch.arange(T).float(), 10000 ** (-torch.arange(0, 4, 2) / 4))
        self.register_buffer("cos", torch.cat([angle, angle], -1).cos(), persistent=False)
        self.register_buffer("sin", torch.cat([angle, angle], -1).sin(), persistent=False)

    def rotate(self, x: Tensor) -> Tensor:
        half = torch.cat([-x[..., self.dim // 2 :], x[..., : self.dim // 2]], dim=-1)
        return x * self.cos + half * self.sin

    def forward(self, x: Tensor) -> Tensor:
        b, t, _ = x.shape
        q = self.rotate(self.q_proj(x).view(b, t, self.heads, self.dim).transpose(1, 2))
        k = self.rotate(self.k_proj(x).view(b, t, self.groups, self.dim).transpose(1, 2))
        v = self.v_proj(x).view(b, t, self.groups, self.dim).transpose(1, 2)
        k, v = (one.repeat_interleave(self.heads // self.groups, dim=1) for one in (k, v))
        score = torch.matmul(q, k.transpose(2, 3)) / math.sqrt(self.dim)
        score = score + torch.full((t, t), float("-inf")).triu(1)
        return self.o_proj(torch.matmul(score.softmax(-1), v).transpose(1, 2).reshape(b, t, -1))


class KerasRotary(K.Layer):
    """Angles are computed on the way, as complex numbers without the word; groups keep an axis of their own."""

    def __init__(
        self, groups: int = 2, base: float = 10000.0, *, tiled: bool = False, neighbours: bool = False
    ) -> None:
        super().__init__(name="mixer")
        self.groups, self.base, self.tiled, self.neighbours = groups, base, tiled, neighbours
        self.query = K.Dense(16, use_bias=False, name="query")
        self.key, self.value = (K.Dense(groups * 4, use_bias=False, name=name) for name in ("key", "value"))
        self.out = K.Dense(D, use_bias=False, name="out")

    def rotate(self, x: Any) -> Any:
        angle = np.arange(T)[:, None] / self.base ** (np.arange(2) / 2)
        cos, sin = (f(angle).astype("float32")[:, None] for f in (np.cos, np.sin))
        if self.neighbours:
            even, odd = x[..., ::2], x[..., 1::2]
            turned = tf.stack([even * cos - odd * sin, odd * cos + even * sin], axis=-1)
            return tf.reshape(turned, tf.shape(x))
        low, high = tf.split(x, 2, axis=-1)
        return tf.concat([low * cos - high * sin, high * cos + low * sin], axis=-1)

    def call(self, x: Any) -> Any:
        each = 4 // self.groups
        q = self.rotate(ops.reshape(self.query(x), (-1, T, 4, 4)))
        q = ops.reshape(q, (-1, T, self.groups, each, 4))
        if self.tiled:
            q = ops.transpose(ops.reshape(q, (-1, T, each, self.groups, 4)), (0, 1, 3, 2, 4))
        k = self.rotate(ops.reshape(self.key(x), (-1, T, self.groups, 4)))
        v = ops.reshape(self.value(x), (-1, T, self.groups, 4))
        score = ops.einsum("bqgrd,bkgd->bgrqk", q, k) * 0.5
        score = ops.where(np.tril(np.ones((T, T), bool)), score, -1e30)
        mixed = ops.einsum("bgrqk,bkgd->bqgrd", ops.softmax(score), v)
        if self.tiled:
            mixed = ops.transpose(mixed, (0, 1, 3, 2, 4))
        return self.out(ops.reshape(mixed, (-1, T, 16)))


def one_layer(layer: Any, *shape: int) -> Any:
    x = keras.Input(shape)
    return keras.Model(x, layer(x))


ROTARY = Pair(
    "rotary, grouped queries", "positions", Rotary, lambda: one_layer(KerasRotary(), T, D), draws(floats(2, T, D)),
    several(dense, "q_proj query", "k_proj key", "v_proj value", "o_proj out", bias=False),
)  # fmt: skip


class Interleaved(nn.Module):
    """Neighbours turned against each other, with complex numbers' rule; one key and value for all heads."""

    def __init__(self) -> None:
        super().__init__()
        self.wq, self.wkv, self.wo = nn.Linear(D, 12), nn.Linear(D, 8), nn.Linear(12, D)
        theta = torch.arange(T)[:, None] * (1.0 / 100 ** (torch.arange(0, 4, 2) / 4))
        self.register_buffer("table", torch.stack([theta.cos(), theta.sin()], -1), persistent=False)

    def turn(self, x: Tensor) -> Tensor:
        even, odd = x[..., 0::2], x[..., 1::2]
        cos, sin = self.table.unbind(-1)
        return torch.stack([even * cos - odd * sin, even * sin + odd * cos], dim=-1).flatten(-2)

    def forward(self, x: Tensor) -> Tensor:
        q = self.turn(self.wq(x).unflatten(-1, (3, 4)).transpose(1, 2))
        k, v = self.wkv(x).split(4, dim=-1)
        k, v = self.turn(k)[:, None].expand(-1, 3, -1, -1), v[:, None].expand(-1, 3, -1, -1)
        y = ((q @ k.mT) * 4**-0.5).softmax(-1) @ v
        return self.wo(y.permute(0, 2, 1, 3).flatten(2))


class KerasInterleaved(K.Layer):
    """A small rotation for each pair of neighbours, as a matrix."""

    def __init__(self, base: float = 100.0) -> None:
        super().__init__(name="multi_query")
        self.base = base
        self.query = K.EinsumDense("btd,dhe->bthe", (T, 3, 4), bias_axes="he", name="query")
        self.key, self.value = K.Dense(4, name="key"), K.Dense(4, name="value")
        self.out = K.EinsumDense("bthe,hed->btd", (T, D), bias_axes="d", name="out")

    def call(self, x: Any) -> Any:
        angle = np.outer(np.arange(T), self.base ** -(np.arange(2) / 2))
        turn = np.stack([[np.cos(angle), -np.sin(angle)], [np.sin(angle), np.cos(angle)]]).astype("float32")
        q = ops.reshape(self.query(x), (-1, T, 3, 2, 2))
        k = ops.reshape(self.key(x), (-1, T, 2, 2))
        q, k = ops.einsum("ijtp,bthpj->bthpi", turn, q), ops.einsum("ijtp,btpj->btpi", turn, k)
        score = ops.einsum("bqhpi,bkpi->bhqk", q, k) / 2.0
        return self.out(ops.einsum("bhqk,bke->bqhe", ops.softmax(score), self.value(x)))


def rows(low: int, high: int) -> Any:
    return lambda value: value[low:high].T if value.ndim > 1 else value[low:high]


MULTI_QUERY = Pair(
    "interleaved rotary, one key for all", "positions", Interleaved, lambda: one_layer(KerasInterleaved(), T, D),
    draws(floats(2, T, D)),
    heads("wq", "query", 3) | from_heads("wo", "out", 3)
    | moved("wkv.weight", "key/kernel", rows(0, 4)) | moved("wkv.bias", "key/bias", rows(0, 4))
    | moved("wkv.weight", "value/kernel", rows(4, 8)) | moved("wkv.bias", "value/bias", rows(4, 8)),
)  # fmt: skip


class Sinusoid(nn.Module):
    """The table of "Attention is all you need", sines and cosines interleaved, in a buffer; embeddings scaled."""

    def __init__(self) -> None:
        super().__init__()
        self.emb = nn.Embedding(30, D)
        where = torch.arange(T).unsqueeze(1)
        rate = torch.exp(torch.arange(0, D, 2) * (-math.log(10000.0) / D))
        table = torch.zeros(1, T, D)
        table[0, :, 0::2], table[0, :, 1::2] = torch.sin(where * rate), torch.cos(where * rate)
        self.register_buffer("pe", table)
        self.layer = nn.TransformerEncoderLayer(D, 2, 24, batch_first=True)
        self.fc = nn.Linear(D, 3)

    def forward(self, ids: Tensor) -> Tensor:
        x = self.emb(ids) * math.sqrt(D) + self.pe[:, : ids.size(1)]
        return self.fc(self.layer(x)[:, -1])


def sinusoid_keras(*, scaled: bool = True, prenorm: bool = False) -> Any:
    text = keras.Input((T,), dtype="int64")
    angle = np.arange(T)[:, None] / np.power(10000, 2 * (np.arange(D)[None] // 2) / D)
    angle[:, 0::2], angle[:, 1::2] = np.sin(angle[:, 0::2]), np.cos(angle[:, 1::2])
    x = K.Embedding(30, D)(text)
    x = (x * D**0.5 if scaled else x) + angle.astype("float32")[None]
    first, second = (
        K.LayerNormalization(epsilon=1e-5, name="ln1"),
        K.LayerNormalization(epsilon=1e-5, name="ln2"),
    )
    mixer, wide, narrow = (
        K.MultiHeadAttention(2, 8),
        K.Dense(24, "relu", name="wide"),
        K.Dense(D, name="narrow"),
    )
    if prenorm:
        y = first(x)
        x = x + mixer(y, y)
        x = x + narrow(wide(second(x)))
    else:
        x = first(x + mixer(x, x))
        x = second(x + narrow(wide(x)))
    return keras.Model(text, K.Dense(3, name="head")(x[:, T - 1]))


SINUSOID = Pair(
    "sinusoid positions", "positions", Sinusoid, sinusoid_keras, draws(ids(30, 3, T)),
    embedding("emb", "embedding") | attention("layer.self_attn", "multi_head_attention", 2)
    | several(norm, "layer.norm1 ln1", "layer.norm2 ln2")
    | several(dense, "layer.linear1 wide", "layer.linear2 narrow", "fc head"),
)  # fmt: skip


class BertEmbeddings(nn.Module):
    """Words, positions by a buffer of ids, types of tokens; an encoder block; the first token's pooler."""

    def __init__(self) -> None:
        super().__init__()
        self.word_embeddings = nn.Embedding(30, D, padding_idx=0)
        self.position_embeddings, self.token_type_embeddings = nn.Embedding(T, D), nn.Embedding(2, D)
        self.LayerNorm = nn.LayerNorm(D, eps=1e-12)
        self.query, self.key, self.value, self.dense = (nn.Linear(D, D) for _ in range(4))
        self.norm1, self.pooler = nn.LayerNorm(D, eps=1e-12), nn.Linear(D, D)
        self.register_buffer("position_ids", torch.arange(T).expand((1, -1)))

    def split(self, x: Tensor) -> Tensor:
        return x.view(*x.size()[:-1], 2, D // 2).permute(0, 2, 1, 3)

    def forward(
        self, input_ids: Tensor, attention_mask: Tensor, token_type_ids: Tensor
    ) -> tuple[Tensor, Tensor]:
        x = self.word_embeddings(input_ids) + self.token_type_embeddings(token_type_ids)
        x = self.LayerNorm(x + self.position_embeddings(self.position_ids[:, : input_ids.size(1)]))
        score = torch.matmul(self.split(self.query(x)), self.split(self.key(x)).transpose(-1, -2))
        extended = (1.0 - attention_mask[:, None, None, :].float()) * torch.finfo(torch.float32).min
        y = torch.matmul(
            nn.functional.softmax(score / math.sqrt(D // 2) + extended, dim=-1), self.split(self.value(x))
        )
        y = self.dense(y.permute(0, 2, 1, 3).contiguous().view(*x.size()))
        x = self.norm1(y + x)
        return x, torch.tanh(self.pooler(x[:, 0]))


class KerasBert(keras.Model):
    """Inputs by name, as tokenizers give them."""

    def __init__(self, *, types: bool = True, pooler: str = "tanh", position: int = 0) -> None:
        super().__init__()
        self.types, self.first = types, position
        self.word, self.place, self.type = (
            K.Embedding(size, D, name=name) for size, name in ((30, "word"), (T, "place"), (2, "type"))
        )
        self.norms = [K.LayerNormalization(epsilon=1e-12, name=f"norm_{i}") for i in range(2)]
        self.attend = K.MultiHeadAttention(2, D // 2, name="attend")
        self.pooler = K.Dense(D, activation=pooler, name="pooler")

    def call(self, input_ids: Any, attention_mask: Any, token_type_ids: Any) -> Any:
        kind = token_type_ids if self.types else tf.zeros_like(token_type_ids)
        x = self.word(input_ids) + self.place(tf.range(T)) + self.type(kind)
        x = self.norms[0](x)
        seen = tf.cast(attention_mask[:, tf.newaxis, :], tf.bool)
        x = self.norms[1](x + self.attend(x, x, attention_mask=seen))
        return x, self.pooler(x[:, self.first])


BERT = Pair(
    "types, positions, pooler", "positions", BertEmbeddings, KerasBert,
    draws(padded(30, 3, T), mask(3, T, kind="int64"), ids(2, 3, T)),
    several(embedding, "word_embeddings word", "position_embeddings place", "token_type_embeddings type")
    | several(norm, "LayerNorm norm_0", "norm1 norm_1") | dense("pooler", "pooler")
    | several(heads, "query attend/query", "key attend/key", "value attend/value", number=2)
    | from_heads("dense", "attend/attention_output", 2),
)  # fmt: skip


class Learned(nn.Module):
    """A class token in front, learned positions, a pooled query; tokens come as patches of an image."""

    def __init__(self) -> None:
        super().__init__()
        self.patch = nn.Conv2d(3, D, 4, 4)
        self.cls, self.pos = nn.Parameter(torch.zeros(1, 1, D)), nn.Parameter(torch.zeros(1, 5, D))
        self.norm, self.attn = nn.LayerNorm(D), nn.MultiheadAttention(D, 4, batch_first=True)
        self.head = nn.Linear(D, 5)

    def forward(self, x: Tensor) -> Tensor:
        x = self.patch(x).flatten(2).transpose(1, 2)
        x = torch.cat([self.cls.expand(x.size(0), -1, -1), x], dim=1) + self.pos
        y = self.norm(x)
        return self.head((x + self.attn(y, y, y)[0])[:, 0])


class ClassToken(K.Layer):
    def __init__(self, *, behind: bool = False) -> None:
        super().__init__(name="token")
        self.behind = behind

    def build(self, shape: Any) -> None:
        self.token = self.add_weight(shape=(D,), initializer="zeros", name="token")
        self.place = self.add_weight(shape=(shape[1] + 1, D), initializer="zeros", name="place")

    def call(self, x: Any) -> Any:
        token = tf.tile(self.token[None, None], [tf.shape(x)[0], 1, 1])
        return tf.concat([x, token] if self.behind else [token, x], axis=1) + self.place


def learned_keras(*, behind: bool = False, epsilon: float = 1e-5) -> Any:
    image = keras.Input((8, 8, 3))
    patches = ops.reshape(image, (-1, 2, 4, 2, 4, 3))
    patches = ops.reshape(ops.transpose(patches, (0, 1, 3, 2, 4, 5)), (-1, 4, 48))
    x = ClassToken(behind=behind)(K.Dense(D, name="patches")(patches))
    y = K.LayerNormalization(epsilon=epsilon, name="ln")(x)
    x = K.Add()([x, K.MultiHeadAttention(4, 4, name="mha")(y, y)])
    return keras.Model(image, K.Dense(5, name="classes")(x[:, 0]))


LEARNED = Pair(
    "class token, patches by hand", "positions", Learned, learned_keras, draws(floats(2, 3, 8, 8)),
    moved("patch.weight", "patches/kernel", lambda value: value.transpose(2, 3, 1, 0).reshape(-1, D))
    | same("patch.bias", "patches/bias") | moved("cls", "token/token", lambda value: value.reshape(-1))
    | moved("pos", "token/place", lambda value: value[0]) | norm("norm", "ln") | attention("attn", "mha", 4)
    | dense("head", "classes"),
    inputs={0: (0, 2, 3, 1)},
)  # fmt: skip


class TimeEncoding(nn.Module):
    """Positions come as input: learned frequencies of a time, beside the values."""

    def __init__(self) -> None:
        super().__init__()
        self.w0, self.w = nn.Linear(1, 1), nn.Linear(1, 5)
        self.out = nn.Linear(8, 3)

    def forward(self, value: Tensor, time: Tensor) -> Tensor:
        time = time.unsqueeze(-1)
        return self.out(torch.cat([value, self.w0(time), torch.sin(self.w(time))], -1)).amax(1)


def time_keras(*, wave: Any = ops.sin) -> Any:
    value, time = keras.Input((T, 2)), keras.Input((T,))
    late = K.Reshape((T, 1))(time)
    trend, waves = K.Dense(1, name="trend")(late), wave(K.Dense(5, name="periodic")(late))
    x = K.Concatenate()([value, trend, waves])
    return keras.Model([value, time], K.GlobalMaxPooling1D()(K.Dense(3, name="mix")(x)))


TIME = Pair(
    "Time2Vec", "positions", TimeEncoding, time_keras, draws(floats(2, T, 2), floats(2, T)),
    several(dense, "w0 trend", "w periodic", "out mix"),
)  # fmt: skip


def tiled(width: int) -> Any:
    """Head 0, 2, 1, 3: two groups of two queries are counted across."""
    return lambda value: value.reshape(2, 2, width, -1).swapaxes(0, 1).reshape(4 * width, -1).T


def neighbours(value: Array) -> Array:
    """What halves turn, neighbours turn with their rows in another order."""
    return value.reshape(-1, 2, 2, value.shape[1]).swapaxes(1, 2).reshape(value.shape).T


PAIRS = (
    ROTARY, MULTI_QUERY, SINUSOID, BERT, LEARNED, TIME,
    Pair("rotary, as many keys", "positions", lambda: Rotary(4), lambda: one_layer(KerasRotary(4), T, D),
         draws(floats(2, T, D)), ROTARY.truth),
    Pair("rotary, heads in the other order", "positions", Rotary, lambda: one_layer(KerasRotary(tiled=True), T, D),
         draws(floats(2, T, D)), ROTARY.truth | linear("q_proj", "query", tiled(4), bias=False)
         | moved("o_proj.weight", "out/kernel", lambda value: tiled(4)(value.T).T)),
    Pair("rotary halves, rotary neighbours", "positions", Rotary, lambda: one_layer(KerasRotary(neighbours=True), T, D),
         draws(floats(2, T, D)), ROTARY.truth | linear("q_proj", "query", neighbours, bias=False)
         | linear("k_proj", "key", neighbours, bias=False)),
    ROTARY.alike("base of the angles", {"constant", "cos", "base"}, keras=lambda: one_layer(KerasRotary(base=100.0), T, D)),
    MULTI_QUERY.alike("base of the angles", {"constant", "cos", "base"}, keras=lambda: one_layer(KerasInterleaved(1000.0), T, D)),
    SINUSOID.alike("norm in front", {"norm", "LayerNorm", "order"}, keras=lambda: sinusoid_keras(prenorm=True)),
    SINUSOID.alike("not scaled", {"scale", "constant", "Mul"}, keras=lambda: sinusoid_keras(scaled=False)),
    BERT.alike("one type for all", {"type", "input", "constant", "unused"}, keras=lambda: KerasBert(types=False)),
    BERT.alike("pooler's activation", {"activation", "tanh"}, keras=lambda: KerasBert(pooler="gelu")),
    BERT.alike("last token", {"index", "position", "Slice", "Gather"}, keras=lambda: KerasBert(position=-1)),
    LEARNED.alike("token behind", {"order", "Concat"}, keras=lambda: learned_keras(behind=True)),
    LEARNED.alike("epsilon", {"epsilon"}, keras=lambda: learned_keras(epsilon=1e-1)),
    TIME.alike("cosine", {"Sin", "Cos"}, keras=lambda: time_keras(wave=ops.cos)),
)  # fmt: skip
