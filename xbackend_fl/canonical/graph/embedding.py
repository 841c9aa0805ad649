"""Embeddings: rows of a table by data, by constant positions, or field by field in one table."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from itertools import pairwise
from typing import Any

import numpy as np
from numpy.typing import NDArray

from xbackend_fl.canonical import views
from xbackend_fl.canonical.graph.builder import GraphBuilder
from xbackend_fl.canonical.graph.operands import Operand, as_value, constant_value, expand
from xbackend_fl.canonical.layout import Layout
from xbackend_fl.canonical.value import Value
from xbackend_fl.errors import UnsupportedError


def lookup(
    builder: GraphBuilder,
    name: str,
    weight: Layout,
    indices: Operand,
    padding: int | None = None,
    origin: str | None = None,
) -> Operand:
    """Rows of an embedding; constant indices in a row (positions) are a view of the parameter.

    ``padding`` is the row without a gradient, -1 for none, and ``None`` where the model cannot be given one.
    """
    if isinstance(indices, Value):
        indices = from_front(builder, indices, weight.shape[0])
        fields = _fields(builder, indices)
        if fields is not None and padding in {None, -1}:
            return _lookup_fields(builder, name, weight, *fields)
        return builder.embedding(name, indices, weight, padding, origin)
    if not isinstance(indices, np.ndarray):
        raise UnsupportedError(f"{name!r}: parameters are used as indices")
    rows = indices
    if for_each_example(builder, rows):
        one = lookup(builder, name, weight, rows[:1], padding, origin)
        return expand(builder, name, as_value(builder, one), (*rows.shape, weight.shape[1]))
    first = int(rows.flat[0]) if rows.size else 0
    in_front = first == 0 or padding is None or padding < first
    if first >= 0 and in_front and np.array_equal(rows.reshape(-1), np.arange(first, first + rows.size)):
        cut = views.slice_axis(weight, 0, first, first + rows.size)
        return views.reshaped(cut, (*rows.shape, weight.shape[1]))
    found = builder.embedding(name, constant_value(builder, rows.reshape(-1)), weight, padding, origin)
    return builder.reshape(name, found, (*rows.shape, weight.shape[1]))


def for_each_example(builder: GraphBuilder, rows: NDArray[Any]) -> bool:
    """Whether constant indices are the same positions for every example of the batch that the graph was made with."""
    return rows.ndim > 1 and rows.shape[0] == builder.batch > 1 and bool((rows == rows[:1]).all())


def from_front(builder: GraphBuilder, indices: Value, length: int) -> Value:
    """Indices without ``where(i < 0, i + length, i)``: what picks counts negative ones from the back anyway."""
    producer = builder.recorder.producer
    choice = producer(indices.name)
    if choice is None or choice.operator != "Where":
        return indices
    condition, counted, plain = choice.inputs
    less, added = producer(condition), producer(counted)
    if less is None or (less.operator, less.inputs, less.attributes.get("constant")) != (
        "Less",
        (plain,),
        0.0,
    ):
        return indices
    if added is None or (added.operator, added.inputs, added.attributes.get("constant")) != (
        "Add",
        (plain,),
        length,
    ):
        return indices
    return replace(indices, name=plain)


def _fields(builder: GraphBuilder, indices: Value) -> tuple[Value, list[int]] | None:
    """Data and offsets of ``data + [0, 7, 12]``: every field has its own rows of one table."""
    draft = builder.recorder.producer(indices.name)
    if draft is None or draft.operator != "Add" or len(draft.inputs) != 2:
        return None
    for data, other in (draft.inputs, draft.inputs[::-1]):
        constant = builder.recorder.producer(other)
        if constant is None or constant.operator != "Constant" or constant.attributes["dtype"] != "int64":
            continue
        shape, offsets = constant.attributes["shape"], constant.attributes["value"]
        assert isinstance(offsets, tuple)
        starts = [int(n) for n in offsets]
        rising = starts[0] == 0 and all(a < b for a, b in pairwise(starts))
        if shape == (len(starts),) and rising and indices.native_shape[-1:] == shape:
            return replace(indices, name=data), starts
    return None


def _lookup_fields(
    builder: GraphBuilder, name: str, weight: Layout, data: Value, starts: Sequence[int]
) -> Operand:
    """One embedding per field; the tables are parts of one."""
    found = []
    for field, (start, stop) in enumerate(zip(starts, [*starts[1:], weight.shape[0]], strict=True)):
        ids = builder.pick(name, data, -1, field)
        rows = views.slice_axis(weight, 0, start, stop)
        found.append(builder.embedding(f"{name}[{start}:{stop}]", ids, rows, None))
    joined = builder.concat(name, found, -1)
    return builder.reshape(name, joined, (*data.native_shape, weight.shape[1]))
