"""Windows as they are at the example's size, where several ways to pad them are one."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace

import onnx

from xbackend_fl.canonical import Node, Property, Schema, has
from xbackend_fl.canonical.node import AttributeValue
from xbackend_fl.canonical.onnx_export import to_onnx


def at_this_size(schema: Schema) -> Schema:
    """The schema with every window's pads at the end as long as its last position reaches, and no rounding up.

    ``ceil_mode`` and TensorFlow's SAME then read the same where they cover the same, and pads that no window reaches are gone.
    The function is unchanged at the example's size and at no other.
    """
    if schema.opaque or not any(has(node.operator, Property.WINDOWED) for node in schema.nodes):
        return schema
    shapes = _shapes(schema)
    return replace(
        schema,
        nodes=tuple(
            _settled(node, shapes.get(node.inputs[0])) if node.inputs else node for node in schema.nodes
        ),
    )


def _shapes(schema: Schema) -> Mapping[str, tuple[int, ...]]:
    """Shape of every value at the example, as ONNX infers them."""
    model = to_onnx(schema, None)
    ports = {port.name: port.shape for port in schema.inputs}
    for item in model.graph.input:
        for dim, length in zip(item.type.tensor_type.shape.dim, ports.get(item.name, ()), strict=False):
            dim.dim_value = length
    del model.graph.value_info[:]
    inferred = onnx.shape_inference.infer_shapes(model, data_prop=True)
    known = {
        item.name: tuple(dim.dim_value for dim in item.type.tensor_type.shape.dim)
        for item in inferred.graph.value_info
    }
    return ports | {name: shape for name, shape in known.items() if all(shape)}


def _settled(node: Node, shape: tuple[int, ...] | None) -> Node:
    counted = node.operator == "AveragePool" and node.attributes.get("count_include_pad")
    if not has(node.operator, Property.WINDOWED) or shape is None or counted:
        return node
    kernel, strides, dilations, pads = (
        _ints(node.attributes[name]) for name in ("kernel_shape", "strides", "dilations", "pads")
    )
    rank, up = len(kernel), bool(node.attributes.get("ceil_mode"))
    ends = [
        _reached(n, k, s, d, pads[axis], pads[rank + axis], up=up)
        for axis, (n, k, s, d) in enumerate(zip(shape[2:], kernel, strides, dilations, strict=True))
    ]
    changed: dict[str, AttributeValue] = {"pads": (*pads[:rank], *ends)}
    if "ceil_mode" in node.attributes:
        changed["ceil_mode"] = 0
    return replace(node, attributes={**node.attributes, **changed})


def _reached(
    length: int, kernel: int, stride: int, dilation: int, before: int, after: int, *, up: bool
) -> int:
    """How far behind the data the last window reaches, which never starts behind the data."""
    span = dilation * (kernel - 1) + 1
    room = length + before + after - span
    last = -(-room // stride) if up else room // stride
    if up and last * stride >= length + before:
        last -= 1
    return max(last * stride + span - length - before, 0)


def _ints(value: AttributeValue) -> Sequence[int]:
    assert isinstance(value, tuple)
    return [int(item) for item in value]
