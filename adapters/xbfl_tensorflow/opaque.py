"""Operations of TensorFlow that have no canonical form."""

from __future__ import annotations

from typing import Any

import numpy as np
import tensorflow as tf

from xbackend_fl.canonical.graph.opaque import Operation, opaque
from xbackend_fl.canonical.graph.operands import Operand
from xbackend_fl.errors import UnsupportedError
from xbfl_tensorflow.graph import Context, static_shape

_STANDS = ("BatchNormalization", "SpectralNormalization")
"""Layers that change variables in training."""

_RATES = ("rate", "dropout", "recurrent_dropout", "stddev")


def stands(layer: Any) -> bool:
    """Whether the refusal of a layer is final: it does in training what its operations do not show, or is no float32."""
    drops = any(float(getattr(layer, word, 0.0) or 0.0) > 0 for word in _RATES)
    computes = str(getattr(layer, "compute_dtype", None) or "float32")
    other = computes.startswith(("float", "bfloat")) and computes != "float32"
    quantized = bool(getattr(layer, "quantization_mode", None))
    return type(layer).__name__ in _STANDS or drops or other or quantized


def record(context: Context, operation: Any) -> list[Operand]:
    """Record an operation as it is.

    Raises:
        UnsupportedError: It draws random numbers, reads a variable of somebody else, or its shapes depend on the data.
    """
    where = context.prefix + operation.name
    if "Random" in operation.type or operation.type == "Multinomial":
        raise UnsupportedError(
            f"tensorflow operation {operation.type} at {where!r} draws random numbers in evaluation",
            hint="draw them in training only: if training",
        )
    arguments = [
        item for tensor in operation.inputs for item in _arguments(context, operation, tensor, where)
    ]
    options = {
        key: _plain(operation.get_attr(key))
        for key, value in sorted(operation.node_def.attr.items())
        # A function's name counts how many were made before it.
        if not key.startswith("_") and not value.HasField("func")
    }
    outputs = [(static_shape(tensor), tensor.dtype.name) for tensor in operation.outputs]
    made = opaque(
        context.builder, where, Operation("tensorflow", operation.type, arguments, options), outputs
    )
    return list(made)


def placeholders(context: Context, call: Any) -> list[Operand]:
    """Something of the shapes that a layer returns, for the rest of a walk that will be made again."""
    outputs = [(static_shape(tensor), tensor.dtype.name) for tensor in tf.nest.flatten(call.outputs)]
    return list(opaque(context.builder, call.target.name, Operation("tensorflow", "layer", ()), outputs))


def _arguments(context: Context, operation: Any, tensor: Any, where: str) -> list[Operand]:
    if tensor.dtype != tf.resource:
        return [context.tensor(tensor)]
    if operation.type == "LookupTableFindV2" and tensor.name in context.lookups:
        return _table(context.lookups[tensor.name], operation)
    layout = context.handles.get(tensor.name)
    if layout is None:
        raise UnsupportedError(f"tensorflow operation {where!r} reads a variable that the model does not own")
    return [layout]


def _table(handle: Any, operation: Any) -> list[Operand]:
    """Keys and values of a table, as constants in the order of the keys."""
    kinds = operation.get_attr("Tin"), operation.get_attr("Tout")
    found = tf.raw_ops.LookupTableExportV2(table_handle=handle, Tkeys=kinds[0], Tvalues=kinds[1])
    keys, values = (np.asarray(column) for column in found)
    order = np.argsort(keys)
    return [keys[order], values[order]]


def _plain(value: Any) -> Any:
    """An attribute in words that are the same in every process."""
    if isinstance(value, bytes):
        return value.decode(errors="replace")
    if isinstance(value, tf.DType):
        return value.name
    if isinstance(value, list | tuple):
        return [_plain(item) for item in value]
    return getattr(value, "name", None) or str(value)
