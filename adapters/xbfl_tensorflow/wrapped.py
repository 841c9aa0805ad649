"""Layers around others: every time step is an example of its own."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from xbackend_fl.canonical import Value
from xbfl_tensorflow.graph import Context, Handler, require


def time_distributed(layer: Any, known: Callable[[Any], Handler | None]) -> Handler | None:
    """The handler of a TimeDistributed layer; ``None`` if what it wraps is walked inside.

    Args:
        layer: The layer.
        known: The handler of a layer of Keras itself.
    """
    inner = list(_inside(layer.layer))
    handlers = [known(item) for item in inner]
    if not inner or any(handler is None for handler in handlers):
        return None

    def handle(context: Context, outer: Any, value: Value) -> Value:
        name = context.name(outer)
        require(
            len(value.shape) > 2 and value.perm[:2] == (0, 1),
            name,
            "expected a batch, a time axis, and something behind it",
        )
        batch, steps, *rest = value.shape
        merged = (batch * steps, *rest)
        (out,) = context.builder.add("Reshape", name, [value], [merged])
        value = Value(out, merged, (0, *(axis - 1 for axis in value.perm[2:])), value.order)
        for item, handler in zip(inner, handlers, strict=True):
            assert handler is not None
            value = handler(context, item, value)
        return _by_step(context, name, value, batch, steps)

    return handle


def _inside(layer: Any) -> list[Any]:
    """The layers that a wrapped one calls in a row."""
    if type(layer).__name__ == "Sequential":
        return [item for inner in layer.layers for item in _inside(inner)]
    return [layer]


def _by_step(context: Context, name: str, value: Value, batch: int, steps: int) -> Value:
    """``[N · T, …]`` as ``[N, T, …]``; images and flattened features keep their order."""
    if value.perm[0] != 0:
        value = context.builder.plain(value)
    shape = (batch, steps, *value.shape[1:])
    (out,) = context.builder.add("Reshape", name, [value], [shape])
    return Value(out, shape, (0, 1, *(axis + 1 for axis in value.perm[1:])), value.order)
