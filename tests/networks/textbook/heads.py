"""Attention with other parts: cross, additive, linear, cosine, latent queries, gates, encoder and decoder, tied ends."""

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

from tests.networks.textbook.pair import Pair, draws, floats, ids, padded
from tests.networks.textbook.truth import (
    attention,
    dense,
    from_heads,
    gru,
    heads,
    moved,
    norm,
    same,
    several,
)

D = 12


class Folded(nn.Module):
    """Heads folded into the batch, as the first transformers for TensorFlow did; here by ``view``."""

    def __init__(self) -> None:
        super().__init__()
        self.fc_q, self.fc_k, self.fc_v, self.fc_o = (nn.Linear(D, D) for _ in range(4))
        self.norm = nn.LayerNorm(D)

    def forward(self, x: Tensor, y: Tensor) -> Tensor:
        q, k, v = self.fc_q(x), self.fc_k(y), self.fc_v(y)
        q_, k_, v_ = (torch.cat(one.split(3, 2), 0) for one in (q, k, v))
        weight = torch.softmax(q_.bmm(k_.transpose(1, 2)) / math.sqrt(D), 2)
        out = torch.cat((q_ + weight.bmm(v_)).split(q.size(0), 0), 2)
        return self.norm(out + F.relu(self.fc_o(out)))


class SetBlock(K.Layer):
    """The heads in front of the batch."""

    def __init__(self, *, scale: float = D**0.5, number: int = 4) -> None:
        super().__init__(name="mab")
        self.scale, self.number = scale, number
        self.q, self.k, self.v, self.o = (K.Dense(D, name=name) for name in "qkvo")
        self.norm = K.LayerNormalization(epsilon=1e-5, name="ln")

    def call(self, x: Any, y: Any) -> Any:
        def apart(one: Any, steps: int) -> Any:
            return tf.transpose(tf.reshape(one, (-1, steps, self.number, D // self.number)), (2, 0, 1, 3))

        q, k, v = apart(self.q(x), x.shape[1]), apart(self.k(y), y.shape[1]), apart(self.v(y), y.shape[1])
        weight = tf.nn.softmax(tf.matmul(q, k, transpose_b=True) / self.scale)
        z = tf.reshape(tf.transpose(q + tf.matmul(weight, v), (1, 2, 0, 3)), (-1, x.shape[1], D))
        return self.norm(z + tf.nn.relu(self.o(z)))


def folded_keras(**options: Any) -> Any:
    x, y = keras.Input((3, D)), keras.Input((5, D))
    return keras.Model([x, y], SetBlock(**options)(x, y))


FOLDED = Pair(
    "heads in the batch, cross", "heads", Folded, folded_keras, draws(floats(2, 3, D), floats(2, 5, D)),
    several(dense, "fc_q q", "fc_k k", "fc_v v", "fc_o o") | norm("norm", "ln"),
)  # fmt: skip


class Bahdanau(nn.Module):
    """Additive attention of a state over the steps of an encoder."""

    def __init__(self) -> None:
        super().__init__()
        self.encoder, self.state = nn.GRU(6, 8, batch_first=True), nn.Linear(4, 8)
        self.W, self.U, self.v = nn.Linear(8, 10), nn.Linear(8, 10), nn.Linear(10, 1)
        self.out = nn.Linear(16, 3)

    def forward(self, x: Tensor, s: Tensor) -> tuple[Tensor, Tensor]:
        steps, _ = self.encoder(x)
        s = torch.tanh(self.state(s))
        score = self.v(torch.tanh(self.W(s).unsqueeze(1) + self.U(steps)))
        weight = F.softmax(score, dim=1)
        context = (weight * steps).sum(dim=1)
        return self.out(torch.cat((context, s), dim=-1)), weight.squeeze(2)


def bahdanau_keras(*, axis: int = 1, order: int = 1) -> Any:
    x, s = keras.Input((5, 6)), keras.Input((4,))
    steps, state = K.GRU(8, return_sequences=True)(x), K.Dense(8, activation="tanh", name="state")(s)
    asked = K.RepeatVector(5)(K.Dense(10, name="asked")(state))
    score = K.Dense(1, name="score")(
        K.Activation("tanh")(K.Add()([K.Dense(10, name="offered")(steps), asked]))
    )
    weight = K.Softmax(axis=axis)(score)
    context = K.Flatten()(K.Dot(axes=(1, 1))([weight, steps]))
    answer = K.Dense(3, name="answer")(K.Concatenate()([context, state][::order]))
    return keras.Model([x, s], [answer, K.Reshape((5,))(weight)])


BAHDANAU = Pair(
    "additive", "heads", Bahdanau, bahdanau_keras, draws(floats(2, 5, 6), floats(2, 4)),
    gru("encoder", "gru/gru_cell") | several(dense, "state state", "W asked", "U offered", "v score", "out answer"),
)  # fmt: skip


class Luong(nn.Module):
    """Multiplicative attention with a matrix between."""

    def __init__(self) -> None:
        super().__init__()
        self.W, self.combine = nn.Parameter(torch.zeros(6, 8)), nn.Linear(14, 9, bias=False)

    def forward(self, query: Tensor, memory: Tensor) -> Tensor:
        score = query @ self.W @ memory.transpose(1, 2)
        context = score.softmax(-1) @ memory
        return torch.tanh(self.combine(torch.cat([context, query], 2)))


class KerasLuong(tf.Module):
    """No Keras at all."""

    def __init__(self, axis: int = -1) -> None:
        super().__init__()
        self.axis = axis
        self.between = tf.Variable(tf.zeros((8, 6)), name="between")
        self.combine = tf.Variable(tf.zeros((14, 9)), name="combine")

    def __call__(self, query: Any, memory: Any) -> Any:
        score = tf.einsum("bqi,ji,bkj->bqk", query, self.between, memory)
        context = tf.einsum("bqk,bkj->bqj", tf.nn.softmax(score, axis=self.axis), memory)
        return tf.math.tanh(tf.tensordot(tf.concat([context, query], -1), self.combine, axes=1))


LUONG = Pair(
    "multiplicative, tf.Module", "heads", Luong, KerasLuong, draws(floats(2, 3, 6), floats(2, 5, 8)),
    moved("W", "between", lambda value: value.T) | moved("combine.weight", "combine", lambda value: value.T),
)  # fmt: skip


class LinearAttention(nn.Module):
    """Features of a kernel instead of a softmax: ``elu + 1``."""

    def __init__(self) -> None:
        super().__init__()
        self.to_qkv, self.to_out = nn.Linear(D, 3 * D, bias=False), nn.Linear(D, D)

    def forward(self, x: Tensor) -> Tensor:
        q, k, v = self.to_qkv(x).view(x.size(0), x.size(1), 3, 2, D // 2).unbind(2)
        q, k = F.elu(q) + 1, F.elu(k) + 1
        memory = torch.einsum("nshd,nshm->nhmd", k, v)
        scale = 1 / (torch.einsum("nlhd,nhd->nlh", q, k.sum(1)) + 1e-6)
        return self.to_out(torch.einsum("nlhd,nhmd,nlh->nlhm", q, memory, scale).flatten(2))


class Kernel(K.Layer):
    def __init__(self, *, feature: Any) -> None:
        super().__init__(name="kernel")
        self.feature = feature
        self.q, self.k, self.v = (
            K.EinsumDense("btd,dhe->bhte", (2, None, D // 2), name=name) for name in "qkv"
        )
        self.out = K.EinsumDense("bhte,hed->btd", (None, D), bias_axes="d", name="out")

    def call(self, x: Any) -> Any:
        q, k, v = self.feature(self.q(x)), self.feature(self.k(x)), self.v(x)
        score = ops.matmul(q, ops.transpose(k, (0, 1, 3, 2)))
        return self.out(ops.matmul(score, v) / (ops.sum(score, -1, keepdims=True) + 1e-6))


def linear_keras(feature: Any = lambda x: 1.0 + keras.activations.elu(x)) -> Any:
    x = keras.Input((5, D))
    return keras.Model(x, Kernel(feature=feature)(x))


def head_of(which: int) -> Any:
    return lambda value: value.reshape(3, 2, D // 2, D)[which].transpose(2, 0, 1)


LINEAR = Pair(
    "linear attention", "heads", LinearAttention, linear_keras, draws(floats(2, 5, D)),
    moved("to_qkv.weight", "q/kernel", head_of(0)) | moved("to_qkv.weight", "k/kernel", head_of(1))
    | moved("to_qkv.weight", "v/kernel", head_of(2)) | from_heads("to_out", "out", 2),
)  # fmt: skip


class Cosine(nn.Module):
    """Unit queries and keys, a learned temperature under a ceiling."""

    def __init__(self) -> None:
        super().__init__()
        self.q, self.k, self.v = nn.Linear(D, D), nn.Linear(D, D, bias=False), nn.Linear(D, D)
        self.logit_scale = nn.Parameter(torch.full((3, 1, 1), 2.0))
        self.proj = nn.Linear(D, D)

    def forward(self, x: Tensor) -> Tensor:
        q, k, v = (f(x).unflatten(2, (3, 4)).transpose(1, 2) for f in (self.q, self.k, self.v))
        score = F.normalize(q, dim=-1) @ F.normalize(k, dim=-1).transpose(-2, -1)
        score = score * torch.clamp(self.logit_scale, max=math.log(100.0)).exp()
        return self.proj((score.softmax(-1) @ v).transpose(1, 2).flatten(2))


class KerasCosine(K.Layer):
    def __init__(self, *, ceiling: float = 100.0, axis: int = -1) -> None:
        super().__init__(name="cosine")
        self.ceiling, self.axis = ceiling, axis
        self.query, self.value, self.out = (K.Dense(D, name=name) for name in ("query", "value", "out"))
        self.key = K.Dense(D, use_bias=False, name="key")

    def build(self, _: Any) -> None:
        self.temperature = self.add_weight(shape=(3,), name="temperature")

    def call(self, x: Any) -> Any:
        q, k, v = (tf.reshape(f(x), (-1, 5, 3, 4)) for f in (self.query, self.key, self.value))
        score = tf.einsum(
            "bqhd,bkhd->bhqk", tf.nn.l2_normalize(q, self.axis), tf.nn.l2_normalize(k, self.axis)
        )
        heat = tf.exp(tf.minimum(self.temperature, np.log(self.ceiling)))
        weight = tf.nn.softmax(score * tf.reshape(heat, (3, 1, 1)), axis=-1)
        return self.out(tf.reshape(tf.einsum("bhqk,bkhd->bqhd", weight, v), (-1, 5, D)))


def cosine_keras(**options: Any) -> Any:
    x = keras.Input((5, D))
    return keras.Model(x, KerasCosine(**options)(x))


COSINE = Pair(
    "cosine attention", "heads", Cosine, cosine_keras, draws(floats(2, 5, D)),
    several(dense, "q query", "v value", "proj out") | dense("k", "key", bias=False)
    | moved("logit_scale", "temperature", np.ravel),
)  # fmt: skip


class Latents(nn.Module):
    """Learned queries read a set, as in Perceiver; a seed pools them."""

    def __init__(self) -> None:
        super().__init__()
        self.latents, self.seed = nn.Parameter(torch.zeros(4, D)), nn.Parameter(torch.zeros(D))
        self.read, self.norm = nn.MultiheadAttention(D, 2, batch_first=True), nn.LayerNorm(D)
        self.fc = nn.Linear(D, 3)

    def forward(self, x: Tensor) -> Tensor:
        q = self.latents.unsqueeze(0).repeat(x.shape[0], 1, 1)
        z = self.norm(q + self.read(q, x, x, need_weights=False)[0])
        weight = torch.softmax(z @ self.seed, dim=1)
        return self.fc(torch.einsum("bn,bnd->bd", weight, z))


class KerasLatents(keras.Model):
    def __init__(self, *, residual: bool = True) -> None:
        super().__init__()
        self.residual = residual
        self.slots = self.add_weight(shape=(1, 4, D), name="slots")
        self.ask = self.add_weight(shape=(D, 1), name="ask")
        self.attend, self.norm = (
            K.MultiHeadAttention(2, D // 2, name="attend"),
            K.LayerNormalization(epsilon=1e-5, name="ln"),
        )
        self.label = K.Dense(3, name="label")

    def call(self, inputs: Any) -> Any:
        slots = ops.broadcast_to(self.slots, (ops.shape(inputs)[0], 4, D))
        z = self.attend(slots, inputs)
        z = self.norm(z + slots if self.residual else z)
        weight = ops.softmax(ops.matmul(z, self.ask), axis=1)
        return self.label(ops.sum(weight * z, axis=1))


LATENTS = Pair(
    "latent queries", "heads", Latents, KerasLatents, draws(floats(2, 6, D)),
    moved("latents", "slots", lambda value: value[None]) | moved("seed", "ask", lambda value: value[:, None])
    | attention("read", "attend", 2) | norm("norm", "ln") | dense("fc", "label"),
)  # fmt: skip


class Seq2Seq(nn.Module):
    """Encoder and decoder of PyTorch's own layers, one embedding for both and for the end."""

    def __init__(self) -> None:
        super().__init__()
        self.shared = nn.Embedding(30, D)
        self.encoder = nn.TransformerEncoderLayer(D, 2, 16, batch_first=True, norm_first=True)
        self.decoder = nn.TransformerDecoderLayer(D, 2, 16, batch_first=True, norm_first=True)
        self.end = nn.Linear(D, 30, bias=False)
        self.end.weight = self.shared.weight

    def forward(self, source: Tensor, target: Tensor) -> Tensor:
        hidden = source == 0
        memory = self.encoder(self.shared(source), src_key_padding_mask=hidden)
        ahead = torch.triu(torch.ones(target.size(1), target.size(1), dtype=torch.bool), diagonal=1)
        y = self.decoder(self.shared(target), memory, tgt_mask=ahead, memory_key_padding_mask=hidden)
        return self.end(y)


class KerasSeq2Seq(keras.Model):
    def __init__(self, *, causal: bool = True, masked: bool = True, activation: str = "relu") -> None:
        super().__init__()
        self.causal, self.masked = causal, masked
        self.table = self.add_weight(shape=(30, D), name="table")
        self.mixers = {
            name: K.MultiHeadAttention(2, D // 2, name=name) for name in ("self_enc", "self_dec", "cross")
        }
        self.norms = [K.LayerNormalization(epsilon=1e-5, name=f"ln_{i}") for i in range(5)]
        self.wide = [K.Dense(16, activation=activation, name=f"wide_{i}") for i in range(2)]
        self.narrow = [K.Dense(D, name=f"narrow_{i}") for i in range(2)]

    def call(self, source: Any, target: Any) -> Any:
        seen = (source != 0)[:, None] if self.masked else None
        x, y = tf.gather(self.table, source), tf.nn.embedding_lookup(self.table, target)
        n = self.norms[0](x)
        x += self.mixers["self_enc"](n, n, attention_mask=seen)
        x += self.narrow[0](self.wide[0](self.norms[1](x)))
        n = self.norms[2](y)
        y += self.mixers["self_dec"](n, n, use_causal_mask=self.causal)
        y += self.mixers["cross"](self.norms[3](y), x, attention_mask=seen)
        y += self.narrow[1](self.wide[1](self.norms[4](y)))
        return tf.matmul(y, self.table, transpose_b=True)


SEQ2SEQ = Pair(
    "encoder and decoder", "heads", Seq2Seq, KerasSeq2Seq, draws(padded(30, 2, 6), ids(30, 2, 4, low=1)),
    same("shared.weight", "table") | attention("encoder.self_attn", "self_enc", 2)
    | attention("decoder.self_attn", "self_dec", 2) | attention("decoder.multihead_attn", "cross", 2)
    | several(norm, "encoder.norm1 ln_0", "encoder.norm2 ln_1", "decoder.norm1 ln_2", "decoder.norm2 ln_3", "decoder.norm3 ln_4")
    | several(dense, "encoder.linear1 wide_0", "encoder.linear2 narrow_0", "decoder.linear1 wide_1", "decoder.linear2 narrow_1"),
)  # fmt: skip


class Talking(nn.Module):
    """Scores of all heads are mixed before and behind the softmax."""

    def __init__(self) -> None:
        super().__init__()
        self.q, self.k, self.v, self.o = (nn.Linear(D, D) for _ in range(4))
        self.before, self.behind = (nn.Conv2d(3, 3, 1, bias=False) for _ in range(2))

    def forward(self, x: Tensor) -> Tensor:
        q, k, v = (f(x).view(len(x), -1, 3, 4).transpose(1, 2) for f in (self.q, self.k, self.v))
        score = self.behind(self.before(q @ k.transpose(2, 3) / 2).softmax(3))
        return self.o((score @ v).transpose(1, 2).flatten(2))


class KerasTalking(K.Layer):
    def __init__(self, *, axis: int = -1) -> None:
        super().__init__(name="talking")
        self.axis = axis
        self.q, self.k, self.v = (
            K.EinsumDense("btd,dhe->bthe", (None, 3, 4), bias_axes="he", name=n) for n in "qkv"
        )
        self.o = K.EinsumDense("bthe,hed->btd", (None, D), bias_axes="d", name="o")

    def build(self, _: Any) -> None:
        self.mix, self.remix = (self.add_weight(shape=(3, 3), name=name) for name in ("mix", "remix"))

    def call(self, x: Any) -> Any:
        score = ops.einsum("bqhd,bkhd,hg->bgqk", self.q(x), self.k(x), self.mix) * 0.5
        return self.o(ops.einsum("bgqk,gh,bkhd->bqhd", ops.softmax(score, self.axis), self.remix, self.v(x)))


def talking_keras(**options: Any) -> Any:
    x = keras.Input((5, D))
    return keras.Model(x, KerasTalking(**options)(x))


TALKING = Pair(
    "talking heads", "heads", Talking, talking_keras, draws(floats(2, 5, D)),
    several(heads, "q q", "k k", "v v", number=3) | from_heads("o", "o", 3)
    | moved("before.weight", "talking/mix", lambda value: value[:, :, 0, 0].T)
    | moved("behind.weight", "talking/remix", lambda value: value[:, :, 0, 0].T),
)  # fmt: skip

PAIRS = (
    FOLDED, BAHDANAU, LUONG, LINEAR, COSINE, LATENTS, SEQ2SEQ, TALKING,
    FOLDED.alike("scale", {"scale", "constant"}, keras=lambda: folded_keras(scale=3**0.5)),
    FOLDED.alike("heads", {"heads", "num_heads", "shape"}, keras=lambda: folded_keras(number=2)),
    BAHDANAU.alike("softmax over the batch", {"axis"}, keras=lambda: bahdanau_keras(axis=0)),
    LUONG.alike("softmax over queries", {"axis"}, keras=lambda: KerasLuong(1)),
    LINEAR.alike("relu for elu + 1", {"Relu", "Elu"}, keras=lambda: linear_keras(lambda x: ops.relu(x) + 1.0)),
    COSINE.alike("unit over heads", {"axis"}, keras=lambda: cosine_keras(axis=2)),
    COSINE.alike("ceiling", {"constant", "Min", "Clip"}, keras=lambda: cosine_keras(ceiling=0.5)),
    LATENTS.alike("no residual", {"residual", "Add"}, keras=lambda: KerasLatents(residual=False)),
    SEQ2SEQ.alike("decoder looks ahead", {"mask", "causal"}, keras=lambda: KerasSeq2Seq(causal=False)),
    SEQ2SEQ.alike("activation", {"activation", "Relu", "Gelu"}, keras=lambda: KerasSeq2Seq(activation="gelu")),
    TALKING.alike("softmax over queries", {"axis"}, keras=lambda: talking_keras(axis=-2)),
)  # fmt: skip
