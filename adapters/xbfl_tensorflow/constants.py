"""Evaluates what a graph computes from constants alone: shapes, positions, masks."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import tensorflow as tf
from tensorflow.core.framework.graph_pb2 import GraphDef

from xbackend_fl.adapter.contract import Array
from xbackend_fl.canonical.graph.operands import Operand, native_shape


def fold(operation: Any, arguments: Sequence[Operand]) -> list[Array] | None:
    """The outputs of an operation on constants; ``None`` if it depends on data or parameters."""
    if operation.type == "Const":
        return [tf.make_ndarray(operation.get_attr("value"))]
    if operation.type == "Shape" and operation.inputs[0].shape.is_fully_defined():
        return [np.array(operation.inputs[0].shape, np.int32)]
    if operation.type == "Shape" and not isinstance(arguments[0], np.ndarray):
        return [np.array(native_shape(arguments[0]), np.int32)]
    known = [item for item in arguments if isinstance(item, np.ndarray)]
    if not known or len(known) != len(arguments) or not operation.outputs or not _repeatable(operation):
        return None
    return _run(operation, dict(enumerate(known)))


def settle(operation: Any, arguments: Sequence[Operand]) -> None:
    """Find the shapes of an operation's outputs by running it on zeros, where inference left them open.

    A function of a SavedModel does not say the shapes of its variables.
    """
    if all(tensor.shape.is_fully_defined() for tensor in operation.outputs) or not _repeatable(operation):
        return
    given = {
        index: item
        if isinstance(item, np.ndarray)
        else np.zeros(native_shape(item), tensor.dtype.as_numpy_dtype)
        for index, (tensor, item) in enumerate(zip(operation.inputs, arguments, strict=True))
    }
    for tensor, item in zip(operation.inputs, arguments, strict=True):
        tensor.set_shape(native_shape(item))
    for tensor, array in zip(operation.outputs, _run(operation, given), strict=True):
        tensor.set_shape(array.shape)


def _repeatable(operation: Any) -> bool:
    """Whether an operation can be run alone: it says the same every time, and reads and makes arrays only."""
    arrays = all(tensor.dtype != tf.variant for tensor in (*operation.inputs, *operation.outputs))
    return arrays and not operation.op_def.is_stateful


def _run(operation: Any, inputs: Mapping[int, Array]) -> list[Array]:
    """Run one operation alone, in a graph of its own: the graph it comes from may call functions it does not hold."""
    definition = GraphDef()
    definition.versions.producer = tf.version.GRAPH_DEF_VERSION
    for index, tensor in enumerate(operation.inputs):
        placeholder = definition.node.add(name=f"input_{index}", op="Placeholder")
        placeholder.attr["dtype"].type = tensor.dtype.as_datatype_enum
    node = definition.node.add()
    node.CopyFrom(operation.node_def)
    node.name, node.device = "operation", ""
    node.input[:] = [f"input_{index}" for index in range(len(operation.inputs))]
    for name in [name for name in node.attr if name.startswith("_")]:
        node.attr.pop(name)
    graph = tf.Graph()
    with graph.as_default():
        tf.import_graph_def(definition, name="")
    with tf.compat.v1.Session(graph=graph) as session:
        wanted = [f"operation:{index}" for index in range(len(operation.outputs))]
        given = {f"input_{index}:0": array for index, array in inputs.items()}
        return [np.asarray(item) for item in session.run(wanted, given)]
