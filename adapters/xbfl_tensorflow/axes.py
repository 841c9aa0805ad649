"""Finds the axis order in which a model reads each input."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import tensorflow as tf

from xbackend_fl.adapter.contract import Array
from xbackend_fl.canonical import Axes
from xbackend_fl.errors import UnsupportedError
from xbfl_tensorflow.trace import Call, Trace, steps

_SEQUENCES = frozenset(
    {"LSTM", "GRU", "SimpleRNN", "Bidirectional", "Dense", "EinsumDense", "Embedding", "MultiHeadAttention"}
    | {"LayerNormalization", "ReversibleEmbedding"}
)
_MATRICES = frozenset({"MatMul", "BatchMatMul", "BatchMatMulV2", "BatchMatMulV3", "Einsum", "GatherV2"})

Order = tuple[int, ...]
Shape = tuple[int | None, ...]


def default_axes(array: Array, declared: Shape, told: Order | None = None) -> Axes:
    """How a model reads an example: channels last for images unless the declared shape says otherwise.

    Where no order fits, an axis of length one at the end of the model's own array comes or goes, if that fits in one way only.

    Args:
        array: The example, in ONNX layout.
        declared: The shape that the model declares; ``None`` for any length.
        told: The order that the user declares.

    Raises:
        UnsupportedError: The example has the declared shape in no order, or in several.
    """
    options = [told] if told else orders_of(array.ndim)
    note = "declared" if told else ""
    for option in options:
        if _fits(array, Axes(option), declared):
            return Axes(option, note)
    ends = [Axes(option, note, trailing) for trailing in (1, -1) for option in options]
    found = [axes for axes in ends if _ends_in_one(array, axes) and _fits(array, axes, declared)]
    # Two that differ in axes of length one only are one.
    apart = {(axes.native_shape(array.shape), _kept(array, axes)): axes for axes in found}
    if len(apart) == 1:
        (axes,) = apart.values()
        return axes
    received = [array.shape[axis] for axis in options[0]]
    if told:
        return Axes(told, note)
    raise UnsupportedError(
        f"the Keras model declares an input {list(declared)}; "
        f"the example {list(array.shape)} arrives there as {received}"
        + (", and an axis of length one would fit in several ways" if apart else ""),
        hint="give --input in ONNX layout (channels first)",
    )


def infer_axes(traced: Trace, index: int, array: Array, axes: Axes, declared: Shape) -> Axes:
    """How input ``index`` is read as the first layer says that cares, with how it was found out."""
    if axes.note or axes.trailing:
        return axes
    rank, order = array.ndim, axes.perm
    plain: Order = tuple(range(rank))
    last: Order = (0, *range(2, rank), 1)
    every = list(_consumers(traced, traced.inputs[index])) if rank >= 3 else []
    # What reads data of fewer axes, behind a mean over some, says less of their order.
    found = next((item for item in every if item[2]), next(iter(every), None))
    if found is None:
        return Axes(
            order, "as given" if order == plain else "channels-last: nothing in the model says otherwise"
        )
    video = _videos(rank)[0] if found[0] == "video" and rank >= 5 else last
    wanted, name = {"plain": plain, "last": last}.get(found[0], video), found[1]
    word = "as given" if wanted == plain else "channels-last"
    if _fits(array, Axes(wanted), declared):
        return Axes(wanted, f"{word}: first read by {name!r}")
    received = [array.shape[axis] for axis in wanted]
    word = "as given" if order == plain else "channels-last"
    return Axes(order, f"{word}: {received} is not what the model declares")


def orders_of(rank: int) -> list[Order]:
    """Orders in which a model may read its data, the likeliest first."""
    plain: Order = tuple(range(rank))
    last: Order = (0, *range(2, rank), 1) if rank >= 3 else plain
    return list(dict.fromkeys([*([last, plain] if rank >= 4 else [plain, last]), *_videos(rank)]))


def _ends_in_one(array: Array, axes: Axes) -> bool:
    """Whether what comes or goes at the end is an axis of length one, and not the batch."""
    return axes.trailing > 0 or (array.ndim > 1 and array.shape[axes.perm[-1]] == 1)


def _kept(array: Array, axes: Axes) -> tuple[int, ...]:
    """The axes that are longer than one in the order in which the model has them."""
    return tuple(axis for axis in axes.perm if array.shape[axis] != 1)


def _videos(rank: int) -> list[Order]:
    """``[N, T, C, *spatial]`` read as ``[N, T, *spatial, C]``."""
    return [(0, 1, *range(3, rank), 2)] if rank >= 5 else []


def _fits(array: Array, axes: Axes, declared: Shape) -> bool:
    """Whether an example read so has the declared shape, the batch axis aside."""
    received = axes.native_shape(array.shape)
    return len(declared) == len(received) and all(
        n in (None, m) for n, m in zip(declared[1:], received[1:], strict=True)
    )


def _consumers(traced: Trace, source: Any) -> Iterator[tuple[str, str, bool]]:
    """What the layers and operations behind an input say about its order, in execution order, and whether all its axes are there."""
    reached, whole = {source.name}, {source.name}
    for step in steps(traced.graph, traced.calls):
        marked = isinstance(step, Call)
        reads = (step.arguments, step.options) if marked else list(step.inputs)
        names = _names(reads)
        if not reached.intersection(names):
            continue
        word = _of_layer(step.target) if marked else _of_operation(step)
        given = (item.shape.rank for item in tf.nest.flatten(reads) if tf.is_tensor(item))
        if word == "last" and next(given, source.shape.rank) < source.shape.rank:
            # Frame by frame: one axis in front of an image's is gone.
            word = "video"
        if word:
            name = str(getattr(step.target, "name", step.target) if marked else step.name)
            yield word, name, not whole.isdisjoint(names)
        reached.update(_names(step.outputs))
        if not whole.isdisjoint(names) and _ranks(step.outputs) == {source.shape.rank}:
            whole.update(_names(step.outputs))


def _ranks(nest: Any) -> set[int | None]:
    return {item.shape.rank for item in tf.nest.flatten(nest) if tf.is_symbolic_tensor(item)}


def _names(nest: Any) -> set[str]:
    return {item.name for item in tf.nest.flatten(nest) if tf.is_symbolic_tensor(item)}


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
