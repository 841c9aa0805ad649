"""What is picked, turned round or repeated along an axis, by constants and by data."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import replace

import numpy as np

from xbackend_fl.canonical import views
from xbackend_fl.canonical.graph import axes_ops
from xbackend_fl.canonical.graph.builder import GraphBuilder
from xbackend_fl.canonical.graph.embedding import for_each_example, from_front, lookup
from xbackend_fl.canonical.graph.operands import Operand, as_value, expand, native_shape
from xbackend_fl.canonical.layout import Array, Join, Shape, Step
from xbackend_fl.canonical.node import AttributeValue
from xbackend_fl.canonical.value import Value
from xbackend_fl.errors import UnsupportedError


def gather_constant(builder: GraphBuilder, name: str, operand: Operand, axis: int, indices: Array) -> Operand:
    """Positions of a native axis by constant indices of any shape, which takes the place of the axis.

    One position is a Select, an even rise a Slice, the whole axis backwards a Flip; anything else a Take.
    """
    shape = native_shape(operand)
    axis %= len(shape)
    indices = np.asarray(indices)
    if indices.dtype == bool:
        (indices,) = np.nonzero(indices)
    length = shape[axis]
    flat = np.where(indices < 0, indices + length, indices).reshape(-1)
    if isinstance(operand, np.ndarray):
        return np.take(operand, indices, axis=axis)
    if indices.ndim == 0:
        return axes_ops.pick(builder, name, operand, axis, int(flat[0]))
    if axis == 0 and isinstance(operand, Step) and for_each_example(builder, indices):
        one = as_value(builder, gather_constant(builder, name, operand, 0, indices[:1]))
        return expand(builder, name, one, (*indices.shape, *shape[1:]))
    picked = _along(builder, name, operand, axis, flat)
    wanted = (*shape[:axis], *indices.shape, *shape[axis + 1 :])
    return picked if native_shape(picked) == wanted else axes_ops.reshape(builder, name, picked, wanted)


def _along(builder: GraphBuilder, name: str, operand: Operand, axis: int, flat: Array) -> Operand:
    length = native_shape(operand)[axis]
    steps = set(np.diff(flat).tolist())
    if len(steps) <= 1 and flat.size:
        step = steps.pop() if steps else 1
        if step > 0:
            return axes_ops.cut(builder, name, operand, axis, int(flat[0]), int(flat[-1]) + 1, step)
        if step == -1 and flat.size == length and not isinstance(operand, Step):
            return flip(builder, name, operand, [axis])
    if isinstance(operand, Step):
        if sorted(flat.tolist()) == list(range(length)):
            return Join(tuple(views.slice_axis(operand, axis, int(i), int(i) + 1) for i in flat), axis)
        return _rows(builder, name, operand, axis, flat)
    value = as_value(builder, operand)
    place = value.perm[axis]
    shape = (*value.shape[:place], flat.size, *value.shape[place + 1 :])
    attributes: dict[str, AttributeValue] = {"axis": place, "indices": tuple(int(n) for n in flat)}
    (out,) = builder.add("Take", name, [value], [shape], attributes=attributes)
    return replace(value, name=out, shape=shape)


def _rows(builder: GraphBuilder, name: str, layout: Step, axis: int, flat: Array) -> Operand:
    """Rows of a parameter that are read more than once, or not at all: a table with constant indices."""
    rank = len(layout.shape)
    order = (axis, *(a for a in range(rank) if a != axis))
    turned = views.transposed(layout, order)
    table = views.reshaped(turned, (turned.shape[0], math.prod(turned.shape[1:])))
    found = lookup(builder, name, table, flat)
    grown = axes_ops.reshape(builder, name, found, (flat.size, *turned.shape[1:]))
    return axes_ops.transpose(builder, grown, [order.index(a) for a in range(rank)])


def index(builder: GraphBuilder, name: str, operand: Operand, indices: Sequence[Operand | None]) -> Operand:
    """NumPy's advanced indexing: constants along one axis or several, or rows that data pick.

    Raises:
        UnsupportedError: Data pick along several axes that are no batch, or axes that do not adjoin.
    """
    places = [axis for axis, item in enumerate(indices) if item is not None]
    given = [item for item in indices if item is not None]
    if all(isinstance(item, np.ndarray) for item in given):
        arrays = [np.asarray(item) for item in given]
        if len(places) == 1:
            return gather_constant(builder, name, operand, places[0], arrays[0])
        return _by_constants(builder, name, operand, places, arrays)
    if len(given) == 1:
        return gather(builder, name, operand, places[0], given[0])
    batch = _batch_of(given[0], native_shape(operand)[0]) if places == [0, 1] else None
    if batch is not None and isinstance(given[1], Value):
        return gather(builder, name, operand, 1, given[1], batch_dims=1)
    raise UnsupportedError(f"{name!r} picks by data along several axes")


def _by_constants(
    builder: GraphBuilder, name: str, operand: Operand, places: Sequence[int], arrays: Sequence[Array]
) -> Operand:
    """Several adjoining axes picked at once: they become one."""
    shape = native_shape(operand)
    first, last = places[0], places[-1]
    if list(places) != list(range(first, last + 1)):
        raise UnsupportedError(f"{name!r} picks along axes that do not adjoin")
    sizes = [shape[axis] for axis in places]
    flat = np.ravel_multi_index(
        [np.where(a < 0, a + n, a) for a, n in zip(np.broadcast_arrays(*arrays), sizes, strict=True)], sizes
    )
    merged = (*shape[:first], math.prod(sizes), *shape[last + 1 :])
    joined = axes_ops.reshape(builder, name, operand, merged)
    return gather_constant(builder, name, joined, first, np.asarray(flat))


def _batch_of(operand: Operand, batch: int) -> bool | None:
    """Whether indices count the examples of the batch."""
    if isinstance(operand, np.ndarray) and np.array_equal(operand.reshape(-1), np.arange(batch)):
        return True
    return None


def gather(
    builder: GraphBuilder, name: str, operand: Operand, axis: int, indices: Operand, batch_dims: int = 0
) -> Operand:
    """Positions of a native axis that data pick, example by example where ``batch_dims`` is 1.

    A table that is data (a parameter that is read in other ways, too) is picked from along its first axis.

    Raises:
        UnsupportedError: It has no canonical form.
    """
    rank = len(native_shape(operand))
    axis %= rank
    if isinstance(indices, np.ndarray) and not batch_dims:
        return gather_constant(builder, name, operand, axis, indices)
    if isinstance(operand, Step) and axis == 0:
        table = views.reshaped(operand, (operand.shape[0], math.prod(operand.shape[1:])))
        found = lookup(builder, name, table, indices)
        return axes_ops.reshape(builder, name, found, (*native_shape(indices), *operand.shape[1:]))
    if batch_dims != axis or axis > 1:
        raise UnsupportedError(f"{name!r} picks data by data along axis {axis}")
    value = builder.plain(as_value(builder, operand))
    picked = builder.plain(from_front(builder, as_value(builder, indices), value.shape[axis]))
    (grown,) = builder.add("Reshape", name, [picked], [(*picked.shape, 1)])
    shape = (*picked.shape, *value.shape[axis + 1 :])
    reads = [value, Value(grown, (*picked.shape, 1), tuple(range(len(picked.shape) + 1)))]
    (out,) = builder.add("GatherND", name, reads, [shape], attributes={"batch_dims": batch_dims})
    return Value(out, shape, tuple(range(len(shape))))


def gather_elements(
    builder: GraphBuilder, name: str, operand: Operand, axis: int, indices: Operand
) -> Operand:
    """``out[i, j] = operand[i, indices[i, j]]`` along any native axis; both have the same rank."""
    value = builder.plain(as_value(builder, operand))
    place = axis % len(value.shape) - len(value.shape)
    picked = builder.plain(from_front(builder, as_value(builder, indices), value.shape[place]))
    (out,) = builder.add("GatherElements", name, [value, picked], [picked.shape], attributes={"axis": place})
    return Value(out, picked.shape, tuple(range(len(picked.shape))))


def flip(builder: GraphBuilder, name: str, operand: Operand, axes: Sequence[int]) -> Operand:
    """Native axes backwards."""
    if isinstance(operand, np.ndarray):
        return np.flip(operand, tuple(axes))
    value = as_value(builder, operand)
    for axis in sorted(value.perm[axis % len(value.shape)] for axis in axes):
        place = axis - len(value.shape)
        (out,) = builder.add("Flip", name, [value], [value.shape], attributes={"axis": place})
        value = replace(value, name=out)
    return value


def roll(
    builder: GraphBuilder, name: str, operand: Operand, shifts: Sequence[int], axes: Sequence[int]
) -> Operand:
    """Native axes moved round in a circle."""
    if isinstance(operand, np.ndarray):
        return np.roll(operand, tuple(shifts), tuple(axes))
    value = as_value(builder, operand)
    rank = len(value.shape)
    moves = sorted((value.perm[axis % rank], shift) for axis, shift in zip(axes, shifts, strict=True))
    for axis, shift in moves:
        length = value.shape[axis]
        if shift % length:
            # The shorter way round, so that it does not name a length.
            short = shift % length if shift % length <= length // 2 else shift % length - length
            attributes: dict[str, AttributeValue] = {"axis": axis - rank, "shift": short}
            (out,) = builder.add("Roll", name, [value], [value.shape], attributes=attributes)
            value = replace(value, name=out)
    return value


def repeat(builder: GraphBuilder, name: str, operand: Operand, axis: int, times: int) -> Operand:
    """Every position of a native axis so many times in a row."""
    shape = native_shape(operand)
    axis %= len(shape)
    if isinstance(operand, np.ndarray):
        return np.repeat(operand, times, axis)
    grown = (*shape[: axis + 1], 1, *shape[axis + 1 :])
    wide = (*shape[: axis + 1], times, *shape[axis + 1 :])
    merged = (*shape[:axis], shape[axis] * times, *shape[axis + 1 :])
    return _widened(builder, name, operand, grown, wide, merged)


def tile(builder: GraphBuilder, name: str, operand: Operand, times: Sequence[int]) -> Operand:
    """The whole so many times one behind the other, along each native axis; new axes come in front."""
    if isinstance(operand, np.ndarray):
        return np.tile(operand, tuple(times))
    shape = native_shape(operand)
    lead = len(times) - len(shape)
    if lead > 0:
        operand = axes_ops.reshape(builder, name, operand, (*(1,) * lead, *shape))
        shape = native_shape(operand)
    times = (*(1,) * -lead, *times) if lead < 0 else tuple(times)
    for axis, count in enumerate(times):
        if count == 1:
            continue
        if shape[axis] == 1:
            wide = (*shape[:axis], count, *shape[axis + 1 :])
            operand = axes_ops.broadcast_to(builder, name, operand, wide)
        else:
            operand = axes_ops.concat(builder, name, [operand] * count, axis)
        shape = native_shape(operand)
    return operand


def _widened(
    builder: GraphBuilder, name: str, operand: Operand, grown: Shape, wide: Shape, merged: Shape
) -> Operand:
    value = builder.plain(as_value(builder, operand))
    (more,) = builder.add("Reshape", name, [value], [grown])
    made = expand(builder, name, Value(more, grown, tuple(range(len(grown)))), wide)
    (out,) = builder.add("Reshape", name, [made], [merged])
    return Value(out, merged, tuple(range(len(merged))))


def diagonal(
    builder: GraphBuilder, name: str, operand: Operand, offset: int, first: int, second: int
) -> Operand:
    """The diagonal of two native axes, as the last axis."""
    shape = native_shape(operand)
    rank = len(shape)
    first, second = first % rank, second % rank
    rest = [axis for axis in range(rank) if axis not in {first, second}]
    turned = axes_ops.transpose(builder, operand, [*rest, first, second])
    rows, columns = shape[first], shape[second]
    start = offset if offset >= 0 else -offset * columns
    count = min(rows + min(offset, 0), columns - max(offset, 0))
    flat = axes_ops.reshape(builder, name, turned, (*(shape[axis] for axis in rest), rows * columns))
    return axes_ops.cut(builder, name, flat, -1, start, start + (count - 1) * (columns + 1) + 1, columns + 1)


def one_hot(
    builder: GraphBuilder, name: str, operand: Operand, depth: int, on: float = 1.0, off: float = 0.0
) -> Value:
    """A new last native axis that is ``on`` at the position that a whole number says, else ``off``."""
    value = builder.plain(as_value(builder, operand))
    shape = (*value.shape, 1)
    (grown,) = builder.add("Reshape", name, [value], [shape])
    places = as_value(builder, np.arange(depth))
    column = Value(grown, shape, tuple(range(len(shape))))
    (hit,) = builder.add("Equal", name, [column, places], [(*value.shape, depth)])
    made = builder.elementwise(
        "Cast", name, Value(hit, (*value.shape, depth), tuple(range(len(shape)))), to="float32"
    )
    if on - off != 1.0:
        made = builder.elementwise("Mul", name, made, constant=float(on - off))
    return made if off == 0.0 else builder.elementwise("Add", name, made, constant=float(off))
