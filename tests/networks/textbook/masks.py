"""Attention under masks of all sorts: from ids, additive, boolean, triangular, windows, biases of positions."""

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
from torch.nn import functional as F

from tests.networks.textbook.pair import Pair, draws, floats, mask, padded
from tests.networks.textbook.truth import attention, dense, embedding, moved, norm, same, several, turned

D, H, T = 12, 3, 7


class PaddedEncoder(nn.Module):
    """Padding is where the id is zero; the mean is over the words that are there."""

    def __init__(self) -> None:
        super().__init__()
        self.emb = nn.Embedding(40, D, padding_idx=0)
        self.attn = nn.MultiheadAttention(D, H, batch_first=True)
        self.ln, self.out = nn.LayerNorm(D), nn.Linear(D, 4)

    def forward(self, ids: Tensor) -> Tensor:
        pad = ids.eq(0)
        x = self.emb(ids)
        x = self.ln(x + self.attn(x, x, x, key_padding_mask=pad, need_weights=False)[0])
        keep = (~pad).unsqueeze(-1).type_as(x)
        return self.out((x * keep).sum(1) / keep.sum(1).clamp(min=1))


def padded_encoder_keras(*, masked: bool = True, epsilon: float = 1e-5, mean: str = "words") -> Any:
    words = keras.Input((T,), dtype="int32")
    here = ops.not_equal(words, 0)
    x = K.Embedding(40, D, name="words")(words)
    y = K.MultiHeadAttention(H, D // H, name="mix")(x, x, attention_mask=here[:, None, :] if masked else None)
    x = K.LayerNormalization(epsilon=epsilon, name="norm")(K.Add()([y, x]))
    weight = ops.cast(here, "float32")
    if mean == "words":
        pooled = ops.einsum("bt,btd->bd", weight, x) / ops.maximum(ops.sum(weight, -1, keepdims=True), 1.0)
    else:
        pooled = ops.einsum("bt,btd->bd", weight, x) / T
    return keras.Model(words, K.Dense(4, name="logits")(pooled))


PADDED = Pair(
    "padding from ids", "masks", PaddedEncoder, padded_encoder_keras, draws(padded(40, 3, T)),
    embedding("emb", "words") | attention("attn", "mix", H) | norm("ln", "norm") | dense("out", "logits"),
)  # fmt: skip


class SelfAttention(nn.Module):
    """Scores by hand; what is masked is minus infinity."""

    def __init__(self) -> None:
        super().__init__()
        self.q, self.k, self.v, self.o = (nn.Linear(D, D) for _ in range(4))

    def split(self, x: Tensor) -> Tensor:
        return x.view(x.size(0), -1, H, D // H).transpose(1, 2)

    def hidden(self, score: Tensor, seen: Tensor) -> Tensor:
        return score.masked_fill(seen[:, None, None] == 0, float("-inf"))

    def forward(self, x: Tensor, *seen: Tensor) -> Tensor:
        score = self.split(self.q(x)) @ self.split(self.k(x)).transpose(-2, -1) / math.sqrt(D // H)
        y = self.hidden(score, *seen).softmax(-1) @ self.split(self.v(x))
        return self.o(y.transpose(1, 2).reshape(x.size(0), -1, D))


class Score(K.Layer):
    """Query, key and value in one matrix; scores as ``[batch, heads, to, from]`` without a turn of axes."""

    def __init__(self, scale: float = (D // H) ** -0.5, axis: int = -1, **options: Any) -> None:
        super().__init__(**options)
        self.scale, self.axis = scale, axis
        self.qkv, self.proj = K.Dense(3 * D, name="qkv"), K.Dense(D, name="proj")

    def call(self, x: Any, bias: Any) -> Any:
        q, k, v = ops.split(ops.reshape(self.qkv(x), (-1, x.shape[1], 3 * H, D // H)), 3, axis=2)
        score = ops.einsum("bqhd,bkhd->bhqk", q, k) * self.scale
        y = ops.einsum("bhqk,bkhd->bqhd", ops.softmax(score + bias, axis=self.axis), v)
        return self.proj(ops.reshape(y, (-1, x.shape[1], D)))


FUSED = (
    moved("q.weight k.weight v.weight", "qkv/kernel", lambda *parts: turned(np.concatenate(parts)))
    | moved("q.bias k.bias v.bias", "qkv/bias", lambda *parts: np.concatenate(parts))
    | dense("o", "proj")
)


def additive_keras(kind: str = "float32", *, minus: float = -1e9, **options: Any) -> Any:
    """``(1 - mask) * -1e9``."""
    x, seen = keras.Input((T, D)), keras.Input((T,), dtype=kind)
    bias = K.Lambda(lambda one: (1.0 - ops.cast(one, "float32")[:, None, None, :]) * minus)(seen)
    return keras.Model([x, seen], Score(**options)(x, bias))


ADDITIVE = Pair(
    "additive mask", "masks", SelfAttention, additive_keras, draws(floats(2, T, D), mask(2, T)), FUSED
)


class BooleanMask(SelfAttention):
    def hidden(self, score: Tensor, seen: Tensor) -> Tensor:
        return torch.where(seen[:, None, None, :], score, torch.finfo(score.dtype).min)


class IntegerMask(SelfAttention):
    """A mask of 0 and 1 in integers, as tokenizers give it."""

    def hidden(self, score: Tensor, seen: Tensor) -> Tensor:
        extended = (1.0 - seen[:, None, None, :].to(score.dtype)) * -10000.0
        return score + extended


class PairMask(SelfAttention):
    """Query and key must both be there; the mask goes in as a logarithm."""

    def hidden(self, score: Tensor, seen: Tensor) -> Tensor:
        both = seen.unsqueeze(1) * seen.unsqueeze(2)
        return score + torch.log(both[:, None] + 1e-9)


def pair_mask_keras() -> Any:
    x, seen = keras.Input((T, D)), keras.Input((T,))
    both = ops.einsum("bq,bk->bqk", seen, seen)
    return keras.Model([x, seen], Score()(x, ops.log(1e-9 + both[:, None])))


class Causal(SelfAttention):
    """Nobody looks ahead."""

    def hidden(self, score: Tensor) -> Tensor:
        ahead = torch.ones(score.shape[-2:], dtype=torch.bool).triu(1)
        return score.masked_fill(ahead, -math.inf)


def causal_keras(*, ahead: int = 0, **options: Any) -> Any:
    x = keras.Input((T, D))
    seen = tf.linalg.band_part(tf.ones((T, T)), -1, ahead)
    return keras.Model(x, Score(**options)(x, (1.0 - seen) * -1e9))


CAUSAL = Pair("triangular mask", "masks", Causal, causal_keras, draws(floats(2, T, D)), FUSED)


class Window(SelfAttention):
    """Two neighbours on either side."""

    def hidden(self, score: Tensor) -> Tensor:
        at = torch.arange(score.size(-1))
        near = (at[None, :] - at[:, None]).abs() <= 2
        return torch.where(near, score, torch.full_like(score, -1e9))


def window_keras(*, reach: int = 2) -> Any:
    x = keras.Input((T, D))
    far = np.abs(np.subtract.outer(np.arange(T), np.arange(T))) > reach
    return keras.Model(x, Score()(x, np.where(far, np.float32(-1e9), np.float32(0))))


WINDOW = Pair("window by comparison", "masks", Window, window_keras, draws(floats(2, T, D)), FUSED)


class Alibi(SelfAttention):
    """A slope for each head, times the distance."""

    def __init__(self) -> None:
        super().__init__()
        self.register_buffer("slopes", 2.0 ** -torch.arange(1.0, H + 1), persistent=False)

    def hidden(self, score: Tensor) -> Tensor:
        at = torch.arange(score.size(-1))
        distance = (at[None] - at[:, None]).abs()
        return score - self.slopes[:, None, None] * distance


def alibi_keras(*, base: float = 0.5) -> Any:
    x = keras.Input((T, D))
    slopes = np.array([base**i for i in range(1, H + 1)], np.float32)
    distance = np.abs(np.arange(T)[:, None] - np.arange(T)).astype("float32")
    return keras.Model(x, Score()(x, -np.einsum("h,qk->hqk", slopes, distance)))


ALIBI = Pair("slopes of distance", "masks", Alibi, alibi_keras, draws(floats(2, T, D)), FUSED)


class RelativeBias(SelfAttention):
    """A learned number for each head and distance."""

    def __init__(self) -> None:
        super().__init__()
        self.bias = nn.Embedding(2 * T - 1, H)

    def hidden(self, score: Tensor) -> Tensor:
        at = torch.arange(T)
        return score + self.bias(at[None, :] - at[:, None] + T - 1).permute(2, 0, 1).unsqueeze(0)


class TableBias(K.Layer):
    def __init__(self, sign: int = 1) -> None:
        super().__init__(name="relative")
        self.index = (np.arange(T)[None] - np.arange(T)[:, None]) * sign + T - 1

    def build(self, _: Any) -> None:
        self.table = self.add_weight(shape=(H, 2 * T - 1), name="table")

    def call(self, _: Any) -> Any:
        return ops.take(self.table, self.index, axis=1)


def relative_keras(**options: Any) -> Any:
    x = keras.Input((T, D))
    return keras.Model(x, Score()(x, TableBias(**options)(x)))


RELATIVE = Pair(
    "relative position bias", "masks", RelativeBias, relative_keras, draws(floats(2, T, D)),
    FUSED | moved("bias.weight", "relative/table", turned),
)  # fmt: skip


class Decoder(nn.Module):
    """Causal and padded at once, with PyTorch's own scaled dot product."""

    def __init__(self) -> None:
        super().__init__()
        self.table, self.place = nn.Embedding(40, D), nn.Parameter(torch.zeros(T, D))
        self.qkv, self.out = nn.Linear(D, 3 * D, bias=False), nn.Linear(D, 5)

    def forward(self, ids: Tensor) -> Tensor:
        x = self.table(ids) + self.place
        q, k, v = (part.unflatten(-1, (H, -1)).transpose(1, 2) for part in self.qkv(x).chunk(3, -1))
        seen = (ids != 0)[:, None, None, :] & torch.ones(T, T, dtype=torch.bool).tril()
        y = F.scaled_dot_product_attention(q, k, v, attn_mask=seen)
        return self.out(y.transpose(1, 2).flatten(2))


class KerasDecoder(keras.Model):
    def __init__(self, *, causal: bool = True) -> None:
        super().__init__()
        self.causal = causal
        self.words, self.places = K.Embedding(40, D, name="words"), K.Embedding(T, D, name="places")
        self.query, self.key, self.value = (
            K.EinsumDense("btd,dhe->bhte", (H, T, D // H), name=name) for name in ("query", "key", "value")
        )
        self.last = K.Dense(5, name="last")

    def call(self, text: Any) -> Any:
        x = self.words(text) + self.places(ops.arange(T))[None]
        score = ops.matmul(self.query(x), ops.swapaxes(self.key(x), -1, -2)) / np.sqrt(D / H)
        seen = ops.cast(text > 0, "bool")[:, None, None]
        if self.causal:
            seen = ops.logical_and(seen, ops.arange(T)[None] <= ops.arange(T)[:, None])
        y = ops.matmul(ops.softmax(ops.where(seen, score, -1e9)), self.value(x))
        return self.last(ops.reshape(ops.transpose(y, (0, 2, 1, 3)), (-1, T, D)))


def third_of_heads(which: int) -> Any:
    return lambda value: np.split(value, 3)[which].T.reshape(D, H, -1)


DECODER = Pair(
    "causal and padded", "masks", Decoder, KerasDecoder, draws(padded(40, 3, T)),
    embedding("table", "words") | same("place", "places/embeddings") | dense("out", "last")
    | moved("qkv.weight", "query/kernel", third_of_heads(0)) | moved("qkv.weight", "key/kernel", third_of_heads(1))
    | moved("qkv.weight", "value/kernel", third_of_heads(2)),
)  # fmt: skip


class WordScores(nn.Module):
    """Weights of words by a score each, no weight on padding; the ids come as int32."""

    def __init__(self) -> None:
        super().__init__()
        self.emb, self.score, self.out = nn.Embedding(40, D), nn.Linear(D, 1), nn.Linear(D, 3)

    def forward(self, ids: Tensor) -> Tensor:
        x = self.emb(ids)
        score = self.score(torch.tanh(x)).squeeze(-1)
        weight = torch.exp(score - score.max(dim=1, keepdim=True).values) * (ids > 0)
        weight = weight / weight.sum(1, keepdim=True)
        return self.out(torch.bmm(weight.unsqueeze(1), x).squeeze(1))


def word_scores_keras(*, activation: str = "tanh") -> Any:
    text = keras.Input((T,), dtype="int32")
    x = K.Embedding(40, D, name="lookup")(text)
    score = K.Dense(1, name="rate")(K.Activation(activation)(x))
    score = score - 1e9 * ops.cast(ops.equal(text, 0), "float32")[..., None]
    pooled = K.Dot(axes=1)([K.Softmax(axis=1)(score), x])
    return keras.Model(text, K.Dense(3, name="label")(K.Flatten()(pooled)))


SCORES = Pair(
    "scores of words", "masks", WordScores, word_scores_keras, draws(padded(40, 3, T, kind="int32")),
    several(dense, "score rate", "out label") | embedding("emb", "lookup"),
)  # fmt: skip


class ManyHeads(nn.Module):
    """The same padding for PyTorch's encoder layer, before the norm, and for a longer memory."""

    def __init__(self) -> None:
        super().__init__()
        self.attn, self.norm = nn.MultiheadAttention(D, H, batch_first=True), nn.LayerNorm(D)

    def forward(self, x: Tensor, memory: Tensor, keep: Tensor) -> Tensor:
        y, _ = self.attn(self.norm(x), memory, memory, key_padding_mask=torch.logical_not(keep))
        return x + y


def many_heads_keras(*, residual: bool = True) -> Any:
    x, memory, keep = keras.Input((4, D)), keras.Input((T, D)), keras.Input((T,), dtype="bool")
    y = K.LayerNormalization(epsilon=1e-5, name="ln")(x)
    y = K.MultiHeadAttention(H, D // H, name="cross")(y, memory, attention_mask=ops.expand_dims(keep, 1))
    return keras.Model([x, memory, keep], ops.add(x, y) if residual else y)


MEMORY = Pair(
    "padded memory", "masks", ManyHeads, many_heads_keras,
    draws(floats(2, 4, D), floats(2, T, D), mask(2, T, kind="bool")), attention("attn", "cross", H) | norm("norm", "ln"),
)  # fmt: skip

PAIRS = (
    PADDED, ADDITIVE, CAUSAL, WINDOW, ALIBI, RELATIVE, DECODER, SCORES, MEMORY,
    Pair("boolean mask", "masks", BooleanMask, lambda: additive_keras("bool"),
         draws(floats(2, T, D), mask(2, T, kind="bool")), FUSED),
    Pair("integer mask", "masks", IntegerMask, lambda: additive_keras("int32", minus=-1e4),
         draws(floats(2, T, D), mask(2, T, kind="int64")), FUSED),
    Pair("mask of pairs", "masks", PairMask, pair_mask_keras, draws(floats(2, T, D), mask(2, T)), FUSED),
    Pair("relative position bias, other direction", "masks", RelativeBias, lambda: relative_keras(sign=-1),
         draws(floats(2, T, D)), FUSED | moved("bias.weight", "relative/table", lambda value: value[::-1].T)),
    PADDED.alike("no mask", {"mask"}, keras=lambda: padded_encoder_keras(masked=False)),
    PADDED.alike("epsilon", {"epsilon"}, keras=lambda: padded_encoder_keras(epsilon=1e-2)),
    PADDED.alike("mean over padding too", {"mean", "Div", "divisor"}, keras=lambda: padded_encoder_keras(mean="all")),
    ADDITIVE.alike("scale", {"scale"}, keras=lambda: additive_keras(scale=1.0)),
    ADDITIVE.alike("weak mask", {"mask", "constant"}, keras=lambda: additive_keras(minus=-1.0)),
    CAUSAL.alike("one ahead", {"mask"}, keras=lambda: causal_keras(ahead=1)),
    CAUSAL.alike("softmax over queries", {"axis"}, keras=lambda: causal_keras(axis=-2)),
    WINDOW.alike("reach", {"mask", "constant"}, keras=lambda: window_keras(reach=1)),
    ALIBI.alike("slopes", {"constant", "slope"}, keras=lambda: alibi_keras(base=0.25)),
    DECODER.alike("not causal", {"mask", "causal"}, keras=lambda: KerasDecoder(causal=False)),
    SCORES.alike("sigmoid", {"tanh", "sigmoid"}, keras=lambda: word_scores_keras(activation="sigmoid")),
    MEMORY.alike("no residual", {"residual", "Add"}, keras=lambda: many_heads_keras(residual=False)),
)  # fmt: skip
