"""Finds the axis order in which a model reads each input."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import tensorflow as tf

from xbackend_fl.adapter.contract import Array
from xbackend_fl.errors import UnsupportedError
from xbfl_tensorflow.trace import Call, Trace, steps

_SEQUENCES = frozenset(
    {"LSTM", "GRU", "SimpleRNN", "Bidirectional", "Dense", "EinsumDense", "Embedding", "MultiHeadAttention"}
    | {"LayerNormalization"}
)
_MATRICES = frozenset({"MatMul", "BatchMatMul", "BatchMatMulV2", "BatchMatMulV3", "Einsum", "GatherV2"})

Order = tuple[int, ...]


def default_order(array: Array, declared: tuple[int | None, ...]) -> Order:
    """Channels last for images unless the declared shape says otherwise.

    Raises:
        UnsupportedError: The example has the declared shape in no order.
    """
    rank = array.ndim
    plain: Order = tuple(range(rank))
    order = (0, *range(2, rank), 1) if rank >= 4 else plain
    candidates = [order, plain, (0, *range(2, rank), 1) if rank >= 3 else plain, *_videos(rank)]
    for candidate in candidates:
        if _fits(array, candidate, declared):
            return candidate
    received = [array.shape[axis] for axis in order]
    raise UnsupportedError(
        f"the Keras model declares an input {list(declared)}; "
        f"the example {list(array.shape)} arrives there as {received}",
        hint="give --input in ONNX layout (channels first)",
    )


def infer_order(
    traced: Trace, index: int, array: Array, order: Order, declared: tuple[int | None, ...]
) -> tuple[Order, str]:
    """The order of input ``index`` from the first layer that cares, and how it was found out."""
    rank = array.ndim
    plain: Order = tuple(range(rank))
    last: Order = (0, *range(2, rank), 1)
    found = next(_consumers(traced, traced.inputs[index].name), None) if rank >= 3 else None
    if found is None:
        return order, "as given" if order == plain else "channels-last: nothing in the model says otherwise"
    video = _videos(rank)[0] if found[0] == "video" and rank >= 5 else last
    wanted, name = {"plain": plain, "last": last}.get(found[0], video), found[1]
    word = "as given" if wanted == plain else "channels-last"
    if _fits(array, wanted, declared):
        return wanted, f"{word}: first read by {name!r}"
    received = [array.shape[axis] for axis in wanted]
    return (
        order,
        f"{'as given' if order == plain else 'channels-last'}: {received} is not what the model declares",
    )


def _videos(rank: int) -> list[Order]:
    """``[N, T, C, *spatial]`` read as ``[N, T, *spatial, C]``."""
    return [(0, 1, *range(3, rank), 2)] if rank >= 5 else []


def _fits(array: Array, order: Order, declared: tuple[int | None, ...]) -> bool:
    """Whether an example in this order has the declared shape, the batch axis aside."""
    received = [array.shape[axis] for axis in order]
    return len(declared) == len(received) and all(
        n in (None, m) for n, m in zip(declared[1:], received[1:], strict=True)
    )


def _consumers(traced: Trace, name: str) -> Iterator[tuple[str, str]]:
    """What the layers and operations behind an input say about its order, in execution order."""
    reached = {name}
    for step in steps(traced.graph, traced.calls):
        marked = isinstance(step, Call)
        reads = (step.arguments, step.options) if marked else list(step.inputs)
        if not reached.intersection(_names(reads)):
            continue
        word = _of_layer(step.target) if marked else _of_operation(step)
        if word:
            yield word, str(getattr(step.target, "name", step.target) if marked else step.name)
        reached.update(_names(step.outputs))


def _names(nest: Any) -> set[str]:
    return {item.name for item in tf.nest.flatten(nest) if tf.is_tensor(item)}


def _of_layer(layer: Any) -> str:
    kind = type(layer).__name__
    if kind in _SEQUENCES:
        return "plain"
    if kind.startswith("ConvLSTM"):
        return "video" if layer.data_format == "channels_last" else "plain"
    if hasattr(layer, "data_format"):
        return "plain" if layer.data_format == "channels_first" else "last"
    if kind in {"BatchNormalization", "GroupNormalization"}:
        axis = layer.axis if isinstance(layer.axis, int) else next(iter(layer.axis))
        return "plain" if axis == 1 else "last"
    return ""


def _of_operation(operation: Any) -> str:
    if operation.type in _MATRICES:
        return "plain"
    if any(item.name == "data_format" for item in operation.op_def.attr):
        return "plain" if operation.get_attr("data_format").startswith(b"NC") else "last"
    return ""
