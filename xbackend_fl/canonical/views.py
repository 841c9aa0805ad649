"""Views of a layout: what a transpose, a reshape or a slice of a parameter means for its layout steps.

Models take parameters apart and turn them before they use them (``weight.T``, ``in_proj[:E]``, one expert of
a stack). Every function here pushes that down to the native tensors, so that the way back stays exact.
"""

from __future__ import annotations

import math
from collections.abc import Sequence

import numpy as np

from xbackend_fl.canonical.layout import (
    Blocks,
    Constant,
    Join,
    Layout,
    Native,
    Reorder,
    Repeat,
    Reshape,
    Shape,
    Stack,
    Sum,
    Transpose,
)
from xbackend_fl.errors import UnsupportedError


def transposed(layout: Layout, perm: Sequence[int]) -> Layout:
    """Axis ``i`` of the result is axis ``perm[i]`` of ``layout``; two transposes become one or none."""
    perm = tuple(axis % len(perm) for axis in perm)
    if isinstance(layout, Transpose):
        perm = tuple(layout.perm[axis] for axis in perm)
        layout = layout.base
    return layout if perm == tuple(range(len(perm))) else Transpose(layout, perm)


def reshaped(layout: Layout, shape: Shape) -> Layout:
    """Row-major reshape; two reshapes become one or none."""
    if isinstance(layout, Reshape):
        layout = layout.base
    return layout if layout.shape == shape else Reshape(layout, shape)


def slice_axis(layout: Layout, axis: int, start: int, stop: int) -> Layout:
    """The range ``start:stop`` of one axis.

    Raises:
        UnsupportedError: The range cuts through a step (half a gate, part of a flattened axis).
    """
    length = layout.shape[axis]
    if (start, stop) == (0, length):
        return layout
    match layout:
        case Native():
            ranges = {a: (low, high) for a, low, high in layout.box}
            offset = ranges.get(axis, (0, 0))[0]
            ranges[axis] = (offset + start, offset + stop)
            box = tuple((a, *ranges[a]) for a in sorted(ranges))
            return Native(layout.tensor, layout.full_shape, box)
        case Transpose():
            return Transpose(slice_axis(layout.base, layout.perm[axis], start, stop), layout.perm)
        case Reshape():
            return _slice_reshape(layout, axis, start, stop)
        case Blocks():
            return _slice_blocks(layout, axis, start, stop)
        case Reorder():
            return _slice_reorder(layout, axis, start, stop)
        case Constant():
            cut = np.take(layout.array, range(start, stop), axis)
            return Constant(cut.shape, tuple(map(float, cut.flat)))
        case Repeat():
            base = layout.base if axis == 0 else slice_axis(layout.base, axis, start, stop)
            return Repeat(base, stop - start if axis == 0 else layout.rows)
        case _:
            return _slice_several(layout, axis, start, stop)


def index(layout: Layout, axis: int, position: int) -> Layout:
    """One index of ``axis``, which disappears."""
    position %= layout.shape[axis]
    if isinstance(layout, Stack) and axis == 0:
        return layout.parts[position]
    cut = slice_axis(layout, axis, position, position + 1)
    return reshaped(cut, (*cut.shape[:axis], *cut.shape[axis + 1 :]))


def whole(layout: Layout) -> bool:
    """Whether the layout holds entire native tensors."""
    match layout:
        case Native():
            return not layout.box
        case Constant():
            return True
        case Join() | Stack() | Sum():
            return all(whole(item) for item in layout.parts)
        case _:
            return whole(layout.base)


def _slice_reshape(layout: Reshape, axis: int, start: int, stop: int) -> Layout:
    inner, outer = layout.base.shape, layout.shape
    lead, size = math.prod(outer[:axis]), outer[axis]
    starts = [math.prod(inner[:place]) for place in range(len(inner))]
    place = next((p for p, n in enumerate(inner) if starts[p] == lead and n > 1), None)
    if place is None:
        raise _cuts(layout, axis)
    length = inner[place]
    # The axis covers several inner axes (merged), or is the slow half of one (split).
    rest = 1
    if size >= length:
        end = place + 1
        while math.prod(inner[place:end]) < size:
            end += 1
        rest = math.prod(inner[place + 1 : end])
        first, last = start // rest, -(-stop // rest)
        inside = last == first + 1 and end == place + 2
        if math.prod(inner[place:end]) != size or ((start % rest or stop % rest) and not inside):
            raise _cuts(layout, axis)
        cut = slice_axis(layout.base, place, first, last)
        if inside:
            cut = slice_axis(cut, place + 1, start - first * rest, stop - first * rest)
    else:
        if length % size:
            raise _cuts(layout, axis)
        rest = length // size
        cut = slice_axis(layout.base, place, start * rest, stop * rest)
    return reshaped(cut, (*outer[:axis], stop - start, *outer[axis + 1 :]))


def _slice_blocks(layout: Blocks, axis: int, start: int, stop: int) -> Layout:
    if axis != layout.axis:
        return Blocks(slice_axis(layout.base, axis, start, stop), layout.axis, layout.order)
    size = layout.shape[axis] // len(layout.order)
    if start % size or stop % size:
        raise _cuts(layout, axis)
    chosen = layout.order[start // size : stop // size]
    parts = tuple(slice_axis(layout.base, axis, block * size, (block + 1) * size) for block in chosen)
    return parts[0] if len(parts) == 1 else Join(parts, axis)


def _slice_several(layout: Join | Stack | Sum, axis: int, start: int, stop: int) -> Layout:
    match layout:
        case Join() if layout.axis == axis:
            return _slice_join(layout, start, stop)
        case Join():
            return Join(tuple(slice_axis(item, axis, start, stop) for item in layout.parts), layout.axis)
        case Stack() if axis == 0:
            return Stack(layout.parts[start:stop])
        case Stack():
            return Stack(tuple(slice_axis(item, axis - 1, start, stop) for item in layout.parts))
        case Sum():
            return Sum(tuple(slice_axis(item, axis, start, stop) for item in layout.parts))


def _slice_join(layout: Join, start: int, stop: int) -> Layout:
    parts: list[Layout] = []
    offset = 0
    for item in layout.parts:
        length = item.shape[layout.axis]
        low, high = max(start - offset, 0), min(stop - offset, length)
        if low < high:
            parts.append(slice_axis(item, layout.axis, low, high))
        offset += length
    return parts[0] if len(parts) == 1 else Join(tuple(parts), layout.axis)


def _slice_reorder(layout: Reorder, axis: int, start: int, stop: int) -> Layout:
    if layout.axis != axis:
        return Reorder(slice_axis(layout.base, axis, start, stop), layout.axis, layout.segments)
    kept, offset = [], 0
    for segment in layout.segments:
        size = math.prod(segment.shape)
        if start <= offset and offset + size <= stop:
            kept.append(segment)
        elif offset < stop and start < offset + size:
            raise _cuts(layout, layout.axis)
        offset += size
    return Reorder(slice_axis(layout.base, layout.axis, start, stop), layout.axis, tuple(kept))


def _cuts(layout: Layout, axis: int) -> UnsupportedError:
    return UnsupportedError(f"a slice of axis {axis} cuts through a {layout.step} step of {layout.shape}")
