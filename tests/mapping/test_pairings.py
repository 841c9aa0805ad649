"""Where structure leaves several pairings, the numbers choose: an equal pair is proven however it was written, and no other is."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import keras
import numpy as np
import pytest
import torch
from keras import layers as K
from keras import ops
from torch import nn

import xbackend_fl
from tests.mapping.masked import Written, adjacency, dense, linear, normal
from xbackend_fl.errors import MismatchError

Array = np.ndarray[Any, Any]
Layers = dict[str, Any]


def turned(value: Any) -> Any:
    return ops.transpose(value, (0, 2, 1))


def attention(layers: Any, x: torch.Tensor, a: torch.Tensor) -> torch.Tensor:
    scores = layers["q"](x) @ layers["k"](x).transpose(1, 2) / 6**0.5
    result: torch.Tensor = (scores + (a - 1) * 1e9).softmax(-1) @ layers["v"](x)
    return result


def plain(layers: Any, x: torch.Tensor) -> torch.Tensor:
    scores = layers["q"](x) @ layers["k"](x).transpose(1, 2) / 6**0.5
    result: torch.Tensor = scores.softmax(-1) @ layers["v"](x)
    return result


def behind(scores: Any, a: Any) -> Any:
    return ops.softmax(scores / 6**0.5 + (a - 1) * 1e9)


TURNED: dict[str, tuple[Callable[..., torch.Tensor], Callable[..., Any]]] = {
    "keys before queries": (
        attention,
        lambda d, x, a: ops.matmul(behind(turned(ops.matmul(d["k"](x), turned(d["q"](x)))), a), d["v"](x)),
    ),
    "by an einsum": (
        attention,
        lambda d, x, a: ops.matmul(behind(ops.einsum("bjd,bid->bij", d["k"](x), d["q"](x)), a), d["v"](x)),
    ),
    "values before weights": (
        attention,
        lambda d, x, a: turned(
            ops.matmul(turned(d["v"](x)), turned(behind(ops.matmul(d["q"](x), turned(d["k"](x))), a)))
        ),
    ),
    "under other names": (
        attention,
        lambda d, x, a: ops.matmul(behind(turned(ops.matmul(d["q"](x), turned(d["k"](x)))), a), d["v"](x)),
    ),
    "without a mask": (
        plain,
        lambda d, x: ops.matmul(
            ops.softmax(turned(ops.matmul(d["k"](x), turned(d["q"](x)))) / 6**0.5), d["v"](x)
        ),
    ),
    "turned behind the softmax": (
        plain,
        lambda d, x: ops.matmul(
            turned(ops.softmax(ops.matmul(d["k"](x), turned(d["q"](x))) / 6**0.5, axis=-2)), d["v"](x)
        ),
    ),
}


def carried(
    left: nn.Module, right: keras.Model, example: tuple[Array, ...], real: tuple[Array, ...]
) -> float:
    """Map, carry the weights over, and say how far both frameworks then differ."""
    schema, evidence = xbackend_fl.describe_reference(left, example)
    bound = xbackend_fl.bind(right, schema, example, evidence)
    assert bound.proof.proven
    bound.write(xbackend_fl.bind(left, schema, example, evidence).read())
    with torch.no_grad():
        expected = left(*map(torch.from_numpy, real)).numpy()
    return float(
        np.abs(np.asarray(right([*real] if len(real) > 1 else real[0])) - expected).max()
        / np.abs(expected).max()
    )


@pytest.mark.one_in(4)
@pytest.mark.parametrize("form", TURNED)
def test_a_product_that_is_turned_has_its_operands_in_the_other_order(form: str) -> None:
    written, native = TURNED[form]
    shapes = [(5, 8), (5, 5)][: 1 if written is plain else 2]
    left = Written(written, **{name: linear(8, 6) for name in "qkv"})
    inputs = [keras.Input(shape) for shape in shapes]
    right = keras.Model(
        inputs if len(inputs) > 1 else inputs[0],
        native({name: K.Dense(6, use_bias=False, name=name) for name in "qkv"}, *inputs),
    )
    real = (normal(4, 5, 8), adjacency())[: len(shapes)]
    assert carried(left, right, tuple(normal(1, *shape) for shape in shapes), real) < 1e-5


def chain(layers: Any, x: Any, relu: Callable[[Any], Any], swap: Callable[[Any], Any]) -> Any:
    """With equal weights every sum is symmetric and every difference zero, whichever single layer moves."""
    for left, right in ("pq", "rs"):
        total = layers[left](x) + swap(layers[right](x))
        x = relu(total - swap(total))
    return layers["head"](x)


def chained(*, turned_first: bool = False) -> nn.Module:
    def written(layers: Any, x: torch.Tensor) -> torch.Tensor:
        product = x.transpose(1, 2) @ x if turned_first else x @ x.transpose(1, 2)
        result: torch.Tensor = chain(layers, product, torch.relu, lambda y: y.transpose(1, 2))
        return result

    return Written(written, head=linear(6, 3), **{name: linear(6, 6) for name in "pqrs"})


def chained_twin() -> keras.Model:
    """The layer that plays p is named as q is, and so on."""
    names = zip("pqrs", "qpsr", strict=True)
    layers = {name: K.Dense(6, use_bias=False, name=f"layers_{other}") for name, other in names}
    x = keras.Input((6, 6))
    return keras.Model(x, chain(layers | {"head": dense(3)}, ops.matmul(x, turned(x)), ops.relu, turned))


def test_layers_that_show_only_together_are_paired_by_trying() -> None:
    assert carried(chained(), chained_twin(), (normal(1, 6, 6),), (normal(4, 6, 6),)) < 1e-5


def test_another_function_is_refused_after_every_pairing_and_says_how_many() -> None:
    with pytest.raises(
        MismatchError, match=r"3 other pairings of nodes that structure does not tell apart were tried"
    ):
        carried(chained(turned_first=True), chained_twin(), (normal(1, 6, 6),), (normal(4, 6, 6),))


def test_a_product_in_the_other_order_that_is_not_turned_is_named() -> None:
    left = Written(lambda d, x: torch.tanh(d["a"](x)) @ d["b"](x), a=linear(6, 6), b=linear(6, 6))
    x = keras.Input((6, 6))
    right = keras.Model(x, ops.matmul(dense(6)(x), ops.tanh(dense(6)(x))))
    with pytest.raises(MismatchError, match="connection is fed by"):
        carried(left, right, (normal(1, 6, 6),), (normal(4, 6, 6),))
