"""Which axes of an ONNX model's inputs and outputs are free, and the sizes of the others."""

from __future__ import annotations

from collections.abc import Collection, Sequence
from typing import TypeAlias

import numpy as np
import onnx
from onnx import helper, shape_inference

from xbackend_fl.canonical.schema import Port, Schema

_BATCH = "batch"
_Sizes: TypeAlias = Sequence[int | str]
"""Size of every axis, or the name of a free one."""

SequenceAxes: TypeAlias = Collection[tuple[int, int]]
"""Axes of any length besides the batch: position of the input, and axis in ONNX layout, of which 0 is the batch."""


def free(port: Port) -> onnx.ValueInfoProto:
    """An input or output of which every axis is free; the first one is the batch."""
    names = [_name(port, axis) for axis in range(len(port.shape))]
    return _info(port, [_BATCH, *names[1:]] if names else names)


def fix_axes(
    model: onnx.ModelProto, schema: Schema, sequence_axes: SequenceAxes, like: onnx.ModelProto
) -> None:
    """Give inputs and outputs the sizes of the example; the batch, declared sequence axes, and what follows them, stay free.

    Args:
        model: Is changed.
        schema: Its schema.
        sequence_axes: The declared ones.
        like: The same function without reshapes around dense layers, in which shape inference would lose the batch.
    """
    graph = model.graph
    inputs = _fixed(schema, sequence_axes)
    outputs = _outputs(like, schema, inputs)
    longer = outputs
    if sequence_axes:
        twice = [
            _info(
                port,
                [length * (1 + ((index, axis) in sequence_axes)) for axis, length in enumerate(port.shape)],
            )
            for index, port in enumerate(schema.inputs)
        ]
        longer = _outputs(like, schema, twice)
    batch = schema.inputs[0].shape[0] if schema.inputs and schema.inputs[0].shape else 0
    declared = {_name(schema.inputs[index], axis) for index, axis in sequence_axes}
    found = [
        _info(port, _sizes(port, item, batch, declared, grown))
        for port, item, grown in zip(schema.outputs, outputs, longer, strict=True)
    ]
    for field, items in ((graph.input, inputs), (graph.output, found)):
        del field[:]
        field.extend(items)


def known_sizes(
    model: onnx.ModelProto, schema: Schema, sequence_axes: SequenceAxes = ()
) -> dict[str, tuple[int | None, ...]]:
    """Size of every axis of every value of a model with fixed axes, ``None`` for free ones; values whose rank is unknown are left out."""
    inputs = _fixed(schema, sequence_axes)
    values = [*inputs, *_inferred(model, schema, inputs).value_info]
    return {
        item.name: tuple(
            dim.dim_value if dim.HasField("dim_value") else None for dim in item.type.tensor_type.shape.dim
        )
        for item in values
        if item.type.tensor_type.HasField("shape")
    }


def _fixed(schema: Schema, sequence_axes: SequenceAxes) -> list[onnx.ValueInfoProto]:
    return [
        _info(port, sizes) for port, sizes in zip(schema.inputs, _named(schema, sequence_axes), strict=True)
    ]


def _named(schema: Schema, sequence_axes: SequenceAxes) -> list[_Sizes]:
    """Sizes of every input, and the names of its free axes."""
    result: list[_Sizes] = []
    for index, port in enumerate(schema.inputs):
        sizes: list[int | str] = list(port.shape)
        for axis in range(len(sizes)):
            if not axis or (index, axis) in sequence_axes:
                sizes[axis] = _name(port, axis) if axis else _BATCH
        result.append(sizes)
    return result


def _outputs(
    model: onnx.ModelProto, schema: Schema, inputs: Sequence[onnx.ValueInfoProto]
) -> Sequence[onnx.ValueInfoProto]:
    """What shape inference finds about the outputs for such inputs."""
    found: Sequence[onnx.ValueInfoProto] = _inferred(model, schema, inputs).output
    return found


def _inferred(
    model: onnx.ModelProto, schema: Schema, inputs: Sequence[onnx.ValueInfoProto]
) -> onnx.GraphProto:
    """The graph for such inputs, with what shape inference finds."""
    graph = model.graph
    # Without the weights: shape inference copies what it is given.
    held = [
        helper.make_tensor_value_info(
            item.name, helper.np_dtype_to_tensor_dtype(np.dtype(item.dtype)), item.shape
        )
        for item in schema.parameters
    ]
    unknown = [onnx.ValueInfoProto(name=port.name) for port in schema.outputs]
    bare = helper.make_model(
        helper.make_graph([*map(_known, graph.node)], graph.name, [*inputs, *held], unknown),
        opset_imports=model.opset_import,
        ir_version=model.ir_version,
    )
    return shape_inference.infer_shapes(bare, data_prop=True).graph


def _known(node: onnx.NodeProto) -> onnx.NodeProto:
    """The node, or one of the same shape where ONNX's inference has no rule."""
    if node.op_type != "GroupNormalization":
        return node
    return helper.make_node("Identity", node.input[:1], node.output)


def _name(port: Port, axis: int) -> str:
    return f"{port.name}_{axis}"


def _info(port: Port, sizes: _Sizes) -> onnx.ValueInfoProto:
    element = helper.np_dtype_to_tensor_dtype(np.dtype(port.dtype))
    return helper.make_tensor_value_info(port.name, element, sizes)


def _sizes(
    port: Port,
    inferred: onnx.ValueInfoProto,
    batch: int,
    declared: Collection[str],
    grown: onnx.ValueInfoProto,
) -> _Sizes:
    """Sizes of an output: what shape inference finds, else those of the example; its batch free, and what grows with a sequence."""
    found, longer = (item.type.tensor_type.shape.dim for item in (inferred, grown))
    sizes: list[int | str] = list(port.shape)
    if sizes:
        sizes[0] = _BATCH if sizes[0] == batch else _name(port, 0)
    if len(found) != len(sizes):
        return [_name(port, axis) if axis else size for axis, size in enumerate(sizes)] if declared else sizes
    for axis, dim in enumerate(found):
        if dim.HasField("dim_value"):
            sizes[axis] = int(dim.dim_value)
        elif dim.dim_param in {_BATCH, *declared}:
            sizes[axis] = dim.dim_param
        elif declared and (len(longer) != len(found) or longer[axis].dim_value != port.shape[axis]):
            sizes[axis] = _name(port, axis)
    return sizes
