"""Builds a canonical graph from native operations: the one place where layouts of values are understood.

An adapter walks its framework's graph and calls one method per operation, in native terms. The builder
keeps, for every value, how its native axes lie in canonical (channels-first) order. Transposes therefore
cost nothing until an operator needs another order, and the flatten order of a channels-last model ends up
in the layout of the weights behind it, where it belongs.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import replace
from typing import final

import numpy as np

from xbackend_fl.canonical.binding import Axes, Description, NativeTensor
from xbackend_fl.canonical.draft import free_sizes
from xbackend_fl.canonical.graph.edges import (
    check_returned,
    returned_axes,
    with_leading_ones,
    without_singletons,
)
from xbackend_fl.canonical.graph.flattened import in_native_order, unflattened
from xbackend_fl.canonical.graph.padding import pads_together
from xbackend_fl.canonical.graph.recorder import Recorder
from xbackend_fl.canonical.graph.rewrites import fold_pad, pooled
from xbackend_fl.canonical.layout import Layout, Reorder, Segment, Shape, feature_order, inverse
from xbackend_fl.canonical.node import AttributeValue
from xbackend_fl.canonical.ops import has
from xbackend_fl.canonical.row import Property
from xbackend_fl.canonical.schema import Port
from xbackend_fl.canonical.value import Value, numbers, pointwise, without
from xbackend_fl.canonical.views import reshaped


@final
class GraphBuilder:
    """Understands where the axes of native values lie, and records canonical nodes.

    Args:
        backend: Name of the backend.
        natives: Every native tensor of the model.
        frozen: Names of native tensors that the model does not train.
        channels_last: Whether images of the native model end in their channels.
    """

    def __init__(
        self,
        backend: str,
        natives: Mapping[str, NativeTensor],
        frozen: Iterable[str] = (),
        *,
        channels_last: bool = False,
    ) -> None:
        self.recorder = Recorder(backend, natives, frozen)
        self._channels_last = channels_last
        self._inputs: list[tuple[Port, Axes]] = []
        self._outputs: list[tuple[Port, Axes]] = []
        self._affine: dict[str, tuple[Value, float, float]] = {}

    # Graph edges.

    def input(
        self,
        name: str,
        dtype: str,
        shape: Shape,
        perm: tuple[int, ...],
        note: str = "",
        trailing: int = 0,
        key: str = "",
    ) -> Value:
        """Declare a data input of canonical ``shape``, which the native model reads as such :class:`Axes` say, under ``key`` alone."""
        name, axes = self.recorder.input(name, shape, dtype), Axes(perm, note, trailing)
        self._inputs.append((Port(name, dtype, shape, key), axes))
        value = Value(name, shape, perm)
        return self.reshape(name, value, axes.native_shape(shape)) if trailing else value

    def output(self, value: Value, key: str = "", declared: tuple[int, ...] | None = None) -> None:
        """Declare an output of the native model.

        An image that ends in its channels is turned to channels first; where an input was declared to have its batch
        elsewhere, an output follows it; everything else is what the model returns, as it returns it.

        Args:
            value: What the model returns.
            key: The name it is returned under, if it has one.
            declared: The order in which the user says that it is returned.
        """
        check_returned(value, first=not self._outputs)
        axes = returned_axes(value.perm, [axes for _, axes in self._inputs], declared)
        if axes.perm != value.perm:
            value = self.arrange(value, inverse(axes.perm))
        self._outputs.append((Port(value.name, "float32", value.shape, key), axes))

    @property
    def batch(self) -> int:
        """Number of examples that the graph is made with; 0 before the first input."""
        shape = self._inputs[0][0].shape if self._inputs else ()
        return shape[0] if shape else 0

    def inference_only(self, reason: str) -> None:
        """Say that the native model cannot be trained as its schema says."""
        self.recorder.inference_only = reason

    def one_way(self, reason: str) -> None:
        """Say that a copy of the user's model is described, into which alone weights can be written."""
        self.recorder.one_way = reason

    def build(self) -> Description:
        """The finished schema and binding; nodes and parameters that reach no output are left out."""
        return self.recorder.build(self._inputs, self._outputs)

    def add(
        self,
        operator: str,
        name: str,
        inputs: Sequence[Value],
        shapes: Sequence[Shape],
        *,
        layouts: Mapping[str, Layout | None] | None = None,
        attributes: Mapping[str, AttributeValue] | None = None,
        origin: str | None = None,
    ) -> tuple[str, ...]:
        """Add a node whose inputs are already in canonical order.

        Args:
            operator: Row of the operator table.
            name: Wanted name; made unique.
            inputs: Values it reads.
            shapes: Canonical shapes of its outputs.
            layouts: Role to layout; ``None`` for an absent slot.
            attributes: Attributes.
            origin: Native module or layer, where its name is not ``name``.

        Returns:
            Names of the output values.
        """
        if operator == "Reshape":
            return self._add_reshape(name, inputs[0], shapes[0])
        given = {role: layout for role, layout in (layouts or {}).items() if layout is not None}
        reads = tuple(value.name for value in inputs)
        return self.recorder.add(operator, name, reads, shapes, given, attributes or {}, origin)

    def _add_reshape(self, name: str, value: Value, shape: Shape) -> tuple[str, ...]:
        """A row-major reshape; of a reshape it is a reshape of what that one read."""
        source, before = value.name, value.shape
        draft = self.recorder.producer(source)
        while draft is not None and draft.operator == "Reshape":
            source, before = draft.inputs[0], self.recorder.shape(draft.inputs[0])
            draft = self.recorder.producer(source)
        if before == shape:
            return (source,)
        sizes = free_sizes(before, shape)
        return self.recorder.add("Reshape", name, (source,), [shape], {}, {"shape": sizes}, None)

    # Operations on one value.

    def arrange(self, value: Value, order: Sequence[int]) -> Value:
        """The value with canonical axis ``i`` equal to native axis ``order[i]``; a Transpose only if needed."""
        wanted = tuple(order)
        moved = tuple(value.perm[axis] for axis in wanted)
        if moved == tuple(range(len(moved))):
            return value
        assert value.order is None, "an ordered feature axis belongs to rank 2"
        value = with_leading_ones(self.recorder, value)
        shape = tuple(value.shape[axis] for axis in moved)
        (name,) = self.add("Transpose", "transpose", [value], [shape], attributes={"perm": moved})
        return Value(name, shape, inverse(wanted))

    def plain(self, value: Value) -> Value:
        """The value with canonical axes, and flattened features, in native order."""
        value = in_native_order(self, "features", value)
        return self.arrange(value, range(len(value.shape)))

    def features_last(self, value: Value) -> Value:
        """The value with the last native axis as the last canonical one."""
        return value if value.perm[-1] == len(value.perm) - 1 else self.plain(value)

    def channels_first(self, value: Value, channel_axis: int) -> Value:
        """The value as ``[N, C, *spatial]`` with native axis ``channel_axis`` as C."""
        rank = len(value.shape)
        channel_axis %= rank
        return self.arrange(value, (0, channel_axis, *(a for a in range(1, rank) if a != channel_axis)))

    def _common(self, values: Sequence[Value]) -> list[Value]:
        """Values of different origin in the order in which they meet: channels first beside an image, else as they are."""
        image = self._channels_last and any(value.is_image for value in values)
        return [
            self.channels_first(value, -1) if image and len(value.shape) >= 4 else self.plain(value)
            for value in values
        ]

    def _grown(self, name: str, value: Value, rank: int) -> Value:
        """The value with native axes of length one in front: broadcasting adds them, wherever axes lie."""
        ones = (1,) * (rank - len(value.shape))
        return self.reshape(name, value, (*ones, *value.native_shape)) if ones else value

    def transpose(self, value: Value, perm: Sequence[int]) -> Value:
        """A native transpose: only the bookkeeping changes."""
        value = value if value.order is None else self.plain(value)
        return replace(value, perm=tuple(value.perm[axis] for axis in perm))

    def elementwise(self, operator: str, name: str, value: Value, **attributes: AttributeValue) -> Value:
        """An operation on every element; axes and flatten order pass through."""
        constant = attributes.get("constant")
        if operator in {"Add", "Mul"} and isinstance(constant, float):
            return self._shift_or_scale(operator, name, value, constant)
        (out,) = self.add(operator, name, [value], [value.shape], attributes=attributes)
        return replace(value, name=out)

    def _shift_or_scale(self, operator: str, name: str, value: Value, constant: float) -> Value:
        """Constants in a row become one ``x * scale + offset``, however the model spells them."""
        source, scale, offset = self._affine.get(value.name, (value, 1.0, 0.0))
        scale, offset = (
            (scale * constant, offset * constant) if operator == "Mul" else (scale, offset + constant)
        )
        out = source
        for step, number, neutral in (("Mul", scale, 1.0), ("Add", offset, 0.0)):
            if number != neutral:
                (made,) = self.add(step, name, [out], [out.shape], attributes={"constant": number})
                out = replace(out, name=made)
        self._affine[out.name] = (source, scale, offset)
        return out

    def along(self, operator: str, name: str, value: Value, axis: int, **attributes: AttributeValue) -> Value:
        """An operation of unchanged shape along one native axis (softmax)."""
        canonical = value.perm[axis % len(value.shape)]
        # Counted from the end, so that a model reads the same at every rank.
        return self.elementwise(operator, name, value, axis=canonical - len(value.shape), **attributes)

    def reduce(self, operator: str, name: str, value: Value, axes: Sequence[int], *, keepdims: bool) -> Value:
        """A reduction over native ``axes``."""
        rank = len(value.shape)
        gone = sorted({value.perm[axis % rank] for axis in axes})
        shape = tuple(1 if i in gone else n for i, n in enumerate(value.shape) if keepdims or i not in gone)
        attributes: dict[str, AttributeValue] = {"axes": tuple(gone), "keepdims": keepdims}
        (out,) = self.add(operator, name, [value], [shape], attributes=attributes)
        perm = value.perm if keepdims else without(value.perm, gone)
        return Value(out, shape, perm)

    def flatten(self, name: str, value: Value) -> Value:
        """A native flatten of everything behind the batch axis."""
        if len(value.shape) <= 2:
            return value
        if value.perm[0] != 0:
            value = self.plain(value)
        features = math.prod(value.shape[1:])
        segment = Segment(value.shape[1:], tuple(axis - 1 for axis in value.perm[1:]))
        (out,) = self.add("Flatten", name, [value], [(value.shape[0], features)])
        natural = np.arange(features)
        order = None if np.array_equal(feature_order((segment,)), natural) else (segment,)
        return Value(out, (value.shape[0], features), (0, 1), order)

    def reshape(self, name: str, value: Value, shape: Shape) -> Value:
        """A native reshape to ``shape`` (native sizes at the example, batch first)."""
        native = value.native_shape
        if shape == native:
            return value
        if len(shape) == 2 < len(native) and shape[0] == native[0]:
            return self.flatten(name, value)
        if [n for n in shape if n != 1] == [n for n in native if n != 1] and value.order is None:
            return self._singletons(name, value, shape)
        value = in_native_order(self, name, value)
        if self._channels_last and len(native) == 2 and len(shape) >= 4 and shape[0] == native[0]:
            image = unflattened(self, name, value, shape)
            if image is not None:
                return image
        moved = [axis for axis, place in enumerate(value.perm) if axis != place]
        lead = moved[-1] + 1 if moved else 0
        if lead and shape[:lead] == native[:lead]:
            # The axes that lie elsewhere stay where they are; only those behind them change.
            canonical = (*value.shape[:lead], *shape[lead:])
            (out,) = self.add("Reshape", name, [value], [canonical])
            return Value(out, canonical, (*value.perm[:lead], *range(lead, len(shape))))
        value = self.plain(value)
        (out,) = self.add("Reshape", name, [value], [shape])
        return Value(out, shape, tuple(range(len(shape))))

    def _singletons(self, name: str, value: Value, shape: Shape) -> Value:
        """A reshape that only adds or removes axes of length one: squeeze first, then add at the end."""
        canonical, perm = without_singletons(value, shape)
        (out,) = self.add("Reshape", name, [value], [canonical])
        return Value(out, canonical, perm)

    def pick(self, name: str, value: Value, axis: int, index: int) -> Value:
        """One index of a native axis; the axis disappears."""
        value = in_native_order(self, name, value)
        axis = value.perm[axis % len(value.shape)]
        shape = tuple(n for i, n in enumerate(value.shape) if i != axis)
        last = index if index < 0 else index - value.shape[axis] if index == value.shape[axis] - 1 else index
        (out,) = self.add("Select", name, [value], [shape], attributes={"axis": axis, "index": last})
        return Value(out, shape, without(value.perm, [axis]))

    def slice(self, name: str, value: Value, axis: int, start: int, stop: int, step: int = 1) -> Value:
        """A range of a native axis."""
        value = in_native_order(self, name, value)
        axis = value.perm[axis % len(value.shape)]
        length = value.shape[axis]
        start, stop, step = slice(start, stop, step).indices(length)
        if (start, stop, step) == (0, length, 1):
            return value
        shape = list(value.shape)
        shape[axis] = len(range(start, stop, step))
        attributes: dict[str, AttributeValue] = {"axis": axis, "start": start, "stop": stop, "step": step}
        (out,) = self.add("Slice", name, [value], [tuple(shape)], attributes=attributes)
        return replace(value, name=out, shape=tuple(shape))

    def pad(
        self, name: str, value: Value, pads: Mapping[int, tuple[int, int]], fill: float, mode: str
    ) -> Value:
        """Padding of native axes, given as axis to (before, after)."""
        if not any(map(any, pads.values())):
            return value
        value, before, after = pads_together(self.recorder, value, pads, fill, mode)
        shape = tuple(b + n + a for b, n, a in zip(before, value.shape, after, strict=True))
        attributes: dict[str, AttributeValue] = {"pads": (*before, *after), "value": fill, "mode": mode}
        (out,) = self.add("Pad", name, [value], [shape], attributes=attributes)
        return replace(value, name=out, shape=shape)

    # Operations on several values.

    def binary(self, operator: str, name: str, left: Value, right: Value) -> Value:
        """An elementwise operation of two values with broadcasting."""
        return self.broadcast(operator, name, [left, right])

    def broadcast(
        self, operator: str, name: str, values: Sequence[Value], **attributes: AttributeValue
    ) -> Value:
        """An elementwise operation of several values with NumPy's broadcasting."""
        if len({(value.perm, value.order) for value in values}) > 1:
            rank = max(len(value.shape) for value in values)
            values = self._common([self._grown(name, value, rank) for value in values])
        if len({value.order for value in values}) > 1:
            values = [self.plain(value) for value in values]
        shape = np.broadcast_shapes(*(value.shape for value in values))
        (out,) = self.add(operator, name, values, [shape], attributes=attributes)
        perm = next(value.perm for value in values if len(value.shape) == len(shape))
        return Value(out, shape, perm, values[0].order)

    def concat(self, name: str, values: Sequence[Value], axis: int) -> Value:
        """A concatenation along a native axis."""
        if len(values) == 1:
            return values[0]
        if any(value.perm != values[0].perm for value in values):
            values = self._common(values)
        canonical = values[0].perm[axis % len(values[0].shape)]
        shape = list(values[0].shape)
        shape[canonical] = sum(value.shape[canonical] for value in values)
        order = None
        if any(value.order for value in values):
            order = tuple(
                segment for value in values for segment in value.order or (Segment((value.shape[1],), (0,)),)
            )
        (out,) = self.add("Concat", name, values, [tuple(shape)], attributes={"axis": canonical})
        return Value(out, tuple(shape), values[0].perm, order)

    # Operators with parameters.

    def channelwise(
        self,
        operator: str,
        name: str,
        value: Value,
        channel_axis: int,
        *,
        layouts: Mapping[str, Layout | None] | None = None,
        origin: str | None = None,
        **attributes: AttributeValue,
    ) -> Value:
        """A normalisation or activation with one parameter per channel; the shape does not change."""
        value = self.channels_first(value, channel_axis)
        given = {
            role: layout if value.order is None or layout is None else Reorder(layout, 0, value.order)
            for role, layout in (layouts or {}).items()
        }
        (out,) = self.add(
            operator, name, [value], [value.shape], layouts=given, attributes=attributes, origin=origin
        )
        return replace(value, name=out)

    def window(
        self,
        operator: str,
        name: str,
        value: Value,
        channel_axis: int,
        native_shape: Shape,
        *,
        layouts: Mapping[str, Layout | None] | None = None,
        **attributes: AttributeValue,
    ) -> Value:
        """A convolution or pooling; ``native_shape`` is the native output shape.

        A zero Pad right in front of it is folded into its own ``pads``: frameworks without asymmetric
        padding write one.
        """
        value = self.channels_first(value, channel_axis)
        counted = operator == "AveragePool" and any(numbers(attributes["pads"]))
        if has(operator, Property.WINDOWED) and not counted:
            value, attributes = fold_pad(self.recorder, operator, value, attributes)
        one_pixel = operator == "Conv" and pointwise(attributes) and set(value.shape[2:]) == {1}
        if one_pixel and pooled(self.recorder, value.name):
            return self._dense_of_pooled(name, value, layouts or {})
        shape = tuple(native_shape[axis] for axis in inverse(value.perm))
        (out,) = self.add(operator, name, [value], [shape], layouts=layouts, attributes=attributes)
        return Value(out, shape, value.perm)

    def linear(self, name: str, value: Value, weight: Layout, bias: Layout | None) -> Value:
        """A dense layer on the last native axis; ``weight`` is laid out [out, in].

        On an image, whose features lie in front, it is a convolution of single pixels.
        """
        rank = len(value.shape)
        if rank >= 3 and value.perm == (0, *range(2, rank), 1):
            return self._pixelwise(name, value, weight, bias)
        value = self.features_last(value)
        if value.order is not None:
            weight = Reorder(weight, 1, value.order)
        shape = (*value.shape[:-1], weight.shape[0])
        (out,) = self.add("Gemm", name, [value], [shape], layouts={"weight": weight, "bias": bias})
        return Value(out, shape, value.perm)

    def _pixelwise(self, name: str, value: Value, weight: Layout, bias: Layout | None) -> Value:
        rank = len(value.shape) - 2
        ones, zeros = (1,) * rank, (0,) * 2 * rank
        return self.window(
            "Conv",
            name,
            value,
            -1,
            (*value.native_shape[:-1], weight.shape[0]),
            layouts={"weight": reshaped(weight, (*weight.shape, *ones)), "bias": bias},
            kernel_shape=ones,
            strides=ones,
            pads=zeros,
            dilations=ones,
            group=1,
        )

    def layer_norm(
        self, name: str, value: Value, weight: Layout | None, bias: Layout | None, epsilon: float
    ) -> Value:
        """A layer normalisation over the last native axis."""
        value = self.features_last(value)
        layouts = {
            role: layout if value.order is None or layout is None else Reorder(layout, 0, value.order)
            for role, layout in (("weight", weight), ("bias", bias))
        }
        attributes = {"epsilon": epsilon}
        (out,) = self.add(
            "LayerNormalization", name, [value], [value.shape], layouts=layouts, attributes=attributes
        )
        return replace(value, name=out)

    def embedding(
        self, name: str, indices: Value, weight: Layout, padding_idx: int | None, origin: str | None = None
    ) -> Value:
        """A lookup of rows of ``weight`` ``[vocabulary, features]``; features become the last axis.

        ``padding_idx`` is the row without a gradient, -1 for none, and ``None`` where the model cannot be given one.
        """
        shape = (*indices.shape, weight.shape[1])
        attributes: dict[str, AttributeValue] = {} if padding_idx is None else {"padding_idx": padding_idx}
        (out,) = self.add(
            "Gather",
            name,
            [indices],
            [shape],
            layouts={"weight": weight},
            attributes=attributes,
            origin=origin,
        )
        return Value(out, shape, (*indices.perm, len(indices.perm)))

    def _dense_of_pooled(self, name: str, value: Value, layouts: Mapping[str, Layout | None]) -> Value:
        """A convolution of one pooled pixel is a dense layer."""
        ones = (1,) * (len(value.shape) - 2)
        weight, bias = layouts["weight"], layouts.get("bias")
        assert weight is not None
        flat = self.reshape(
            name, Value(value.name, value.shape, tuple(range(len(value.shape)))), value.shape[:2]
        )
        made = self.linear(name, flat, reshaped(weight, weight.shape[:2]), bias)
        (out,) = self.add("Reshape", name, [made], [(*made.shape, *ones)])
        return Value(out, (*made.shape, *ones), value.perm)
