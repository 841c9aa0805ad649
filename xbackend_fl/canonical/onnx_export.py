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
from xbackend_fl.canonical.onnx_axes import SequenceAxes, fix_axes, free, known_sizes
from xbackend_fl.canonical.onnx_graph import OnnxGraph
from xbackend_fl.canonical.onnx_opset import OPSET, check_opset, ir_version
from xbackend_fl.canonical.ops import OPERATORS
from xbackend_fl.canonical.schema import Schema
from xbackend_fl.errors import RefusedInput


def to_onnx(
    schema: Schema,
    weights: Mapping[str, Array] | None,
    *,
    batch_statistics: bool = False,
    sequence_axes: SequenceAxes = (),
    opset: int = OPSET,
    metadata: Mapping[str, str] | None = None,
) -> onnx.ModelProto:
    """The model as ONNX, the same bytes for the same arguments (:func:`to_bytes`).

    Args:
        schema: Graph and parameters.
        weights: Canonical arrays by parameter name; the batch axis alone is then free, every other one has the size
            of the example. Without weights the parameters are further inputs, and every axis is free.
        batch_statistics: Normalise with the statistics of the batch, as training does; they are then further
            outputs under the names of the parameters, with ``_of_batch`` and a number behind.
        sequence_axes: Further axes of inputs that are free in a model with weights.
        opset: Version of ONNX's operators.
        metadata: Further text in the model's metadata, by key.

    Returns:
        A model whose metadata carries the schema's fingerprint.

    Raises:
        RefusedInput: The model has operations of its own framework, or operators that the opset does not have.
    """
    if opaque := schema.opaque:
        raise RefusedInput(
            f"there is no ONNX graph of a model with operations of its own framework: {', '.join(opaque[:3])}",
            hint="take weights as safetensors, or let the framework export it: xbfl convert with the model's code (--source-model)",
        )
    model = _model(schema, None, opset, batch_statistics=batch_statistics, sizes={})
    if weights is not None:
        plain, sizes = model, known_sizes(model, schema, sequence_axes)
        model = _model(schema, weights, opset, batch_statistics=batch_statistics, sizes=sizes)
        fix_axes(model, schema, sequence_axes, like=plain)
    helper.set_model_props(model, {"fingerprint": schema.fingerprint, **(metadata or {})})
    return model


def check_writable(schema: Schema, opset: int) -> None:
    """Refuse, before anything is trained, an opset in which a model cannot be written.

    Raises:
        RefusedInput: As :func:`to_onnx`.
    """
    if opset != OPSET:
        to_onnx(schema, None, opset=opset)


def to_bytes(model: onnx.ModelProto) -> bytes:
    """A model as the bytes of a file, equal for equal models."""
    return bytes(model.SerializeToString(deterministic=True))


def _model(
    schema: Schema,
    weights: Mapping[str, Array] | None,
    opset: int,
    *,
    batch_statistics: bool,
    sizes: Mapping[str, tuple[int | None, ...]],
) -> onnx.ModelProto:
    graph = OnnxGraph(
        value_dtypes(schema),
        {parameter.name: parameter.shape for parameter in schema.parameters},
        next((port.name for port in schema.inputs), ""),
        batch_statistics=batch_statistics,
        sizes=sizes,
    )
    for node in schema.nodes:
        expansion, before = OPERATORS[node.operator].expansion, len(graph.nodes)
        graph.owner = node.name
        if expansion is None:
            graph.direct(node)
        else:
            expansion(graph, node)
        check_opset(graph.nodes[before:], opset, node)
    initializers, given = [], []
    for parameter in schema.parameters:
        if weights is None:
            element = helper.np_dtype_to_tensor_dtype(np.dtype(parameter.dtype))
            given.append(helper.make_tensor_value_info(parameter.name, element, parameter.shape))
        else:
            array = np.asarray(weights[parameter.name], order="C")
            initializers.append(numpy_helper.from_array(array, parameter.name))
    proto = helper.make_graph(
        [*graph.constants.values(), *graph.nodes],
        "xbackend_fl",
        [*map(free, schema.inputs), *given],
        [*map(free, schema.outputs), *graph.statistics],
        initializers,
    )
    return helper.make_model(
        proto,
        opset_imports=[helper.make_opsetid("", opset)],
        ir_version=ir_version(opset),
        producer_name="xbackend-fl",
    )
