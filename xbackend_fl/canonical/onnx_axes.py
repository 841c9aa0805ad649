"""Which axes of an ONNX model's inputs and outputs are free, and the sizes of the others."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TypeAlias

import numpy as np
import onnx
from onnx import helper, shape_inference

from xbackend_fl.canonical.schema import Port, Schema

_BATCH = "batch"
_Sizes: TypeAlias = Sequence[int | str]
"""Size of every axis, or the name of a free one."""


def free(port: Port) -> onnx.ValueInfoProto:
    """An input or output of which every axis is free; the first one is the batch."""
    names = [f"{port.name}_{axis}" for axis in range(len(port.shape))]
    return _info(port, [_BATCH, *names[1:]] if names else names)


def fix_axes(model: onnx.ModelProto, schema: Schema) -> None:
    """Give inputs and outputs the sizes of the example; the batch, and what follows it, stays free."""
    graph = model.graph
    inputs = [_info(port, [_BATCH, *port.shape[1:]] if port.shape else ()) for port in schema.inputs]
    # Without the weights: shape inference copies what it is given.
    held = [helper.make_tensor_value_info(item.name, item.data_type, item.dims) for item in graph.initializer]
    unknown = [onnx.ValueInfoProto(name=port.name) for port in schema.outputs]
    bare = helper.make_model(
        helper.make_graph(graph.node, graph.name, [*inputs, *held], unknown),
        opset_imports=model.opset_import,
        ir_version=model.ir_version,
    )
    batch = schema.inputs[0].shape[0] if schema.inputs and schema.inputs[0].shape else 0
    inferred = shape_inference.infer_shapes(bare, data_prop=True).graph.output
    outputs = [
        _info(port, _sizes(port, item, batch)) for port, item in zip(schema.outputs, inferred, strict=True)
    ]
    for field, items in ((graph.input, inputs), (graph.output, outputs)):
        del field[:]
        field.extend(items)


def _info(port: Port, sizes: _Sizes) -> onnx.ValueInfoProto:
    element = helper.np_dtype_to_tensor_dtype(np.dtype(port.dtype))
    return helper.make_tensor_value_info(port.name, element, sizes)


def _sizes(port: Port, inferred: onnx.ValueInfoProto, batch: int) -> _Sizes:
    """Sizes of an output: what shape inference finds, else those of the example, its batch free."""
    found = inferred.type.tensor_type.shape.dim
    sizes: list[int | str] = list(port.shape)
    if sizes:
        sizes[0] = _BATCH if sizes[0] == batch else f"{port.name}_0"
    if len(found) != len(sizes):
        return sizes
    for axis, dim in enumerate(found):
        if dim.HasField("dim_value"):
            sizes[axis] = int(dim.dim_value)
        elif dim.dim_param == _BATCH:
            sizes[axis] = _BATCH
    return sizes
