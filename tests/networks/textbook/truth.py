"""The map of weights that a person would write: for each Keras variable, its tensors in PyTorch and a transform."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import numpy as np

Array = np.ndarray[Any, Any]


@dataclass(frozen=True)
class Step:
    """``change(*sources)`` is the value of the Keras variable."""

    sources: tuple[str, ...]
    change: Callable[..., Array]


Truth = dict[str, Step]
"""By the end of the Keras variable's path."""


def as_is(value: Array) -> Array:
    """The same array."""
    return value


def turned(value: Array) -> Array:
    """``[out, in]`` as ``[in, out]``."""
    return value.T


def kernel(value: Array) -> Array:
    """Convolution: ``[out, in, *space]`` as ``[*space, in, out]``; transposed: ``[in, out, *space]`` the same way."""
    return value.transpose(*range(2, value.ndim), 1, 0)


def same(name: str, path: str) -> Truth:
    """One tensor that both hold in the same order."""
    return {path: Step((name,), as_is)}


def moved(names: str, path: str, change: Callable[..., Array]) -> Truth:
    """Tensors (names apart by blanks) that another order, or arithmetic, makes one variable of."""
    return {path: Step(tuple(names.split()), change)}


def linear(name: str, path: str, change: Callable[[Array], Array], *, bias: bool = True) -> Truth:
    """A kernel, and a bias that stays as it is."""
    found = moved(f"{name}.weight", f"{path}/kernel", change)
    return found | same(f"{name}.bias", f"{path}/bias") if bias else found


def dense(name: str, path: str, *, bias: bool = True) -> Truth:
    """``nn.Linear`` and ``Dense``."""
    return linear(name, path, turned, bias=bias)


def conv(name: str, path: str, *, bias: bool = True) -> Truth:
    """A convolution, also a transposed one, of any rank."""
    return linear(name, path, kernel, bias=bias)


def depthwise(name: str, path: str, *, bias: bool = True, multiplier: int = 1) -> Truth:
    """``groups=channels`` and ``DepthwiseConv``: ``[in * multiplier, 1, *space]`` as ``[*space, in, multiplier]``."""

    def change(value: Array) -> Array:
        apart = value.reshape(-1, multiplier, *value.shape[2:])
        return apart.transpose(*range(2, apart.ndim), 0, 1)

    return linear(name, path, change, bias=bias)


def flattened(name: str, path: str, *shape: int, bias: bool = True) -> Truth:
    """A dense layer behind features flattened as ``[channels, *space]`` there and ``[*space, channels]`` here."""

    def change(value: Array) -> Array:
        apart = value.T.reshape(*shape, -1)
        return apart.transpose(*range(1, len(shape)), 0, len(shape)).reshape(value.shape[1], -1)

    return linear(name, path, change, bias=bias)


def heads(name: str, path: str, number: int, *, bias: bool = True) -> Truth:
    """``nn.Linear`` and a kernel ``[in, heads, width]``."""
    found = moved(
        f"{name}.weight", f"{path}/kernel", lambda value: value.T.reshape(value.shape[1], number, -1)
    )
    return (
        found | moved(f"{name}.bias", f"{path}/bias", lambda value: value.reshape(number, -1))
        if bias
        else found
    )


def from_heads(name: str, path: str, number: int, *, bias: bool = True) -> Truth:
    """``nn.Linear`` and a kernel ``[heads, width, out]``."""
    return linear(name, path, lambda value: value.T.reshape(number, -1, value.shape[0]), bias=bias)


def third(which: int, change: Callable[[Array], Array] = as_is) -> Callable[[Array], Array]:
    """One of query, key, value out of rows that hold all three."""
    return lambda value: change(np.split(value, 3)[which])


def attention(name: str, path: str, number: int) -> Truth:
    """``nn.MultiheadAttention`` (one matrix) and ``MultiHeadAttention``."""
    found = from_heads(f"{name}.out_proj", f"{path}/attention_output", number)
    for i, part in enumerate(("query", "key", "value")):
        found |= moved(
            f"{name}.in_proj_weight",
            f"{path}/{part}/kernel",
            third(i, lambda value: value.T.reshape(value.shape[1], number, -1)),
        )
        found |= moved(
            f"{name}.in_proj_bias", f"{path}/{part}/bias", third(i, lambda value: value.reshape(number, -1))
        )
    return found


def norm(name: str, path: str, *, shift: bool = True) -> Truth:
    """Scale and shift of a normalisation."""
    found = same(f"{name}.weight", f"{path}/gamma")
    return found | same(f"{name}.bias", f"{path}/beta") if shift else found


def batch_norm(name: str, path: str) -> Truth:
    """Scale, shift and statistics."""
    return (
        norm(name, path)
        | same(f"{name}.running_mean", f"{path}/moving_mean")
        | same(f"{name}.running_var", f"{path}/moving_variance")
    )


def embedding(name: str, path: str) -> Truth:
    """A table."""
    return same(f"{name}.weight", f"{path}/embeddings")


def lstm(name: str, path: str, suffix: str = "_l0") -> Truth:
    """Gates in the same order, two biases there and their sum here; ``suffix`` is empty for a cell."""
    return _recurrent(name, path, suffix, as_is, lambda a, b: a + b)


def rnn(name: str, path: str, suffix: str = "_l0") -> Truth:
    """One gate, two biases there and their sum here."""
    return _recurrent(name, path, suffix, as_is, lambda a, b: a + b)


def gru(name: str, path: str, suffix: str = "_l0") -> Truth:
    """Reset before update there, update before reset here; two biases in both."""

    def order(value: Array) -> Array:
        reset, update, new = np.split(value, 3)
        return np.concatenate([update, reset, new])

    return _recurrent(name, path, suffix, order, lambda a, b: np.stack([order(a), order(b)]))


def _recurrent(
    name: str,
    path: str,
    suffix: str,
    order: Callable[[Array], Array],
    biases: Callable[[Array, Array], Array],
) -> Truth:
    return (
        moved(f"{name}.weight_ih{suffix}", f"{path}/kernel", lambda value: order(value).T)
        | moved(f"{name}.weight_hh{suffix}", f"{path}/recurrent_kernel", lambda value: order(value).T)
        | moved(f"{name}.bias_ih{suffix} {name}.bias_hh{suffix}", f"{path}/bias", biases)
    )


def several(maker: Callable[..., Truth], *pairs: str, **options: Any) -> Truth:
    """The same kind of layer many times: each pair is the two names with a blank between."""
    found: Truth = {}
    for pair in pairs:
        name, path = pair.split()
        found |= maker(name, path, **options)
    return found
