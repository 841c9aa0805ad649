"""A graph in half precision as one in float32: ONNX Runtime computes few operators in bfloat16, and rounds in float16."""

from __future__ import annotations

from collections.abc import Iterator

import onnx
from onnx import AttributeProto, TensorProto, numpy_helper

from xbackend_fl.canonical.dtypes import widened

_HALVES = {TensorProto.FLOAT16: "float16", TensorProto.BFLOAT16: "bfloat16"}
_DTYPES = ("to", "dtype")
"""Attributes that name a type of numbers."""


def in_float32(model: onnx.ModelProto) -> tuple[onnx.ModelProto, dict[str, str]]:
    """The same graph with the same numbers in float32, and the dtypes of the initializers that were in half precision.

    Args:
        model: A model; it is not changed, and is returned itself where nothing in it is in half precision.
    """
    dtypes = {
        item.name: _HALVES[item.data_type] for item in model.graph.initializer if item.data_type in _HALVES
    }
    wide = onnx.ModelProto()
    wide.CopyFrom(model)
    changed = _widen(wide.graph)
    return (wide, dtypes) if changed else (model, {})


def _widen(graph: onnx.GraphProto) -> bool:
    changed = False
    for tensor in [*graph.initializer, *_constants(graph)]:
        if tensor.data_type in _HALVES:
            tensor.CopyFrom(numpy_helper.from_array(widened(numpy_helper.to_array(tensor)), tensor.name))
            changed = True
    for item in [*graph.input, *graph.output, *graph.value_info]:
        if item.type.tensor_type.elem_type in _HALVES:
            item.type.tensor_type.elem_type = TensorProto.FLOAT
            changed = True
    for node in graph.node:
        for attribute in node.attribute:
            if attribute.name in _DTYPES and attribute.i in _HALVES:
                attribute.i = TensorProto.FLOAT
                changed = True
            for inner in (attribute.g, *attribute.graphs):
                changed |= _widen(inner)
    return changed


def _constants(graph: onnx.GraphProto) -> Iterator[TensorProto]:
    for node in graph.node:
        for attribute in node.attribute:
            if attribute.type == AttributeProto.TENSOR:
                yield attribute.t
            yield from attribute.tensors
