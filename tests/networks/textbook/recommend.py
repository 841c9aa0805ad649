"""Recommenders: factorisation, crosses, histories of clicks, towers; ids, numbers and scalars as inputs."""

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

from tests.networks.textbook.pair import Pair, draws, floats, ids, mask, padded, uniform
from tests.networks.textbook.truth import (
    attention,
    batch_norm,
    dense,
    embedding,
    gru,
    moved,
    norm,
    same,
    several,
)

FIELDS, D = (6, 9, 4), 5
OFFSETS = np.cumsum((0, *FIELDS[:-1]))


class DeepFm(nn.Module):
    """One table for all fields, with offsets; the square of the sum less the sum of squares; a deep part."""

    def __init__(self) -> None:
        super().__init__()
        self.register_buffer("offsets", torch.tensor(OFFSETS), persistent=False)
        self.linear, self.embedding, self.bias = (
            nn.Embedding(19, 1),
            nn.Embedding(19, D),
            nn.Parameter(torch.zeros(1)),
        )
        self.mlp = nn.Sequential(
            nn.Linear(3 * D, 8), nn.BatchNorm1d(8), nn.ReLU(), nn.Dropout(0.2), nn.Linear(8, 1)
        )

    def forward(self, x: Tensor) -> Tensor:
        x = x + self.offsets
        e = self.embedding(x)
        pairs = 0.5 * (e.sum(1).pow(2) - e.pow(2).sum(1)).sum(1, keepdim=True)
        y = self.linear(x).sum(1) + self.bias + pairs + self.mlp(e.view(-1, 3 * D))
        return torch.sigmoid(y)


def field(which: int) -> Any:
    return lambda value: value[OFFSETS[which] : OFFSETS[which] + FIELDS[which]]


def deep_fm_keras(*, factor: float = 1.0, epsilon: float = 1e-5, first: bool = True) -> Any:
    """A table and an input for each field; pairs are multiplied one by one."""
    inputs = [keras.Input((), dtype="int32", name=f"field_{i}") for i in range(3)]
    each = [K.Embedding(size, D, name=f"factors_{i}")(inputs[i]) for i, size in enumerate(FIELDS)]
    ones = [K.Embedding(size, 1, name=f"weight_{i}")(inputs[i]) for i, size in enumerate(FIELDS)]
    pairs = K.Add()([K.Dot(axes=1)([each[i], each[j]]) for i in range(3) for j in range(i + 1, 3)])
    deep = K.BatchNormalization(epsilon=epsilon, name="bn")(K.Dense(8, name="deep")(K.Concatenate()(each)))
    deep = K.Dense(1, name="last")(K.Dropout(0.2)(K.ReLU()(deep)))
    parts = [*(ones if first else []), pairs * factor, deep]
    return keras.Model(inputs, K.Activation("sigmoid")(Shift(name="shift")(K.Add()(parts))))


class Shift(K.Layer):
    def build(self, shape: Any) -> None:
        self.bias = self.add_weight(shape=(shape[-1],), initializer="zeros", name="bias")

    def call(self, x: Any) -> Any:
        return x + self.bias


class ByField(DeepFm):
    """The fields come one by one."""

    def forward(self, *fields: Tensor) -> Tensor:
        return super().forward(torch.stack(fields, 1))


DEEP_FM = Pair(
    "DeepFM", "recommend", ByField, deep_fm_keras, draws(*(ids(size, 4) for size in FIELDS)),
    {end: step for i in range(3) for end, step in (
        moved("embedding.weight", f"factors_{i}/embeddings", field(i))
        | moved("linear.weight", f"weight_{i}/embeddings", field(i))).items()}
    | same("bias", "shift/bias") | batch_norm("mlp.1", "bn") | several(dense, "mlp.0 deep", "mlp.4 last"),
)  # fmt: skip


class FactorMachine(nn.Module):
    """Numbers as features; the interaction from a matrix of factors."""

    def __init__(self) -> None:
        super().__init__()
        self.lin, self.V = nn.Linear(7, 1), nn.Parameter(torch.zeros(7, D))

    def forward(self, x: Tensor) -> Tensor:
        square, of_squares = torch.mm(x, self.V) ** 2, torch.mm(x**2, self.V**2)
        return self.lin(x) + 0.5 * torch.sum(square - of_squares, dim=1, keepdim=True)


class KerasFactorMachine(K.Layer):
    def __init__(self, *, own: bool = False) -> None:
        super().__init__(name="fm")
        self.own = own

    def build(self, shape: Any) -> None:
        self.w = self.add_weight(shape=(shape[-1], 1), name="w")
        self.b = self.add_weight(shape=(1,), name="b")
        self.factors = self.add_weight(shape=(D, shape[-1]), name="factors")

    def call(self, x: Any) -> Any:
        gram = ops.matmul(ops.transpose(self.factors), self.factors)
        outer = ops.einsum("bi,bj,ij->b", x, x, gram if self.own else gram * (1 - ops.eye(7)))
        return ops.matmul(x, self.w) + self.b + outer[:, None] / 2


MACHINE = Pair(
    "factorisation machine", "recommend", FactorMachine, lambda: keras.Sequential([keras.Input((7,)), KerasFactorMachine()]),
    draws(floats(4, 7)), moved("lin.weight", "fm/w", np.transpose) | same("lin.bias", "fm/b") | moved("V", "fm/factors", np.transpose),
)  # fmt: skip


class CrossNet(nn.Module):
    """Crosses by vectors, then by a matrix; numbers and ids."""

    def __init__(self) -> None:
        super().__init__()
        self.emb = nn.Embedding(8, 4)
        self.w = nn.ParameterList(nn.Parameter(torch.zeros(7)) for _ in range(2))
        self.b = nn.ParameterList(nn.Parameter(torch.zeros(7)) for _ in range(2))
        self.cross, self.out = nn.Linear(7, 7), nn.Linear(7, 1)

    def forward(self, number: Tensor, kind: Tensor) -> Tensor:
        first = x = torch.cat([number, self.emb(kind)], dim=1)
        for w, b in zip(self.w, self.b, strict=True):
            x = first * (x @ w).unsqueeze(1) + b + x
        return self.out(first * self.cross(x) + x)


class Cross(K.Layer):
    def build(self, shape: Any) -> None:
        self.kernel = self.add_weight(shape=(shape[0][-1], 1), name="kernel")
        self.bias = self.add_weight(shape=(shape[0][-1], 1), initializer="zeros", name="bias")

    def call(self, inputs: Any) -> Any:
        first, x = inputs
        outer = tf.matmul(first[:, :, None], x[:, None])
        return tf.squeeze(tf.matmul(outer, self.kernel) + self.bias + x[..., None], axis=2)


def cross_keras(*, residual: bool = True) -> Any:
    number, kind = keras.Input((3,)), keras.Input((1,), dtype="int64")
    first = K.Concatenate()([number, K.Flatten()(K.Embedding(8, 4, name="kinds")(kind))])
    x = Cross(name="cross_1")([first, first])
    x = Cross(name="cross_2")([first, x])
    y = K.Multiply()([K.Dense(7, name="full")(x), first])
    return keras.Model([number, kind], K.Dense(1, name="out")(K.Add()([y, x]) if residual else y))


def column(value: Any) -> Any:
    return value[:, None]


CROSS = Pair(
    "deep and cross", "recommend", CrossNet, cross_keras, draws(floats(4, 3), ids(8, 4)),
    embedding("emb", "kinds") | moved("w.0", "cross_1/kernel", column) | moved("w.1", "cross_2/kernel", column)
    | moved("b.0", "cross_1/bias", column) | moved("b.1", "cross_2/bias", column) | several(dense, "cross full", "out out"),
)  # fmt: skip


class Interest(nn.Module):
    """DIN: the history is weighed by what the candidate has to do with each click; Dice without statistics."""

    def __init__(self) -> None:
        super().__init__()
        self.items = nn.Embedding(30, D, padding_idx=0)
        self.att, self.score = nn.Linear(4 * D, 8), nn.Linear(8, 1)
        self.fc, self.out = nn.Linear(2 * D, 6), nn.Linear(6, 1)

    def forward(self, history: Tensor, candidate: Tensor) -> Tensor:
        h, c = self.items(history), self.items(candidate)
        q = c.unsqueeze(1).expand_as(h)
        weight = self.score(torch.sigmoid(self.att(torch.cat([q, h, q - h, q * h], dim=-1)))).squeeze(2)
        weight = torch.where(history > 0, weight, torch.zeros_like(weight))
        interest = (weight.unsqueeze(1) @ h).squeeze(1)
        return self.out(F.prelu(self.fc(torch.cat([interest, c], 1)), torch.tensor([0.25])))


def interest_keras(*, slope: float = 0.25, masked: bool = True) -> Any:
    history, candidate = keras.Input((6,), dtype="int32"), keras.Input((), dtype="int32")
    table = K.Embedding(30, D, name="items")
    h, c = table(history), table(candidate)
    q = K.RepeatVector(6)(c)
    each = (q, h, K.Subtract()([q, h]), K.Multiply()([q, h]))
    weight = K.Dense(1, name="score")(K.Dense(8, "sigmoid", name="att")(K.Concatenate()(each)))
    keep = ops.expand_dims(ops.cast(ops.not_equal(history, 0), "float32"), -1)
    weight = K.Multiply()([weight, keep]) if masked else weight
    pooled = ops.sum(weight * h, axis=1)
    y = K.LeakyReLU(negative_slope=slope)(K.Dense(6, name="fc")(K.Concatenate()([pooled, c])))
    return keras.Model([history, candidate], K.Dense(1, name="out")(y))


INTEREST = Pair(
    "deep interest", "recommend", Interest, interest_keras, draws(padded(30, 3, 6), ids(30, 3, low=1)),
    embedding("items", "items") | several(dense, "att att", "score score", "fc fc", "out out"),
)  # fmt: skip


class NeuMf(nn.Module):
    """A product of factors beside a deep part, tables of their own."""

    def __init__(self) -> None:
        super().__init__()
        self.user_gmf, self.item_gmf = nn.Embedding(10, 4), nn.Embedding(12, 4)
        self.user_mlp, self.item_mlp = nn.Embedding(10, 6), nn.Embedding(12, 6)
        self.fc1, self.fc2, self.out = nn.Linear(12, 8), nn.Linear(8, 4), nn.Linear(8, 1)

    def forward(self, user: Tensor, item: Tensor) -> Tensor:
        product = self.user_gmf(user) * self.item_gmf(item)
        deep = F.relu(self.fc2(F.relu(self.fc1(torch.cat((self.user_mlp(user), self.item_mlp(item)), -1)))))
        return torch.sigmoid(self.out(torch.cat((product, deep), -1)))


def neu_mf_keras(*, product: Any = K.Multiply, activation: str = "relu") -> Any:
    """Inputs by name; one input is ``[batch, 1]``."""
    user, item = (keras.Input((1,), dtype="int64", name=name) for name in ("user", "item"))
    tables = {name: K.Embedding(size, width, name=name) for name, size, width in (
        ("item_wide", 12, 4), ("user_wide", 10, 4), ("user_deep", 10, 6), ("item_deep", 12, 6))}  # fmt: skip
    wide = product()([K.Flatten()(tables["user_wide"](user)), K.Flatten()(tables["item_wide"](item))])
    deep = K.Concatenate()([K.Flatten()(tables["user_deep"](user)), K.Flatten()(tables["item_deep"](item))])
    deep = K.Dense(4, activation, name="d2")(K.Dense(8, activation, name="d1")(deep))
    return keras.Model(
        {"user": user, "item": item}, K.Dense(1, "sigmoid", name="score")(K.Concatenate()([wide, deep]))
    )


NEU_MF = Pair(
    "neural collaborative filtering", "recommend", NeuMf, neu_mf_keras, draws(ids(10, 4), ids(12, 4)),
    several(embedding, "user_gmf user_wide", "item_gmf item_wide", "user_mlp user_deep", "item_mlp item_deep")
    | several(dense, "fc1 d1", "fc2 d2", "out score"),
)  # fmt: skip


class TwoTower(nn.Module):
    """Cosine of two towers over a temperature, users against all items of the batch."""

    def __init__(self) -> None:
        super().__init__()
        self.user, self.item = nn.Embedding(10, 6), nn.Linear(4, 8)
        self.mlp, self.proj, self.log_t = (
            nn.Linear(6, 8),
            nn.Linear(8, D, bias=False),
            nn.Parameter(torch.tensor(0.3)),
        )

    def forward(self, user: Tensor, item: Tensor) -> Tensor:
        u = F.normalize(self.proj(F.gelu(self.mlp(self.user(user)))), dim=1)
        i = F.normalize(self.proj(F.gelu(self.item(item))), dim=1)
        return u @ i.t() / self.log_t.exp()


class KerasTwoTower(keras.Model):
    def __init__(self, *, unit: bool = True) -> None:
        super().__init__()
        self.unit, self.heat = unit, self.add_weight(shape=(), initializer="zeros", name="heat")
        self.people, self.person = (
            K.Embedding(10, 6, name="people"),
            K.Dense(8, activation="gelu", name="person"),
        )
        self.thing, self.shared = (
            K.Dense(8, activation="gelu", name="thing"),
            K.Dense(D, use_bias=False, name="shared"),
        )

    def call(self, user: Any, item: Any) -> Any:
        u, i = self.shared(self.person(self.people(user))), self.shared(self.thing(item))
        if self.unit:
            u, i = (x * tf.math.rsqrt(tf.reduce_sum(x * x, 1, keepdims=True)) for x in (u, i))
        return tf.exp(-self.heat) * tf.matmul(u, i, transpose_b=True)


TOWERS = Pair(
    "two towers, cosine", "recommend", TwoTower, KerasTwoTower, draws(ids(10, 3), floats(3, 4)),
    embedding("user", "people") | several(dense, "mlp person", "item thing") | dense("proj", "shared", bias=False)
    | same("log_t", "heat"),
)  # fmt: skip


class Compressed(nn.Module):
    """xDeepFM's crosses: outer products of fields, a convolution over them; of i times j and j times i either may be first."""

    def __init__(self) -> None:
        super().__init__()
        self.conv1, self.conv2, self.out = nn.Conv1d(9, 4, 1), nn.Conv1d(12, 4, 1), nn.Linear(8, 1)

    def forward(self, x: Tensor) -> Tensor:
        found, h = [], x
        for conv in (self.conv1, self.conv2):
            outer = torch.einsum("bhd,bmd->bhmd", h, x)
            h = F.relu(conv(outer.reshape(x.size(0), -1, x.size(2))))
            found.append(h)
        return self.out(torch.cat(found, 1).sum(-1))


def compressed_keras(*, pool: str = "sum") -> Any:
    x = keras.Input((3, D))
    h, found = x, []
    for i, width in enumerate((3, 4)):
        outer = ops.reshape(ops.einsum("bmd,bhd->bdhm", x, h), (-1, D, width * 3))
        y = K.Dense(4, "relu", name=f"layer_{i}")(outer)
        h = K.Permute((2, 1))(y)
        found.append(ops.sum(y, axis=1) if pool == "sum" else ops.mean(y, axis=1))
    return keras.Model(x, K.Dense(1, name="out")(K.Concatenate()(found)))


COMPRESSED = Pair(
    "compressed interaction", "recommend", Compressed, compressed_keras, draws(floats(3, 3, D)),
    moved("conv1.weight", "layer_0/kernel", lambda value: value[:, :, 0].T) | same("conv1.bias", "layer_0/bias")
    | moved("conv2.weight", "layer_1/kernel", lambda value: value[:, :, 0].T) | same("conv2.bias", "layer_1/bias")
    | dense("out", "out"), symmetric=True,
)  # fmt: skip


class AutoInt(nn.Module):
    """Attention between fields of numbers: each number times a vector."""

    def __init__(self) -> None:
        super().__init__()
        self.vector, self.attn = (
            nn.Parameter(torch.zeros(4, 8)),
            nn.MultiheadAttention(8, 2, batch_first=True),
        )
        self.res, self.out = nn.Linear(8, 8, bias=False), nn.Linear(32, 1)

    def forward(self, x: Tensor) -> Tensor:
        e = x.unsqueeze(-1) * self.vector
        return self.out(F.relu(self.attn(e, e, e)[0] + self.res(e)).flatten(1))


class Vectors(K.Layer):
    def build(self, shape: Any) -> None:
        self.table = self.add_weight(shape=(shape[-1], 8), name="table")

    def call(self, x: Any) -> Any:
        return tf.einsum("bf,fd->bfd", x, self.table)


def auto_int_keras(*, heads: int = 2) -> Any:
    x = keras.Input((4,))
    e = Vectors(name="vectors")(x)
    y = K.MultiHeadAttention(heads, 8 // heads, name="mix")(e, e)
    y = K.ReLU()(K.Add()([K.Dense(8, use_bias=False, name="keep")(e), y]))
    return keras.Model(x, K.Dense(1, name="out")(K.Flatten()(y)))


AUTO_INT = Pair(
    "attention of fields", "recommend", AutoInt, auto_int_keras, draws(floats(4, 4)),
    same("vector", "vectors/table") | attention("attn", "mix", 2) | dense("res", "keep", bias=False) | dense("out", "out"),
)  # fmt: skip


class Session(nn.Module):
    """GRU4Rec: the last state against all items, the table is the end; ratings are scaled between two ends."""

    def __init__(self) -> None:
        super().__init__()
        self.item, self.gru, self.bias = (
            nn.Embedding(15, 6),
            nn.GRU(6, 6, batch_first=True),
            nn.Parameter(torch.zeros(15)),
        )

    def forward(self, x: Tensor) -> Tensor:
        _, h = self.gru(self.item(x))
        return 1 + 4 * torch.sigmoid(F.linear(h[-1], self.item.weight, self.bias))


def session_keras(*, high: float = 5.0) -> Any:
    clicks = keras.Input((5,), dtype="int64")
    table = K.Embedding(15, 6, name="items")
    h = K.GRU(6, name="gru")(table(clicks))
    return keras.Model(clicks, Against(table, high, name="against")(h))


class Against(K.Layer):
    def __init__(self, table: Any, high: float, **options: Any) -> None:
        super().__init__(**options)
        self.table, self.high = table, high

    def build(self, _: Any) -> None:
        self.bias = self.add_weight(shape=(15,), name="bias")

    def call(self, h: Any) -> Any:
        score = tf.matmul(h, self.table.embeddings, transpose_b=True)
        return tf.sigmoid(tf.nn.bias_add(score, self.bias)) * (self.high - 1.0) + 1.0


SESSION = Pair(
    "session, tied ends", "recommend", Session, session_keras, draws(ids(15, 3, 5)),
    embedding("item", "items") | gru("gru", "gru/gru_cell") | same("bias", "against/bias"),
)  # fmt: skip


class WideDeep(nn.Module):
    """Four inputs of several kinds: a number without an axis, flags, ids, a list of tags averaged."""

    def __init__(self) -> None:
        super().__init__()
        self.tags, self.city = nn.EmbeddingBag(20, 4, mode="mean"), nn.Embedding(7, 3)
        self.deep, self.norm = nn.Linear(9, 6), nn.LayerNorm(6)
        self.wide, self.out = nn.Linear(3, 1, bias=False), nn.Linear(6, 1)

    def forward(self, age: Tensor, flags: Tensor, city: Tensor, tags: Tensor) -> Tensor:
        age = age.log1p().unsqueeze(-1)
        deep = torch.cat([age, flags.float()[:, :1], self.city(city), self.tags(tags)], 1)
        return self.out(F.relu(self.norm(self.deep(deep)))) + self.wide(flags.float())


def wide_deep_keras(*, epsilon: float = 1e-5, log: bool = True) -> Any:
    age, flags = keras.Input((1,)), keras.Input((3,), dtype="bool")
    city, tags = keras.Input((1,), dtype="int32"), keras.Input((5,), dtype="int32")
    flag = ops.cast(flags, "float32")
    late = ops.log(1.0 + age) if log else age
    parts = [late, flag[:, :1], K.Reshape((3,))(K.Embedding(7, 3, name="city")(city))]
    parts.append(K.GlobalAveragePooling1D()(K.Embedding(20, 4, name="tags")(tags)))
    deep = K.LayerNormalization(epsilon=epsilon, name="ln")(K.Dense(6, name="deep")(K.Concatenate()(parts)))
    wide = K.Dense(1, use_bias=False, name="wide")(flag)
    return keras.Model([age, flags, city, tags], K.Add()([wide, K.Dense(1, name="out")(K.ReLU()(deep))]))


WIDE_DEEP = Pair(
    "wide and deep, inputs of all kinds", "recommend", WideDeep, wide_deep_keras,
    draws(uniform(1, 80, 4), mask(4, 3, kind="bool"), ids(7, 4), ids(20, 4, 5)),
    several(embedding, "tags tags", "city city") | several(dense, "deep deep", "out out") | dense("wide", "wide", bias=False)
    | norm("norm", "ln"),
)  # fmt: skip

PAIRS = (
    DEEP_FM, MACHINE, CROSS, INTEREST, NEU_MF, TOWERS, COMPRESSED, AUTO_INT, SESSION, WIDE_DEEP,
    DEEP_FM.alike("pairs twice", {"constant", "Mul"}, keras=lambda: deep_fm_keras(factor=2.0)),
    DEEP_FM.alike("no weights of first order", {"missing", "Add", "unused"}, keras=lambda: deep_fm_keras(first=False)),
    MACHINE.alike("squares stay", {"Sub", "missing", "constant"},
                  keras=lambda: keras.Sequential([keras.Input((7,)), KerasFactorMachine(own=True)])),
    CROSS.alike("no residual", {"Add", "residual", "missing"}, keras=lambda: cross_keras(residual=False)),
    INTEREST.alike("padding counts", {"mask", "Mul", "Where", "missing"}, keras=lambda: interest_keras(masked=False)),
    INTEREST.alike("slope", {"slope", "alpha"}, keras=lambda: interest_keras(slope=0.01)),
    NEU_MF.alike("sum for product", {"Mul", "Add"}, keras=lambda: neu_mf_keras(product=K.Add)),
    TOWERS.alike("any length", {"norm", "missing", "Rsqrt"}, keras=lambda: KerasTwoTower(unit=False)),
    COMPRESSED.alike("mean for sum", {"Mean", "Sum"}, keras=lambda: compressed_keras(pool="mean")),
    AUTO_INT.alike("heads", {"heads"}, keras=lambda: auto_int_keras(heads=1), truth=AUTO_INT.truth | attention("attn", "mix", 1)),
    SESSION.alike("other end of the scale", {"constant", "Mul"}, keras=lambda: session_keras(high=10.0)),
    WIDE_DEEP.alike("no logarithm", {"Log", "missing"}, keras=lambda: wide_deep_keras(log=False)),
)  # fmt: skip
