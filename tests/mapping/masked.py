"""Pairs of models with layers that normal numbers do not show: scores behind masks, written in both frameworks."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import keras
import numpy as np
import torch
from keras import layers as K
from keras import ops
from torch import nn

Array = np.ndarray[Any, Any]

NODES, FEATURES, HIDDEN = 5, 8, 6


@dataclass(frozen=True)
class Masked:
    """Two models of one function.

    Attributes:
        name: For people.
        torch: The reference.
        keras: The same function; look-alike layers are made in another order.
        example: What the models are described with.
        real: Data as it is in use.
    """

    name: str
    torch: Callable[[], nn.Module]
    keras: Callable[[], keras.Model]
    example: tuple[Array, ...]
    real: tuple[Array, ...]


class Written(nn.Module):
    """Layers, and a function of them and the data."""

    def __init__(self, forward: Callable[..., torch.Tensor], **layers: nn.Module) -> None:
        super().__init__()
        self.layers = nn.ModuleDict(layers)
        self.written = forward

    def forward(self, *data: torch.Tensor) -> torch.Tensor:
        return self.written(self.layers, *data)


def adjacency(dtype: str = "float32") -> Array:
    """Graphs with every node its own neighbour."""
    drawn = np.random.default_rng(1).random((4, NODES, NODES)) < 0.5
    drawn[:, range(NODES), range(NODES)] = True
    return drawn.astype(dtype)


def normal(*shape: int) -> Array:
    return np.random.default_rng(2).standard_normal(shape).astype(np.float32)


def dense(width: int) -> Any:
    return K.Dense(width, use_bias=False)


def linear(inputs: int, outputs: int) -> nn.Module:
    return nn.Linear(inputs, outputs, bias=False)


def graph_attention(name: str, mask: Callable[[Any, Any, Any], Any], dtype: str = "float32") -> Masked:
    """Scores of a left and of a right projection, one width; ``mask(library's cast, scores, adjacency)`` hides some."""

    def written(layers: Any, x: torch.Tensor, a: torch.Tensor) -> torch.Tensor:
        h = layers["project"](x)
        scores = nn.functional.leaky_relu(layers["left"](h) + layers["right"](h).transpose(1, 2), 0.2)
        return torch.tanh(mask(torch.Tensor.float, scores, a).softmax(-1) @ h)

    def native() -> keras.Model:
        x, a = keras.Input((NODES, FEATURES)), keras.Input((NODES, NODES), dtype=dtype)
        h = dense(HIDDEN)(x)
        target, source = dense(1), dense(1)
        scores = K.LeakyReLU(negative_slope=0.2)(ops.transpose(target(h), (0, 2, 1)) + source(h))
        hidden = K.Softmax()(mask(lambda t: ops.cast(t, "float32"), scores, a))
        return keras.Model([x, a], ops.tanh(ops.matmul(hidden, h)))

    example = (
        normal(1, NODES, FEATURES),
        adjacency(dtype)[:1] if dtype != "float32" else normal(1, NODES, NODES),
    )
    return Masked(
        name,
        lambda: Written(
            written, project=linear(FEATURES, HIDDEN), left=linear(HIDDEN, 1), right=linear(HIDDEN, 1)
        ),
        native,
        example,
        (normal(4, NODES, FEATURES), adjacency(dtype)),
    )


def two_heads() -> Masked:
    """Two heads side by side; four projections of one width, made in another order."""

    def head(h: torch.Tensor, left: Any, right: Any, a: torch.Tensor) -> torch.Tensor:
        scores = nn.functional.leaky_relu(left(h) + right(h).transpose(1, 2), 0.2)
        return (scores + (a - 1) * 1e9).softmax(-1) @ h

    def written(layers: Any, x: torch.Tensor, a: torch.Tensor) -> torch.Tensor:
        made = [head(layers[f"w{i}"](x), layers[f"left{i}"], layers[f"right{i}"], a) for i in (0, 1)]
        return torch.cat(made, -1)

    def native() -> keras.Model:
        x, a = keras.Input((NODES, FEATURES)), keras.Input((NODES, NODES))
        right1, left1, right0, left0 = (dense(1) for _ in range(4))
        made = []
        for left, right in ((left0, right0), (left1, right1)):
            h = dense(HIDDEN)(x)
            scores = K.LeakyReLU(negative_slope=0.2)(ops.transpose(right(h), (0, 2, 1)) + left(h))
            made.append(ops.matmul(K.Softmax()(scores + (a - 1) * 1e9), h))
        return keras.Model([x, a], K.Concatenate()(made))

    def build() -> nn.Module:
        layers = {f"w{i}": linear(FEATURES, HIDDEN) for i in (0, 1)}
        return Written(
            written,
            **layers,
            **{f"{side}{i}": linear(HIDDEN, 1) for side in ("left", "right") for i in (0, 1)},
        )

    example = (normal(1, NODES, FEATURES), normal(1, NODES, NODES))
    return Masked("two heads", build, native, example, (normal(4, NODES, FEATURES), adjacency()))


def tokens(dtype: str) -> Masked:
    """Dot products of tokens behind a mask of their padding."""
    length, words = 7, 30

    def written(layers: Any, ids: torch.Tensor, mask: torch.Tensor) -> torch.Tensor:
        h = layers["table"](ids)
        scores = layers["query"](h) @ layers["key"](h).transpose(1, 2) / 8**0.5
        hidden = (scores + (mask.float()[:, None, :] - 1) * 1e9).softmax(-1) @ layers["value"](h)
        return layers["head"](hidden.mean(1))

    def native() -> keras.Model:
        ids, mask = keras.Input((length,), dtype="int32"), keras.Input((length,), dtype=dtype)
        h = K.Embedding(words, 8)(ids)
        value, key, query = (dense(8) for _ in range(3))
        scores = ops.matmul(query(h), ops.transpose(key(h), (0, 2, 1))) / 8**0.5
        hidden = K.Softmax()(scores + (ops.expand_dims(ops.cast(mask, "float32"), 1) - 1) * 1e9)
        return keras.Model([ids, mask], dense(2)(ops.mean(ops.matmul(hidden, value(h)), 1)))

    def build() -> nn.Module:
        layers = {name: linear(8, 8) for name in ("query", "key", "value")}
        return Written(written, table=nn.Embedding(words, 8), head=linear(8, 2), **layers)

    mask = np.ones((4, length), dtype)
    mask[1:, 5:] = 0
    ids = np.random.default_rng(3).integers(0, words, (4, length))
    return Masked(f"tokens, {dtype} mask", build, native, (np.zeros_like(ids[:1]), mask[:1]), (ids, mask))


def two_masks() -> Masked:
    """One matrix of scores behind a mask, and turned behind another."""

    def written(layers: Any, x: torch.Tensor, a: torch.Tensor, b: torch.Tensor) -> torch.Tensor:
        h = layers["project"](x)
        scores = torch.tanh(layers["left"](h) + layers["right"](h).transpose(1, 2))
        there, back = (
            (scores + (a - 1) * 1e9).softmax(-1),
            (scores.transpose(1, 2) + (b - 1) * 1e9).softmax(-1),
        )
        return there @ h - back @ h

    def native() -> keras.Model:
        x, a, b = keras.Input((NODES, FEATURES)), keras.Input((NODES, NODES)), keras.Input((NODES, NODES))
        h = dense(HIDDEN)(x)
        right, left = dense(1), dense(1)
        scores = ops.tanh(ops.transpose(right(h), (0, 2, 1)) + left(h))
        there = ops.softmax(scores + (a - 1) * 1e9, -1)
        back = ops.softmax(ops.transpose(scores, (0, 2, 1)) + (b - 1) * 1e9, -1)
        return keras.Model([x, a, b], ops.matmul(there, h) - ops.matmul(back, h))

    def build() -> nn.Module:
        sides = {side: linear(HIDDEN, 1) for side in ("left", "right")}
        return Written(written, project=linear(FEATURES, HIDDEN), **sides)

    example = (normal(1, NODES, FEATURES), normal(1, NODES, NODES), normal(1, NODES, NODES))
    masks = adjacency(), adjacency().transpose(0, 2, 1).copy()
    return Masked("two masks", build, native, example, (normal(4, NODES, FEATURES), *masks))


MASKED = (
    graph_attention("added", lambda cast, scores, a: scores + (cast(a) - 1) * 1e9),
    graph_attention("subtracted", lambda cast, scores, a: scores - (cast(a) * -1 + 1) * 1e9),
    graph_attention("multiplied", lambda cast, scores, a: scores * (cast(a) * 1e9)),
    graph_attention("boolean", lambda cast, scores, a: scores + (cast(a) - 1) * 1e9, "bool"),
    graph_attention("integers", lambda cast, scores, a: scores + (cast(a) - 1) * 1e9, "int32"),
    two_heads(),
    tokens("float32"),
    tokens("int32"),
    two_masks(),
)  # fmt: skip
