"""Products that sum over axes, and attention with masks and groups, each written as the framework's users write it."""

from __future__ import annotations

import math
from typing import Any

import numpy as np
import tensorflow as tf
import torch
from keras import layers as K
from keras import ops
from torch import nn
from torch.nn import functional as F

from tests.adapters.glue.pair import Forward, Pair, Wrapped, ids, keras_model


def _heads_torch(m: Any, x: torch.Tensor) -> tuple[torch.Tensor, ...]:
    q = m.q(x).view(-1, 5, 4, 2).transpose(1, 2)
    k, v = (layer(x).view(-1, 5, 2, 2).transpose(1, 2) for layer in (m.k, m.v))
    return q, k, v


def _grouped_torch(repeat: Any) -> nn.Module:
    def call(m: Any, x: torch.Tensor) -> torch.Tensor:
        q, k, v = _heads_torch(m, x)
        y = repeat(q, k, v)
        return m.o(y.transpose(1, 2).reshape(-1, 5, 8))

    return Forward(call, q=nn.Linear(6, 8), k=nn.Linear(6, 4), v=nn.Linear(6, 4), o=nn.Linear(8, 6))


def _by_gqa(q: torch.Tensor, k: torch.Tensor, v: torch.Tensor) -> torch.Tensor:
    return F.scaled_dot_product_attention(q, k, v, is_causal=True, enable_gqa=True)


def _by_expand(q: torch.Tensor, k: torch.Tensor, v: torch.Tensor) -> torch.Tensor:
    k, v = (t[:, :, None].expand(-1, -1, 2, -1, -1).reshape(-1, 4, 5, 2) for t in (k, v))
    return F.scaled_dot_product_attention(q, k, v, is_causal=True)


def _grouped_keras() -> Any:
    def call(m: Any, x: Any) -> Any:
        q = ops.reshape(m.inner[0](x), (-1, 5, 4, 2))
        k, v = (ops.repeat(ops.reshape(layer(x), (-1, 5, 2, 2)), 2, axis=2) for layer in m.inner[1:3])
        s = ops.einsum("bqhd,bkhd->bhqk", q * (1 / math.sqrt(2)), k)
        s = ops.where(ops.tril(ops.ones((5, 5), dtype="bool")), s, -1e9)
        y = ops.einsum("bhqk,bkhd->bqhd", ops.softmax(s, -1), v)
        return m.inner[3](ops.reshape(y, (-1, 5, 8)))

    return keras_model(Wrapped(call, [K.Dense(n) for n in (8, 4, 4, 6)]), (5, 6))


def _module_torch(weights: bool) -> nn.Module:  # noqa: FBT001  one flag of one model
    def call(m: Any, i: torch.Tensor) -> torch.Tensor:
        x = m.e(i)
        return m.a(x, x, x, key_padding_mask=i == 0, need_weights=weights)[0]

    return Forward(call, e=nn.Embedding(9, 8), a=nn.MultiheadAttention(8, 2, batch_first=True))


def _module_keras() -> Any:
    def build(i: Any) -> Any:
        x = K.Embedding(9, 8)(i)
        return K.MultiHeadAttention(2, 4)(x, x, attention_mask=ops.not_equal(i, 0)[:, None, :])

    return keras_model(build, ((5,), "int64"))


def _biased_torch(m: Any, x: torch.Tensor) -> torch.Tensor:
    q, k, v = (layer(x).view(-1, 5, 2, 4).transpose(1, 2) for layer in (m.q, m.k, m.v))
    y = F.scaled_dot_product_attention(q, k, v, attn_mask=m.bias)
    return m.o(y.transpose(1, 2).reshape(-1, 5, 8))


def _biased_keras() -> Any:
    def call(m: Any, x: Any) -> Any:
        q, k, v = (ops.transpose(ops.reshape(layer(x), (-1, 5, 2, 4)), (0, 2, 1, 3)) for layer in m.inner[:3])
        s = ops.matmul(q, ops.transpose(k, (0, 1, 3, 2))) / 2.0 + m.bias
        y = ops.matmul(ops.softmax(s, -1), v)
        return m.inner[3](ops.reshape(ops.transpose(y, (0, 2, 1, 3)), (-1, 5, 8)))

    return keras_model(Wrapped(call, [K.Dense(8) for _ in range(4)], bias=(2, 5, 5)), (5, 6))


_TWO: dict[str, tuple[Any, Any]] = {
    "dot of two towers": (lambda a, b: (a * b).sum(-1, keepdim=True), lambda a, b: K.Dot(axes=-1)([a, b])),
    "dot by einsum": (
        lambda a, b: torch.einsum("bf,bf->b", a, b)[:, None],
        lambda a, b: ops.sum(a * b, -1, keepdims=True),
    ),
    "dot by a product of matrices": (
        lambda a, b: torch.bmm(a.unsqueeze(1), b.unsqueeze(2)).squeeze(2),
        lambda a, b: ops.sum(a * b, axis=1, keepdims=True),
    ),
    "cosine": (
        lambda a, b: F.cosine_similarity(a, b, dim=-1)[:, None],
        lambda a, b: K.Dot(axes=1, normalize=True)([a, b]),
    ),
    "outer product": (
        lambda a, b: (a.unsqueeze(2) @ b.unsqueeze(1)).flatten(1),
        lambda a, b: K.Flatten()(ops.einsum("bi,bj->bij", a, b)),
    ),
    "squared distance": (
        lambda a, b: (a - b).pow(2).sum(1, keepdim=True),
        lambda a, b: ops.sum(ops.square(a - b), axis=1, keepdims=True),
    ),
}


def _two(name: str, one: Any, two: Any) -> Pair:
    return Pair(
        name,
        lambda: Forward(lambda m, x, y: one(m.a(x), m.b(y)), a=nn.Linear(5, 6), b=nn.Linear(3, 6)),
        lambda: keras_model(
            lambda x, y: Wrapped(lambda _, a, b: two(a, b))(K.Dense(6)(x), K.Dense(6)(y)), (5,), (3,)
        ),
        ((1, 5), (1, 3)),
    )


def _weighted() -> list[Pair]:
    def bilinear_keras(m: Any, x: Any, y: Any) -> Any:
        return ops.einsum("bi,oij,bj->bo", x, m.w, y) + m.b

    def pooled_torch(m: Any, x: torch.Tensor) -> torch.Tensor:
        return m.h((torch.softmax(m.s(x), 1).transpose(1, 2) @ x).squeeze(1))

    def pooled_keras(x: Any) -> Any:
        return K.Dense(3)(ops.sum(ops.softmax(K.Dense(1)(x), axis=1) * x, axis=1))

    def experts_torch(m: Any, x: torch.Tensor) -> torch.Tensor:
        outputs = torch.stack([e(x) for e in (m.e0, m.e1, m.e2)], dim=1)
        return torch.einsum("be,bed->bd", m.g(x).softmax(-1), outputs)

    def experts_keras(x: Any) -> Any:
        w = K.Dense(3, activation="softmax")(x)
        return sum(w[:, k : k + 1] * K.Dense(4)(x) for k in range(3))

    def stacked_torch(m: Any, x: torch.Tensor) -> torch.Tensor:
        return torch.einsum("bi,eio->beo", x, m.w).amax(1)

    def stacked_keras(m: Any, x: Any) -> Any:
        return ops.max(tf.tensordot(x, m.w, [[1], [0]]), axis=1)

    def scaled_torch(m: Any, x: torch.Tensor) -> torch.Tensor:
        return F.linear(x, m.w * torch.sigmoid(m.g)[:, None]) * m.s.exp()

    def scaled_keras(m: Any, x: Any) -> Any:
        return ops.matmul(x, ops.transpose(m.w * ops.sigmoid(m.g)[:, None])) * ops.exp(m.s)

    def rms_keras(x: Any) -> Any:
        return K.Dense(3)(K.RMSNormalization(epsilon=1e-6)(x))

    return [
        Pair(
            "bilinear",
            lambda: nn.Bilinear(5, 3, 4),
            lambda: keras_model(Wrapped(bilinear_keras, w=(4, 5, 3), b=(4,)), (5,), (3,)),
            ((1, 5), (1, 3)),
        ),
        Pair(
            "attention pooling",
            lambda: Forward(pooled_torch, s=nn.Linear(6, 1), h=nn.Linear(6, 3)),
            lambda: keras_model(pooled_keras, (5, 6)),
            ((1, 5, 6),),
        ),
        Pair(
            "mixture of experts",
            lambda: Forward(experts_torch, g=nn.Linear(6, 3), **{f"e{k}": nn.Linear(6, 4) for k in range(3)}),
            lambda: keras_model(experts_keras, (6,)),
            ((1, 6),),
        ),
        Pair(
            "stacked experts",
            lambda: Forward(stacked_torch, w=torch.randn(2, 6, 4)),
            lambda: keras_model(Wrapped(stacked_keras, w=(6, 2, 4)), (6,)),
            ((1, 6),),
        ),
        Pair(
            "a modulated weight",
            lambda: Forward(scaled_torch, w=torch.randn(4, 6), g=torch.randn(4), s=torch.zeros(1)),
            lambda: keras_model(Wrapped(scaled_keras, w=(4, 6), g=(4,), s=(1,)), (6,)),
            ((1, 6),),
        ),
        Pair(
            "RMS normalisation",
            lambda: nn.Sequential(nn.RMSNorm(6, eps=1e-6), nn.Linear(6, 3)),
            lambda: keras_model(rms_keras, (6,)),
            ((1, 6),),
        ),
    ]


def _attention() -> list[Pair]:
    return [
        Pair("grouped queries", lambda: _grouped_torch(_by_gqa), _grouped_keras, ((1, 5, 6),)),
        Pair("grouped queries, expanded", lambda: _grouped_torch(_by_expand), _grouped_keras, ((1, 5, 6),)),
        Pair(
            "attention module with padding", lambda: _module_torch(weights=False), _module_keras, (ids(1, 5),)
        ),
        Pair(
            "attention module with padding and weights",
            lambda: _module_torch(weights=True),
            _module_keras,
            (ids(1, 5),),
        ),
        Pair(
            "attention with a learned bias",
            lambda: Forward(
                _biased_torch,
                bias=torch.randn(2, 5, 5),
                **{n: nn.Linear(6, 8) for n in "qkv"},
                o=nn.Linear(8, 8),
            ),
            _biased_keras,
            ((1, 5, 6),),
        ),
    ]


def _embeddings() -> list[Pair]:
    angles = torch.outer(torch.arange(5.0), torch.tensor([1.0, 0.1]))

    def turned_torch(m: Any, x: torch.Tensor) -> torch.Tensor:
        y = m.d(x).unflatten(-1, (2, 2))
        turn = torch.stack([angles.cos(), -angles.sin(), angles.sin(), angles.cos()], -1).view(5, 2, 2, 2)
        return m.o((turn @ y.unsqueeze(-1)).flatten(2))

    def turned_keras(m: Any, x: Any) -> Any:
        cos, sin = np.cos(angles.numpy()), np.sin(angles.numpy())
        y = ops.reshape(m.inner[0](x), (-1, 5, 2, 2))
        y = ops.einsum("ijtp,btpj->btpi", np.array([[cos, -sin], [sin, cos]]), y)
        return m.inner[1](ops.reshape(y, (-1, 5, 4)))

    def places_torch(m: Any, x: torch.Tensor) -> torch.Tensor:
        return torch.tanh(m.d(x.flatten(1)).unflatten(1, (2, 3)))

    def places_keras(x: Any) -> Any:
        return K.EinsumDense("bhwc,hwcjk->bjk", (2, 3), bias_axes="jk", activation="tanh")(x)

    return [
        Pair(
            "einsum with a table",
            lambda: Forward(turned_torch, d=nn.Linear(6, 4), o=nn.Linear(4, 3)),
            lambda: keras_model(Wrapped(turned_keras, [K.Dense(4), K.Dense(3)]), (5, 6)),
            ((1, 5, 6),),
        ),
        Pair(
            "einsum over places, with a bias for each",
            lambda: Forward(places_torch, d=nn.Linear(24, 6)),
            lambda: keras_model(places_keras, (2, 3, 4)),
            ((1, 4, 2, 3),),
        ),
    ]


def _steps() -> list[Pair]:
    def frames_torch(m: Any, x: torch.Tensor) -> torch.Tensor:
        n, t = x.shape[:2]
        y = torch.relu(m.c(x.flatten(0, 1))).flatten(1)
        return m.r(y.unflatten(0, (n, t)))[0]

    def frames_keras(x: Any) -> Any:
        y = K.TimeDistributed(K.Conv2D(3, 3, activation="relu"))(x)
        return K.GRU(4, return_sequences=True)(K.TimeDistributed(K.Flatten())(y))

    return [
        Pair(
            "time steps as examples",
            lambda: Forward(frames_torch, c=nn.Conv2d(2, 3, 3), r=nn.GRU(48, 4, batch_first=True)),
            lambda: keras_model(frames_keras, (3, 6, 6, 2)),
            ((1, 3, 2, 6, 6),),
        )
    ]


PAIRS: list[Pair] = [
    *(_two(name, *both) for name, both in _TWO.items()),
    *_weighted(),
    *_attention(),
    *_embeddings(),
    *_steps(),
]
