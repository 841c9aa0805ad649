"""Layout steps: how a canonical tensor is made from native tensors, and back.

A layout is a small expression tree. Its leaves name native tensors; every other step is linear and has
an inverse, so the same tree exports, imports, and converts sums of weights as well as weights:

    forward(layout, natives) -> canonical array
    backward(layout, canonical, natives) writes into the native arrays

Steps work on any NumPy dtype (float32, and int64 for exact sums).
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Annotated, Any, Literal, TypeAlias

import numpy as np
from numpy.typing import NDArray
from pydantic import Field

Array: TypeAlias = NDArray[Any]
Shape: TypeAlias = tuple[int, ...]


@dataclass(frozen=True)
class Native:
    """A native tensor, or the box of it that belongs to this parameter.

    Attributes:
        tensor: The name the framework gives the tensor.
        full_shape: Its shape.
        box: ``(axis, start, stop)`` for every axis of which only a range is meant (q of ``in_proj_weight``).
    """

    tensor: str
    full_shape: Shape
    box: tuple[tuple[int, int, int], ...] = ()
    step: Literal["native"] = "native"

    @property
    def shape(self) -> Shape:
        """Shape of the box."""
        sizes = list(self.full_shape)
        for axis, start, stop in self.box:
            sizes[axis] = stop - start
        return tuple(sizes)

    @property
    def index(self) -> tuple[slice, ...]:
        """The box as a NumPy index."""
        index = [slice(None)] * len(self.full_shape)
        for axis, start, stop in self.box:
            index[axis] = slice(start, stop)
        return tuple(index)


@dataclass(frozen=True)
class Transpose:
    """Axis ``i`` of the result is axis ``perm[i]`` of ``base`` (as ``numpy.transpose``)."""

    base: Layout
    perm: tuple[int, ...]
    step: Literal["transpose"] = "transpose"

    @property
    def shape(self) -> Shape:
        """Shape after the step."""
        inner = self.base.shape
        return tuple(inner[axis] for axis in self.perm)


@dataclass(frozen=True)
class Reshape:
    """Row-major reshape to ``shape``."""

    base: Layout
    shape: Shape
    step: Literal["reshape"] = "reshape"


@dataclass(frozen=True)
class Blocks:
    """Cut ``axis`` into equal blocks; block ``i`` of the result is block ``order[i]`` of ``base`` (gate order)."""

    base: Layout
    axis: int
    order: tuple[int, ...]
    step: Literal["blocks"] = "blocks"

    @property
    def shape(self) -> Shape:
        """Shape after the step."""
        return self.base.shape


@dataclass(frozen=True)
class Join:
    """Concatenate ``parts`` along ``axis``."""

    parts: tuple[Layout, ...]
    axis: int
    step: Literal["join"] = "join"

    @property
    def shape(self) -> Shape:
        """Shape after the step."""
        first = self.parts[0].shape
        length = sum(part.shape[self.axis] for part in self.parts)
        return (*first[: self.axis], length, *first[self.axis + 1 :])


@dataclass(frozen=True)
class Stack:
    """Stack ``parts`` along a new axis 0 (directions of a recurrent layer)."""

    parts: tuple[Layout, ...]
    step: Literal["stack"] = "stack"

    @property
    def shape(self) -> Shape:
        """Shape after the step."""
        return (len(self.parts), *self.parts[0].shape)


@dataclass(frozen=True)
class Sum:
    """Add ``parts``. The way back writes everything to the first part and zero to the others.

    PyTorch's recurrent layers hold two biases of which only the sum is a function of the model; the
    second one is kept at zero and never trained, or it would move twice as fast as one bias.
    """

    parts: tuple[Layout, ...]
    step: Literal["sum"] = "sum"

    @property
    def shape(self) -> Shape:
        """Shape after the step."""
        return self.parts[0].shape


@dataclass(frozen=True)
class Segment:
    """A flattened feature block: canonical order is row-major over ``shape``, native over ``shape[perm]``."""

    shape: Shape
    perm: tuple[int, ...]


@dataclass(frozen=True)
class Reorder:
    """Bring the features of ``axis`` from the native flatten order into the canonical one."""

    base: Layout
    axis: int
    segments: tuple[Segment, ...]
    step: Literal["reorder"] = "reorder"

    @property
    def shape(self) -> Shape:
        """Shape after the step."""
        return self.base.shape

    @property
    def sources(self) -> NDArray[np.intp]:
        """For every native position, the canonical position of the same feature: ``[features]``."""
        return feature_order(self.segments)


@dataclass(frozen=True)
class Constant:
    """Values that this model computes with as constants, where the schema has a parameter that nobody trains.

    There is no native tensor to write to, so whoever brings other values is refused (:meth:`Binding.restore`).
    """

    shape: Shape
    values: tuple[float, ...]
    step: Literal["constant"] = "constant"

    @property
    def array(self) -> Array:
        """The values, float32."""
        return np.array(self.values, np.float32).reshape(self.shape)


@dataclass(frozen=True)
class Repeat:
    """The only row of ``base``, ``rows`` times along axis 0: what is added to every row of a table.

    It stands behind the first part of a :class:`Sum` and nowhere else, so nothing but zero comes back.
    """

    base: Layout
    rows: int
    step: Literal["repeat"] = "repeat"

    @property
    def shape(self) -> Shape:
        """Shape after the step."""
        return (self.rows, *self.base.shape[1:])


Step = Native | Transpose | Reshape | Blocks | Join | Stack | Sum | Reorder | Constant | Repeat
"""Any layout step; for ``isinstance``."""

Layout = Annotated[Step, Field(discriminator="step")]


def feature_order(segments: tuple[Segment, ...]) -> NDArray[np.intp]:
    """Canonical position of the feature at every native position, over consecutive segments: ``[features]``."""
    positions: list[NDArray[np.intp]] = []
    offset = 0
    for segment in segments:
        size = math.prod(segment.shape)
        canonical = np.arange(offset, offset + size, dtype=np.intp).reshape(segment.shape)
        positions.append(canonical.transpose(segment.perm).reshape(-1))
        offset += size
    return np.concatenate(positions)


def inverse(perm: tuple[int, ...]) -> tuple[int, ...]:
    """The permutation that undoes ``perm``."""
    result = [0] * len(perm)
    for index, axis in enumerate(perm):
        result[axis] = index
    return tuple(result)


def forward(layout: Layout, natives: Mapping[str, Array]) -> Array:
    """Evaluate ``layout``: native arrays in, one canonical array out (a view where NumPy allows one)."""
    match layout:
        case Native():
            return natives[layout.tensor][layout.index]
        case Transpose():
            return forward(layout.base, natives).transpose(layout.perm)
        case Reshape():
            return forward(layout.base, natives).reshape(layout.shape)
        case Blocks():
            return _permute_blocks(forward(layout.base, natives), layout.axis, layout.order)
        case Join():
            held = [forward(part, natives) for part in layout.parts]
            # Constants follow what they are joined with: sums of whole numbers stay whole.
            own = [
                array
                for part, array in zip(layout.parts, held, strict=True)
                if not isinstance(part, Constant)
            ]
            dtype = np.result_type(*own) if own else None
            return np.concatenate(held, axis=layout.axis, dtype=dtype, casting="unsafe")
        case Stack():
            return np.stack([forward(part, natives) for part in layout.parts])
        case Sum():
            total = forward(layout.parts[0], natives).copy()
            for part in layout.parts[1:]:
                total += forward(part, natives)
            return total
        case Reorder():
            return np.take(forward(layout.base, natives), np.argsort(layout.sources), axis=layout.axis)
        case Constant():
            return layout.array
        case Repeat():
            return np.broadcast_to(forward(layout.base, natives), layout.shape)


def backward(layout: Layout, canonical: Array, natives: Mapping[str, Array]) -> None:
    """Write ``canonical`` into the arrays of ``natives``: the inverse of :func:`forward`.

    Args:
        layout: The layout of one parameter.
        canonical: Its canonical value, of shape ``layout.shape``.
        natives: Writable arrays by native tensor name; every tensor the layout names must be there.
    """
    match layout:
        case Native():
            natives[layout.tensor][layout.index] = canonical
        case Transpose():
            backward(layout.base, canonical.transpose(inverse(layout.perm)), natives)
        case Reshape():
            backward(layout.base, canonical.reshape(layout.base.shape), natives)
        case Blocks():
            backward(layout.base, _permute_blocks(canonical, layout.axis, inverse(layout.order)), natives)
        case Join():
            start = 0
            for part in layout.parts:
                stop = start + part.shape[layout.axis]
                index = (*(slice(None) for _ in range(layout.axis)), slice(start, stop))
                backward(part, canonical[index], natives)
                start = stop
        case Stack():
            for part, value in zip(layout.parts, canonical, strict=True):
                backward(part, value, natives)
        case Sum():
            backward(layout.parts[0], canonical, natives)
            for leaf in (leaf for part in layout.parts[1:] for leaf in leaves(part)):
                natives[leaf.tensor][leaf.index] = 0
        case Reorder():
            backward(layout.base, np.take(canonical, layout.sources, axis=layout.axis), natives)


def leaves(layout: Layout) -> Iterator[Native]:
    """Every native tensor (or part) the layout reads."""
    match layout:
        case Native():
            yield layout
        case Constant():
            return
        case Join() | Stack() | Sum():
            for part in layout.parts:
                yield from leaves(part)
        case _:
            yield from leaves(layout.base)


def masked(layout: Layout) -> Iterator[Native]:
    """The leaves that a :class:`Sum` keeps at zero; trainers neither train them nor count their gradient."""
    match layout:
        case Native() | Constant():
            return
        case Sum():
            yield from masked(layout.parts[0])
            for part in layout.parts[1:]:
                yield from leaves(part)
        case Join() | Stack():
            for part in layout.parts:
                yield from masked(part)
        case _:
            yield from masked(layout.base)


def describe(layout: Layout) -> str:
    """One line for people, innermost step first."""
    match layout:
        case Native():
            box = ", ".join(f"axis {axis} {start}:{stop}" for axis, start, stop in layout.box)
            return f"{layout.tensor}[{box}]" if box else layout.tensor
        case Transpose():
            return f"{describe(layout.base)} · transpose{layout.perm}"
        case Reshape():
            return f"{describe(layout.base)} · reshape{layout.shape}"
        case Blocks():
            return f"{describe(layout.base)} · gates{layout.order} on axis {layout.axis}"
        case Join():
            return f"join({', '.join(map(describe, layout.parts))}; axis {layout.axis})"
        case Stack():
            return f"stack({', '.join(map(describe, layout.parts))})"
        case Sum():
            return f"({' + '.join(map(describe, layout.parts))})"
        case Reorder():
            orders = ", ".join(f"{s.shape} by {s.perm}" for s in layout.segments)
            return f"{describe(layout.base)} · flatten order {orders} on axis {layout.axis}"
        case Constant():
            return f"constant {list(layout.shape)}"
        case Repeat():
            return f"{describe(layout.base)} · for each of {layout.rows} rows"


def _permute_blocks(array: Array, axis: int, order: tuple[int, ...]) -> Array:
    shape = array.shape
    blocks = array.reshape(*shape[:axis], len(order), shape[axis] // len(order), *shape[axis + 1 :])
    return np.take(blocks, order, axis=axis).reshape(shape)
