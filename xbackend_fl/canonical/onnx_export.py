"""Writes a schema with its weights as an ONNX model; initializers carry the canonical names and arrays.

The file is what ONNX Runtime executes as the independent oracle of every proof, so it follows the ONNX
operator specification and nothing else. What ONNX has no node for is expanded by its row of the operator table.
"""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np
import onnx
from onnx import helper, numpy_helper

from xbackend_fl.canonical.dtypes import value_dtypes
from xbackend_fl.canonical.layout import Array
from xbackend_fl.canonical.onnx_axes import SequenceAxes, fix_axes, free
from xbackend_fl.canonical.onnx_graph import OnnxGraph
from xbackend_fl.canonical.ops import OPERATORS
from xbackend_fl.canonical.schema import Schema
from xbackend_fl.errors import RefusedInput

OPSET = 21
IR_VERSION = 10


def to_onnx(
    schema: Schema,
    weights: Mapping[str, Array] | None,
    *,
    batch_statistics: bool = False,
    sequence_axes: SequenceAxes = (),
) -> onnx.ModelProto:
    """The model as ONNX (opset 21), the same bytes for the same schema and weights.

    Args:
        schema: Graph and parameters.
        weights: Canonical arrays by parameter name; the batch axis alone is then free, every other one has the size
            of the example. Without weights the parameters are further inputs, and every axis is free.
        batch_statistics: Normalise with the statistics of the batch, as training does; they are then further
            outputs under the names of the parameters, with ``_of_batch`` and a number behind.
        sequence_axes: Further axes of inputs that are free in a model with weights.

    Returns:
        A model whose metadata carries the schema's fingerprint.
    """
    if opaque := schema.opaque:
        raise RefusedInput(
            f"there is no ONNX graph of a model with operations of its own framework: {', '.join(opaque[:3])}",
            hint="take weights as safetensors, or let the framework export it: xbfl convert with the model's code (--source-model)",
        )
    graph = OnnxGraph(
        value_dtypes(schema),
        {parameter.name: parameter.shape for parameter in schema.parameters},
        next((port.name for port in schema.inputs), ""),
        batch_statistics=batch_statistics,
    )
    for node in schema.nodes:
        expansion = OPERATORS[node.operator].expansion
        if expansion is None:
            graph.direct(node)
        else:
            expansion(graph, node)
    initializers, given = [], []
    for parameter in schema.parameters:
        if weights is None:
            element = helper.np_dtype_to_tensor_dtype(np.dtype(parameter.dtype))
            given.append(helper.make_tensor_value_info(parameter.name, element, parameter.shape))
        else:
            array = np.ascontiguousarray(weights[parameter.name])
            initializers.append(numpy_helper.from_array(array, parameter.name))
    proto = helper.make_graph(
        [*graph.constants.values(), *graph.nodes],
        "xbackend_fl",
        [*map(free, schema.inputs), *given],
        [*map(free, schema.outputs), *graph.statistics],
        initializers,
    )
    model = helper.make_model(
        proto,
        opset_imports=[helper.make_opsetid("", OPSET)],
        ir_version=IR_VERSION,
        producer_name="xbackend-fl",
    )
    helper.set_model_props(model, {"fingerprint": schema.fingerprint})
    if weights is not None:
        fix_axes(model, schema, sequence_axes)
    return model
