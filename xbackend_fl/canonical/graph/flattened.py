"""Flattened features as data: where no layer's weights can take up the order in which a framework flattened an image."""

from __future__ import annotations

import math
from typing import TYPE_CHECKING

from xbackend_fl.canonical.graph.rewrites import feature_makers
from xbackend_fl.canonical.layout import Segment, Shape, inverse
from xbackend_fl.canonical.value import Value

if TYPE_CHECKING:
    from xbackend_fl.canonical.graph.builder import GraphBuilder


def in_native_order(builder: GraphBuilder, name: str, value: Value) -> Value:
    """The value with its features as its framework flattened them; it stays as it is if that is the canonical order.

    Args:
        builder: Receives the nodes that move the features.
        name: Wanted name of these nodes.
        value: ``[N, …, features]``.
    """
    if value.order is None:
        return value
    last = len(value.shape) - 1
    plain, start = Value(value.name, value.shape, tuple(range(last + 1))), 0
    parts: list[Value] = []
    for segment in value.order:
        stop = start + math.prod(segment.shape)
        parts.append(_turned(builder, name, builder.slice(name, plain, last, start, stop), segment))
        start = stop
    return builder.concat(name, parts, last)


def _turned(builder: GraphBuilder, name: str, value: Value, segment: Segment) -> Value:
    if segment.perm == tuple(range(len(segment.perm))):
        return value
    lead = value.shape[:-1]
    image = (*lead, *segment.shape)
    (made,) = builder.add("Reshape", name, [value], [image])
    perm = (*range(len(lead)), *(axis + len(lead) for axis in segment.perm))
    turned = tuple(image[axis] for axis in perm)
    (made,) = builder.add("Transpose", name, [Value(made, image, perm)], [turned], attributes={"perm": perm})
    (made,) = builder.add("Reshape", name, [Value(made, turned, perm)], [value.shape])
    return Value(made, value.shape, tuple(range(len(value.shape))))


def unflattened(builder: GraphBuilder, name: str, value: Value, shape: Shape) -> Value | None:
    """A reshape of dense features to ``[N, *spatial, C]`` in a channels-last model.

    The dense layer's rows are brought into channels-first order, so the canonical reshape is a plain
    one. ``None`` if the features do not come from a dense layer.
    """
    makers = feature_makers(builder.recorder, value.name)
    if makers is None:
        return None
    rank = len(shape)
    perm = (0, *range(2, rank), 1)
    canonical = tuple(shape[axis] for axis in inverse(perm))
    segment = Segment(canonical[1:], tuple(axis - 1 for axis in perm[1:]))
    (out,) = builder.add("Reshape", name, [value], [canonical])
    builder.recorder.reorder(makers, value.name, (segment,))
    return Value(out, canonical, perm)
