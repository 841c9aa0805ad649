"""Masks: made from ids, from triangles and from data, added, filled in or multiplied."""

from __future__ import annotations

import math
from functools import partial
from typing import Any

import numpy as np
import tensorflow as tf
import torch
from keras import layers as K
from keras import ops
from torch import nn

from tests.adapters.glue.pair import Forward, Pair, Wrapped, ids, keras_model

_TOKENS = ((7,), "int64")


def _scores_torch(m: Any, x: torch.Tensor) -> torch.Tensor:
    return m.q(x) @ m.k(x).transpose(1, 2) / math.sqrt(8)


def _attention_torch(mask: Any) -> nn.Module:
    def call(m: Any, i: torch.Tensor) -> torch.Tensor:
        x = m.e(i)
        a = mask(_scores_torch(m, x), i).softmax(-1)
        return m.h(a @ m.v(x))

    layers = {name: nn.Linear(8, 8) for name in "qkv"}
    return Forward(call, e=nn.Embedding(9, 8), h=nn.Linear(8, 3), **layers)


def _attention_keras(mask: Any) -> Any:
    def build(i: Any) -> Any:
        x = K.Embedding(9, 8)(i)
        q, k, v = (K.Dense(8)(x) for _ in range(3))
        scores = ops.matmul(q, ops.transpose(k, (0, 2, 1))) / math.sqrt(8)
        a = ops.softmax(mask(scores, i), -1)
        return K.Dense(3)(ops.matmul(a, v))

    return keras_model(build, _TOKENS)


_TORCH_MASKS = {
    "masked_fill by eq": lambda s, i: s.masked_fill(i.eq(0)[:, None, :], float("-inf")),
    "masked_fill by not ne": lambda s, i: s.masked_fill(~(i != 0).unsqueeze(1), -1e9),
    "added, 1 - mask": lambda s, i: s + (1.0 - (i > 0).float()[:, None, :]) * -10000.0,
    "added, finfo": lambda s, i: s + (1.0 - (i != 0)[:, None].to(s.dtype)) * torch.finfo(s.dtype).min,
    "where": lambda s, i: torch.where((i != 0)[:, None, :], s, torch.tensor(-1e9)),
    "where full_like": lambda s, i: torch.where(i[:, None, :] == 0, torch.full_like(s, -1e4), s),
    "filled in place": lambda s, i: s.masked_fill_((i < 1)[:, None, :], -1e30),
    "zeros filled, then added": lambda s, i: (
        s + torch.zeros_like(i, dtype=torch.float32).masked_fill(i == 0, float("-inf"))[:, None, :]
    ),
}
_KERAS_MASKS = {
    "where": lambda s, i: ops.where(ops.equal(i, 0)[:, None, :], -1e9, s),
    "added": lambda s, i: s + ops.cast(ops.equal(i, 0), "float32")[:, None, :] * -1e9,
    "added, 1 - mask": lambda s, i: s + (1.0 - ops.cast(ops.not_equal(i, 0), "float32"))[:, None, :] * -1e4,
    "added, mask - 1": lambda s, i: (
        s + (ops.expand_dims(ops.cast(ops.not_equal(i, 0), "float32"), 1) - 1.0) * 1e9
    ),
}


def _padding_rows() -> list[Pair]:
    names = list(_KERAS_MASKS)
    # "i > 0" and "i < 1" are not "i != 0": each has a partner of its own form.
    others = {
        "added, 1 - mask": lambda s, i: ops.where(ops.greater(i, 0)[:, None, :], s, -1e9),
        "filled in place": lambda s, i: s + ops.cast(ops.less_equal(i, 0), "float32")[:, None, :] * -1e9,
    }
    found = []
    for place, (name, mask) in enumerate(_TORCH_MASKS.items()):
        partner = others.get(name, _KERAS_MASKS[names[place % len(names)]])
        torch_model, keras_side = partial(_attention_torch, mask), partial(_attention_keras, partner)
        found.append(Pair(f"key padding from ids: {name}", torch_model, keras_side, (ids(1, 7),)))
    return found


def _both_torch(s: torch.Tensor, i: torch.Tensor) -> torch.Tensor:
    shown = torch.tril(torch.ones(7, 7, dtype=torch.bool)) & (i != 0)[:, None, :]
    return s.masked_fill(~shown, float("-inf"))


def _both_keras(s: Any, i: Any) -> Any:
    causal = ops.tril(ops.ones((7, 7)))
    s = ops.where(ops.cast(causal, "bool"), s, -1e9)
    return s + (1 - ops.cast(ops.not_equal(i, 0), "float32"))[:, None, :] * -1e9


def _mean_torch(m: Any, i: torch.Tensor) -> torch.Tensor:
    mask = (i != 0).float().unsqueeze(-1)
    x = m.e(i) * mask
    return m.h(x.sum(1) / mask.sum(1).clamp(min=1.0))


def _mean_keras(i: Any) -> Any:
    mask = ops.cast(ops.not_equal(i, 0), "float32")[..., None]
    x = K.Embedding(9, 8)(i) * mask
    return K.Dense(3)(ops.sum(x, 1) / ops.maximum(ops.sum(mask, 1), 1.0))


def _max_torch(m: Any, i: torch.Tensor) -> torch.Tensor:
    x = m.e(i).masked_fill((i == 0).unsqueeze(-1), -1e9)
    return m.h(x.max(dim=1).values)


def _max_keras(i: Any) -> Any:
    x = ops.where(ops.equal(i, 0)[:, :, None], -1e9, K.Embedding(9, 8)(i))
    return K.Dense(3)(ops.max(x, 1))


def _zeroed_torch(m: Any, i: torch.Tensor) -> torch.Tensor:
    return m.h(m.e(i).masked_fill((i == 0)[..., None], 0.0).sum(1))


def _zeroed_keras(i: Any) -> Any:
    x = K.Embedding(9, 8)(i)
    return K.Dense(3)(ops.sum(tf_where(i, x), 1))


def tf_where(i: Any, x: Any) -> Any:
    return Wrapped(lambda _, a, b: tf.where(tf.not_equal(a, 0)[..., None], b, tf.zeros_like(b)))(i, x)


def _logic_torch(m: Any, i: torch.Tensor) -> torch.Tensor:
    one = torch.logical_and(i > 2, i <= 6) | torch.logical_not(i.ne(1))
    return m.h(m.e(i) * one.float()[..., None])


def _logic_keras(i: Any) -> Any:
    one = ops.logical_or(ops.logical_and(ops.greater(i, 2), ops.less_equal(i, 6)), ops.equal(i, 1))
    return K.Dense(3)(K.Embedding(9, 8)(i) * ops.cast(one, "float32")[..., None])


def _compared_torch(m: Any, x: torch.Tensor) -> torch.Tensor:
    y, z = m.a(x), m.b(x)
    return m.h(torch.where(y >= z, y, z * 0.5) + (x > 0.1).float())


def _compared_keras(x: Any) -> Any:
    y, z = K.Dense(6)(x), K.Dense(6)(x)
    return K.Dense(3)(ops.where(ops.greater_equal(y, z), y, z * 0.5) + ops.cast(x > 0.1, "float32"))


def _relative_torch() -> nn.Module:
    index = (torch.arange(5)[:, None] - torch.arange(5)[None, :] + 4).abs()

    def call(m: Any, x: torch.Tensor) -> torch.Tensor:
        bias = m.table[m.index.view(-1)].view(5, 5, 2).permute(2, 0, 1)
        q, k, v = (layer(x).view(-1, 5, 2, 4).transpose(1, 2) for layer in (m.q, m.k, m.v))
        a = (q @ k.transpose(-2, -1) * 0.5 + bias).softmax(-1)
        return m.o((a @ v).transpose(1, 2).reshape(-1, 5, 8))

    layers = {name: nn.Linear(8, 8) for name in "qkvo"}
    module = Forward(call, table=torch.randn(9, 2), **layers)
    module.register_buffer("index", index)
    return module


def _relative_keras() -> Any:
    index = np.arange(5)[:, None] - np.arange(5)[None, :] + 4

    def call(m: Any, x: Any) -> Any:
        bias = ops.transpose(ops.take(m.table, index, axis=0), (2, 0, 1))
        q, k, v = (ops.reshape(layer(x), (-1, 5, 2, 4)) for layer in m.inner[:3])
        a = ops.softmax(ops.einsum("bqhd,bkhd->bhqk", q, k) * 0.5 + bias, -1)
        return m.inner[3](ops.reshape(ops.einsum("bhqk,bkhd->bqhd", a, v), (-1, 5, 8)))

    return keras_model(Wrapped(call, [K.Dense(8) for _ in range(4)], table=(9, 2)), (5, 8))


def _boolean_torch(m: Any, x: torch.Tensor, mask: torch.Tensor) -> torch.Tensor:
    a = m.s(torch.tanh(m.p(x))).squeeze(-1).masked_fill(mask, -1e9).softmax(1)
    return m.h((a.unsqueeze(-1) * x).sum(1))


def _boolean_keras(x: Any, mask: Any) -> Any:
    s = ops.squeeze(K.Dense(1)(K.Dense(8, activation="tanh")(x)), -1)
    a = ops.softmax(s + ops.cast(mask, "float32") * -1e9, axis=1)
    return K.Dense(3)(ops.sum(ops.expand_dims(a, -1) * x, 1))


def _embedded(call: Any) -> Any:
    return lambda: Forward(call, e=nn.Embedding(9, 8), h=nn.Linear(8, 3))


PAIRS: list[Pair] = [
    *_padding_rows(),
    Pair(
        "causal and padding",
        lambda: _attention_torch(_both_torch),
        lambda: _attention_keras(_both_keras),
        (ids(1, 7),),
    ),
    Pair(
        "mean over what is not padding",
        _embedded(_mean_torch),
        lambda: keras_model(_mean_keras, _TOKENS),
        (ids(1, 7),),
    ),
    Pair(
        "max over what is not padding",
        _embedded(_max_torch),
        lambda: keras_model(_max_keras, _TOKENS),
        (ids(1, 7),),
    ),
    Pair(
        "zero in place of padding",
        _embedded(_zeroed_torch),
        lambda: keras_model(_zeroed_keras, _TOKENS),
        (ids(1, 7),),
    ),
    Pair(
        "logic of comparisons",
        _embedded(_logic_torch),
        lambda: keras_model(_logic_keras, _TOKENS),
        (ids(1, 7),),
    ),
    Pair(
        "comparison of data",
        lambda: Forward(_compared_torch, a=nn.Linear(6, 6), b=nn.Linear(6, 6), h=nn.Linear(6, 3)),
        lambda: keras_model(_compared_keras, (6,)),
        ((1, 6),),
    ),
    Pair("relative positions", _relative_torch, _relative_keras, ((1, 5, 8),)),
    Pair(
        "a mask of truth values as input",
        lambda: Forward(_boolean_torch, p=nn.Linear(6, 8), s=nn.Linear(8, 1), h=nn.Linear(6, 3)),
        lambda: keras_model(_boolean_keras, (5, 6), ((5,), "bool")),
        ((1, 5, 6), ids(1, 5, below=2, dtype="bool")),
    ),
]
