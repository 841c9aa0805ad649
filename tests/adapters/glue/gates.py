"""Activations, gates, reductions and norms, each written as the framework's users write it."""

from __future__ import annotations

from typing import Any

import keras
import tensorflow as tf
import torch
from keras import layers as K
from keras import ops
from torch import nn
from torch.nn import functional as F

from tests.adapters.glue.pair import Forward, Pair, Wrapped, keras_model

_ELEMENTS: dict[str, tuple[Any, Any]] = {
    "relu6 by minimum": (F.relu6, lambda x: tf.minimum(tf.nn.relu(x), 6.0)),
    "relu by maximum": (torch.relu, lambda x: ops.maximum(x, 0.0)),
    "clamp in two steps": (lambda x: x.clamp(min=-1.0).clamp(max=0.5), lambda x: ops.clip(x, -1.0, 0.5)),
    "hardtanh": (F.hardtanh, keras.activations.hard_tanh),
    "squared relu": (lambda x: F.relu(x).square(), lambda x: ops.relu(x) ** 2),
    "celu": (lambda x: F.celu(x, 1.0), ops.celu),
    "softsign": (F.softsign, ops.softsign),
    "log sigmoid": (F.logsigmoid, ops.log_sigmoid),
    "tanhshrink": (F.tanhshrink, ops.tanh_shrink),
    "softplus": (lambda x: F.softplus(x, beta=2.0), lambda x: ops.softplus(2.0 * x) / 2.0),
    "softmin": (lambda x: F.softmin(x, -1), lambda x: ops.softmax(-x, -1)),
    "hard sigmoid": (F.hardsigmoid, ops.hard_sigmoid),
    "expm1 and log1p": (
        lambda x: torch.log1p(torch.expm1(x).abs()),
        lambda x: tf.math.log1p(tf.abs(tf.exp(x) - 1)),
    ),
    "powers of two": (lambda x: 2**x, lambda x: ops.exp(x * 0.6931471805599453)),
    "root by power": (lambda x: x.abs() ** 0.5, lambda x: ops.sqrt(ops.abs(x))),
    "inverse root": (lambda x: 1 / torch.sqrt(x * x + 1), lambda x: ops.rsqrt(ops.square(x) + 1)),
    "division by a root": (
        lambda x: x / torch.sqrt(x.pow(2) + 2),
        lambda x: x * ops.rsqrt(ops.square(x) + 2),
    ),
    "trigonometry": (
        lambda x: torch.tan(x * 0.1) + torch.atan(x),
        lambda x: ops.tan(x * 0.1) + ops.arctan(x),
    ),
    "hyperbolic": (lambda x: torch.sinh(x) - torch.asinh(x), lambda x: ops.sinh(x) - ops.arcsinh(x)),
    "floor and sign": (
        lambda x: x - torch.floor(x) * torch.sign(x),
        lambda x: x - ops.floor(x) * ops.sign(x),
    ),
    "remainder": (lambda x: torch.remainder(x, 1.5), lambda x: ops.mod(x, 1.5)),
    "one minus": (lambda x: (1 - x.sigmoid()) * x, lambda x: (1 - ops.sigmoid(x)) * x),
    "addcmul and lerp": (lambda x: torch.lerp(x, x.tanh(), 0.3), lambda x: x + 0.3 * (ops.tanh(x) - x)),
    "negated": (lambda x: torch.neg(x).exp(), lambda x: ops.exp(-1.0 * x)),
    "threshold": (lambda x: F.threshold(x, 0.2, 0.0), lambda x: ops.where(x > 0.2, x, 0.0)),
    "shrinking": (F.softshrink, K.Activation("soft_shrink")),
    "minimum of a tensor": (
        lambda x: torch.min(x, x.tanh() + 0.1),
        lambda x: ops.minimum(x, ops.tanh(x) + 0.1),
    ),
}

_REDUCED: dict[str, tuple[Any, Any]] = {
    "max with positions": (lambda x: x.max(dim=1)[0], lambda x: ops.max(x, axis=1)),
    "amin": (lambda x: x.amin(1), lambda x: ops.min(x, 1)),
    "min with positions": (
        lambda x: x.min(dim=1, keepdim=True).values.squeeze(1),
        lambda x: tf.reduce_min(x, 1),
    ),
    "prod": (lambda x: x.prod(1), lambda x: ops.prod(x, 1)),
    "variance": (lambda x: x.var(1, unbiased=False), lambda x: ops.var(x, 1)),
    "unbiased variance": (lambda x: x.var(1), lambda x: ops.var(x, 1) * 5 / 4),
    "deviation": (lambda x: x.std(1, correction=0), lambda x: ops.std(x, 1)),
    "logsumexp": (lambda x: x.logsumexp(1), lambda x: tf.reduce_logsumexp(x, 1)),
    "norm": (lambda x: x.norm(dim=1), lambda x: ops.sqrt(ops.sum(ops.square(x), 1))),
    "norm of order 1": (lambda x: x.norm(p=1, dim=1), lambda x: ops.sum(ops.abs(x), 1)),
    "cumulative sum": (lambda x: x.cumsum(1)[:, -2], lambda x: ops.cumsum(x, 1)[:, -2]),
    "max over two axes": (
        lambda x: x.unflatten(2, (2, 3)).amax((1, 3)),
        lambda x: ops.max(ops.reshape(x, (-1, 5, 2, 3)), (1, 3)),
    ),
    "sum of squares": (lambda x: (x * x).sum(1), lambda x: ops.sum(ops.square(x), axis=1)),
    "mean of squares": (lambda x: x.pow(2).mean(1), lambda x: ops.mean(x * x, 1)),
}

_NORMALISED: dict[str, tuple[Any, Any]] = {
    "normalize": (lambda x: F.normalize(x, dim=-1), lambda x: tf.nn.l2_normalize(x, -1)),
    "unit normalization": (lambda x: F.normalize(x, dim=-1), K.UnitNormalization()),
    "by its norm": (lambda x: x / x.norm(dim=-1, keepdim=True), lambda x: ops.normalize(x, axis=-1)),
    "by a bounded norm": (
        lambda x: x / x.norm(2, -1, keepdim=True).clamp_min(1e-8),
        lambda x: x / ops.sqrt(ops.sum(x * x, -1, keepdims=True)),
    ),
    "rms": (
        lambda x: F.rms_norm(x, (6,), eps=1e-6),
        lambda x: x * ops.rsqrt(ops.mean(ops.square(x), -1, keepdims=True) + 1e-6),
    ),
}


def _element(name: str, one: Any, two: Any) -> Pair:
    return Pair(
        name,
        lambda: Forward(lambda m, x: m.b(one(m.a(x))), a=nn.Linear(5, 6), b=nn.Linear(6, 3)),
        lambda: keras_model(lambda x: K.Dense(3)(_called(two, K.Dense(6)(x))), (5,)),
        ((1, 5),),
    )


def _called(call: Any, x: Any) -> Any:
    return Wrapped(lambda _, given: call(given))(x)


def _reduced(name: str, one: Any, two: Any) -> Pair:
    return Pair(
        name,
        lambda: Forward(lambda m, x: m.b(one(m.a(x))), a=nn.Linear(4, 6), b=nn.LazyLinear(3)),
        lambda: keras_model(lambda x: K.Dense(3)(_called(two, K.Dense(6)(x))), (5, 4)),
        ((1, 5, 4),),
    )


def _initialised(pair: Pair) -> Pair:
    def build() -> nn.Module:
        module = pair.torch()
        module(*map(torch.from_numpy, pair.example()))
        return module

    return Pair(pair.name, build, pair.keras, pair.inputs)


def _gates() -> list[Pair]:
    def glu_keras(x: Any) -> Any:
        y = K.Conv1D(12, 3, padding="same")(x)
        one, two = ops.split(y, 2, axis=-1)
        return K.Dense(3)(one * ops.sigmoid(two))

    def swiglu(m: Any, x: torch.Tensor) -> torch.Tensor:
        gate, up = m.gate_up(x).chunk(2, dim=-1)
        return m.down(F.silu(gate) * up)

    def maxout(m: Any, x: torch.Tensor) -> torch.Tensor:
        return m.b(m.a(x).view(-1, 6, 2).max(-1).values)

    def highway(m: Any, x: torch.Tensor) -> torch.Tensor:
        t = torch.sigmoid(m.t(x))
        return t * torch.relu(m.h(x)) + (1 - t) * x

    def highway_keras(x: Any) -> Any:
        t = K.Dense(6, activation="sigmoid")(x)
        return t * K.Dense(6, activation="relu")(x) + (1.0 - t) * x

    return [
        Pair(
            "glu",
            lambda: Forward(
                lambda m, x: m.h(F.glu(m.c(x), 1).transpose(1, 2)),
                c=nn.Conv1d(4, 12, 3, padding=1),
                h=nn.Linear(6, 3),
            ),
            lambda: keras_model(glu_keras, (7, 4)),
            ((1, 4, 7),),
        ),
        Pair(
            "swiglu",
            lambda: Forward(swiglu, gate_up=nn.Linear(5, 12), down=nn.Linear(6, 3)),
            lambda: keras_model(lambda x: K.Dense(3)(K.Dense(6, activation="silu")(x) * K.Dense(6)(x)), (5,)),
            ((1, 5),),
        ),
        Pair(
            "maxout",
            lambda: Forward(maxout, a=nn.Linear(5, 12), b=nn.Linear(6, 3)),
            lambda: keras_model(lambda x: K.Dense(3)(ops.max(K.Reshape((6, 2))(K.Dense(12)(x)), -1)), (5,)),
            ((1, 5),),
        ),
        Pair(
            "highway",
            lambda: Forward(highway, t=nn.Linear(6, 6), h=nn.Linear(6, 6)),
            lambda: keras_model(highway_keras, (6,)),
            ((1, 6),),
        ),
    ]


PAIRS: list[Pair] = [
    *(_element(name, *both) for name, both in _ELEMENTS.items()),
    *(_initialised(_reduced(name, *both)) for name, both in _REDUCED.items()),
    *(_element(name, *both) for name, both in _NORMALISED.items()),
    *_gates(),
]
