"""Evaluates what a graph computes from constants alone: shapes, axes, positions."""

from __future__ import annotations

import numpy as np
import onnx
from onnx.reference import ReferenceEvaluator

from xbackend_fl.adapter.contract import Array
from xbfl_onnx.graph import Context


def fold(context: Context, node: onnx.NodeProto, opset: int) -> list[Array] | None:
    """The outputs of a node on constants; ``None`` if it depends on data or parameters."""
    if node.op_type == "Shape" and node.input[0] in context.shapes:
        shape = context.shapes[node.input[0]]
        given = {item.name: item.i for item in node.attribute}
        return [np.array(shape[given.get("start", 0) : given.get("end", len(shape))], np.int64)]
    known = {name: context.values[name] for name in node.input if name}
    if not all(isinstance(item, np.ndarray) for item in known.values()):
        return None
    infos = [
        onnx.helper.make_tensor_value_info(
            name, onnx.helper.np_dtype_to_tensor_dtype(np.asarray(item).dtype), np.shape(np.asarray(item))
        )
        for name, item in known.items()
    ]
    outputs = [onnx.ValueInfoProto(name=name) for name in node.output]
    graph = onnx.helper.make_graph([node], "constant", infos, outputs)
    model = onnx.helper.make_model(graph, opset_imports=[onnx.helper.make_opsetid("", opset)])
    made = ReferenceEvaluator(model).run(None, {name: np.asarray(item) for name, item in known.items()})
    return [np.asarray(item) for item in made]
