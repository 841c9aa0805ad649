"""Writes a schema with its weights as an ONNX model; initializers carry the canonical names and arrays.

The file is what ONNX Runtime executes as the independent oracle of every proof, so it follows the ONNX
operator specification and nothing else. Macro nodes of the operator table are expanded here.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

import numpy as np
import onnx
from onnx import TensorProto, helper, numpy_helper

from xbackend_fl.canonical.dtypes import is_whole, value_dtypes
from xbackend_fl.canonical.layout import Array
from xbackend_fl.canonical.node import Node
from xbackend_fl.canonical.onnx_axes import SequenceAxes, fix_axes, free
from xbackend_fl.canonical.onnx_graph import Emit, OnnxGraph
from xbackend_fl.canonical.onnx_operations import EXPANSIONS as OPERATIONS
from xbackend_fl.canonical.schema import Schema
from xbackend_fl.errors import RefusedInput

OPSET = 21
IR_VERSION = 10

OF_BATCH = "_of_batch"
"""Behind the name of a parameter, in front of a number: the statistic of the batch that would move it."""


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
    graph = OnnxGraph(value_dtypes(schema))
    found: list[onnx.ValueInfoProto] = []
    for node in schema.nodes:
        if batch_statistics and node.operator == "BatchNormalization":
            found += _batch_norm_of_batch(graph, node, schema, len(found))
        else:
            _EXPANSIONS.get(node.operator, _direct)(graph, node, schema)
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
        [*map(free, schema.outputs), *found],
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


def _formals(node: Node, *roles: str) -> list[str]:
    """Parameter names by role; an absent slot is ONNX's empty name, trailing ones are dropped."""
    names = [node.parameters.get(role, "") for role in roles]
    while names and not names[-1]:
        names.pop()
    return names


def _direct(graph: OnnxGraph, node: Node, schema: Schema) -> None:
    """An operator whose attributes and slots are ONNX's own."""
    del schema
    inputs = [*node.inputs, *_formals(node, "weight", "bias")]
    graph.call(node.operator, inputs, node.outputs[0], **node.attributes)


def _project(graph: OnnxGraph, value: str, weight: str, bias: str | None, output: str | None = None) -> str:
    transposed = graph.call("Transpose", [weight], perm=[1, 0])
    product = graph.call("MatMul", [value, transposed], output if bias is None else None)
    return product if bias is None else graph.call("Add", [product, bias], output)


def _gemm(graph: OnnxGraph, node: Node, schema: Schema) -> None:
    del schema
    _project(graph, node.inputs[0], node.parameters["weight"], node.parameters.get("bias"), node.outputs[0])


def _batch_norm(graph: OnnxGraph, node: Node, schema: Schema) -> None:
    channels = schema.by_name[node.parameters["mean"]].shape
    scale = node.parameters.get("weight") or graph.real(np.ones(channels))
    bias = node.parameters.get("bias") or graph.real(np.zeros(channels))
    inputs = [node.inputs[0], scale, bias, node.parameters["mean"], node.parameters["variance"]]
    graph.call("BatchNormalization", inputs, node.outputs[0], **node.attributes)


def _batch_norm_of_batch(
    graph: OnnxGraph, node: Node, schema: Schema, number: int
) -> list[onnx.ValueInfoProto]:
    """Batch normalisation in training mode; returns the mean and the biased variance as outputs.

    Their ``number`` tells calls of one layer apart.
    """
    value = node.inputs[0]
    channels = schema.by_name[node.parameters["mean"]].shape[0]
    # [N, C, *spatial] as [C, N · spatial]: one row per channel at every rank.
    rows = graph.call("Reshape", [value, graph.ints(0, channels, -1)])
    by_channel = graph.call(
        "Reshape", [graph.call("Transpose", [rows], perm=[1, 0, 2]), graph.ints(channels, -1)]
    )
    names = [f"{node.parameters[role]}{OF_BATCH}{number}" for role in ("mean", "variance")]
    graph.call("ReduceMean", [by_channel, graph.ints(1)], names[0], keepdims=0)
    centre = graph.call("Unsqueeze", [names[0], graph.ints(1)])
    squares = graph.call("Mul", [graph.call("Sub", [by_channel, centre])] * 2)
    graph.call("ReduceMean", [squares, graph.ints(1)], names[1], keepdims=0)
    scale = node.parameters.get("weight") or graph.real(np.ones(channels))
    bias = node.parameters.get("bias") or graph.real(np.zeros(channels))
    epsilon = node.attributes["epsilon"]
    graph.call("BatchNormalization", [value, scale, bias, *names], node.outputs[0], epsilon=epsilon)
    return [helper.make_tensor_value_info(name, TensorProto.FLOAT, [channels]) for name in names]


def _normalisation(graph: OnnxGraph, node: Node, schema: Schema, axis: int) -> list[str]:
    """Input, scale and bias of a normalisation; absent ones are ones and zeros."""
    length = _length(graph, node, schema, axis)
    scale = node.parameters.get("weight") or length(1.0)
    bias = node.parameters.get("bias") or length(0.0)
    return [node.inputs[0], scale, bias]


def _length(graph: OnnxGraph, node: Node, schema: Schema, axis: int) -> Callable[[float], str]:
    """Makes constants as long as ``axis`` of the node's input, whatever that is."""
    held = next(iter(node.parameters.values()), None)

    def constant(value: float) -> str:
        if held is not None:
            return graph.real(np.full(schema.by_name[held].shape, value))
        size = graph.call("Shape", [node.inputs[0]], start=axis, end=axis + 1 if axis >= 0 else None)
        return graph.call("Expand", [graph.real([value]), size])

    return constant


def _layer_norm(graph: OnnxGraph, node: Node, schema: Schema) -> None:
    inputs = _normalisation(graph, node, schema, -1)
    graph.call("LayerNormalization", inputs, node.outputs[0], axis=-1, epsilon=node.attributes["epsilon"])


def _grouped_norm(graph: OnnxGraph, node: Node, schema: Schema) -> None:
    graph.call(node.operator, _normalisation(graph, node, schema, 1), node.outputs[0], **node.attributes)


def _prelu(graph: OnnxGraph, node: Node, schema: Schema) -> None:
    del schema
    # Slopes broadcast from the right, so they need an axis of size 1 per spatial axis; only their number is known late.
    spatial = graph.call("Shape", [graph.call("Shape", [node.inputs[0]], start=2)])
    ones = graph.call("ConstantOfShape", [spatial], value=numpy_helper.from_array(np.ones(1, np.int64)))
    shape = graph.call("Concat", [graph.ints(-1), ones], axis=0)
    slope = graph.call("Reshape", [node.parameters["weight"], shape])
    graph.call("PRelu", [node.inputs[0], slope], node.outputs[0])


def _embedding(graph: OnnxGraph, node: Node, schema: Schema) -> None:
    del schema
    graph.call("Gather", [node.parameters["weight"], node.inputs[0]], node.outputs[0], axis=0)


def _recurrent(graph: OnnxGraph, node: Node, schema: Schema) -> None:
    weight, recurrent = node.parameters["weight"], node.parameters["recurrent_weight"]
    directions, rows, _ = schema.by_name[weight].shape
    bias = ""
    if name := node.parameters.get("bias"):
        missing = 2 * rows - schema.by_name[name].shape[1]
        bias = name
        if missing:
            bias = graph.call("Concat", [name, graph.real(np.zeros((directions, missing)))], axis=1)
    attributes: dict[str, Any] = {
        "hidden_size": node.attributes["hidden_size"],
        "direction": node.attributes["direction"],
        "linear_before_reset": node.attributes.get("linear_before_reset"),
    }
    if activation := node.attributes.get("activation"):
        attributes["activations"] = [activation] * directions
    given = {key: value for key, value in attributes.items() if value is not None}
    by_time = graph.call("Transpose", [node.inputs[0]], perm=[1, 0, 2])
    begun = [_by_direction(graph, value, directions) for value in node.inputs[1:]]
    sequence, *ends = (f"{node.name}_{word}" for word in ("Y", "H", "C")[: len(node.outputs)])
    inputs = [by_time, weight, recurrent, *([bias, "", *begun] if begun else [bias] if bias else [])]
    graph.nodes.append(
        helper.make_node(node.operator, inputs, [sequence, *ends], name=f"{node.name}_cell", **given)
    )
    by_batch = graph.call("Transpose", [sequence], perm=[2, 0, 1, 3])
    graph.call("Reshape", [by_batch, graph.ints(0, 0, -1)], node.outputs[0])
    for state, output in zip(ends, node.outputs[1:], strict=True):
        final = graph.call("Transpose", [state], perm=[1, 0, 2])
        graph.call("Reshape", [final, graph.ints(0, -1)], output)


def _by_direction(graph: OnnxGraph, state: str, directions: int) -> str:
    """``[N, directions · hidden]`` as ``[directions, N, hidden]``."""
    split = graph.call("Reshape", [state, graph.ints(0, directions, -1)])
    return graph.call("Transpose", [split], perm=[1, 0, 2])


def _attention(graph: OnnxGraph, node: Node, schema: Schema) -> None:
    heads = node.attributes["num_heads"]
    assert isinstance(heads, int)
    parts = []
    for value, order in zip(node.inputs, ([0, 2, 1, 3], [0, 2, 3, 1], [0, 2, 1, 3]), strict=True):
        split = graph.call("Reshape", [value, graph.ints(0, 0, heads, -1)])
        parts.append(graph.call("Transpose", [split], perm=order))
    query, key, value = parts
    scores = graph.call("Mul", [graph.call("MatMul", [query, key]), graph.real(node.attributes["scale"])])
    if node.attributes["causal"]:
        masked = f"{node.outputs[0]}_causal"
        _causal_mask(graph, Node(masked, "CausalMask", (scores,), (masked,)), schema)
        scores = masked
    mixed = graph.call("MatMul", [graph.call("Softmax", [scores], axis=-1), value])
    joined = graph.call("Transpose", [mixed], perm=[0, 2, 1, 3])
    graph.call("Reshape", [joined, graph.ints(0, 0, -1)], node.outputs[0])


def _constant_operand(graph: OnnxGraph, node: Node, schema: Schema) -> None:
    del schema
    constant = node.attributes.get("constant")
    if constant is None:
        graph.call(node.operator, graph.alike(node.inputs), node.outputs[0])
        return
    graph.call(node.operator, [*node.inputs, _number(graph, node, constant)], node.outputs[0])


def _number(graph: OnnxGraph, node: Node, value: object) -> str:
    """A number of the type of what a node reads."""
    return graph.number(value, graph.dtypes[node.inputs[0]])


def _clip(graph: OnnxGraph, node: Node, schema: Schema) -> None:
    del schema
    bounds = [node.attributes.get(end) for end in ("min", "max")]
    given = ["" if bound is None else _number(graph, node, bound) for bound in bounds]
    graph.call("Clip", [node.inputs[0], *given], node.outputs[0])


def _relu(graph: OnnxGraph, node: Node, schema: Schema) -> None:
    if is_whole(graph.dtypes[node.inputs[0]]):
        # ONNX Runtime has no Relu of whole numbers.
        graph.call("Max", [node.inputs[0], _number(graph, node, 0)], node.outputs[0])
    else:
        _direct(graph, node, schema)


def _reduce(graph: OnnxGraph, node: Node, schema: Schema) -> None:
    del schema
    axes = graph.constant(node.attributes["axes"], np.int64)
    graph.call(
        node.operator,
        [node.inputs[0], axes],
        node.outputs[0],
        keepdims=int(bool(node.attributes["keepdims"])),
    )


def _reshape(graph: OnnxGraph, node: Node, schema: Schema) -> None:
    del schema
    shape = graph.constant(node.attributes["shape"], np.int64)
    graph.call("Reshape", [node.inputs[0], shape], node.outputs[0])


def _pad(graph: OnnxGraph, node: Node, schema: Schema) -> None:
    del schema
    pads = graph.constant(node.attributes["pads"], np.int64)
    inputs = [node.inputs[0], pads, _number(graph, node, node.attributes["value"])]
    graph.call("Pad", inputs, node.outputs[0], mode=node.attributes["mode"])


def _slice(graph: OnnxGraph, node: Node, schema: Schema) -> None:
    del schema
    bounds = [graph.constant([node.attributes[key]], np.int64) for key in ("start", "stop", "axis", "step")]
    graph.call("Slice", [node.inputs[0], *bounds], node.outputs[0])


def _select(graph: OnnxGraph, node: Node, schema: Schema) -> None:
    del schema
    index = graph.constant(node.attributes["index"], np.int64)
    graph.call("Gather", [node.inputs[0], index], node.outputs[0], axis=node.attributes["axis"])


def _parameter(graph: OnnxGraph, node: Node, schema: Schema) -> None:
    del schema
    graph.call("Identity", [node.parameters["weight"]], node.outputs[0])


def _constant(graph: OnnxGraph, node: Node, schema: Schema) -> None:
    del schema
    dtype = np.dtype(str(node.attributes["dtype"])).type
    shape = node.attributes["shape"]
    assert isinstance(shape, tuple)
    value = np.asarray(node.attributes["value"]).reshape([int(n) for n in shape])
    graph.call("Identity", [graph.constant(value, dtype)], node.outputs[0])


def _causal_mask(graph: OnnxGraph, node: Node, schema: Schema) -> None:
    del schema
    scores = node.inputs[0]
    sizes = graph.call("Shape", [scores], start=-2)
    full = graph.call("Expand", [graph.real(-1e9), sizes])
    above = graph.call("Trilu", [full, graph.constant(1, np.int64)], upper=1)
    graph.call("Add", [scores, above], node.outputs[0])


def _expand(graph: OnnxGraph, node: Node, schema: Schema) -> None:
    shape = node.attributes["shape"]
    assert isinstance(shape, tuple)
    rest = graph.ints(*(int(n) for n in shape[1:]))
    lead = graph.ints(int(shape[0]))
    if not shape[0]:
        lead = graph.call("Shape", [schema.inputs[0].name], start=0, end=1)
    sizes = graph.call("Concat", [lead, rest], axis=0)
    graph.call("Expand", [node.inputs[0], sizes], node.outputs[0])


def _swish(graph: OnnxGraph, node: Node, schema: Schema) -> None:
    del schema
    gate = graph.call("Sigmoid", [node.inputs[0]])
    graph.call("Mul", [node.inputs[0], gate], node.outputs[0])


def _identity(graph: OnnxGraph, node: Node, schema: Schema) -> None:
    del schema
    graph.call("Identity", [node.inputs[0]], node.outputs[0])


def _cast(graph: OnnxGraph, node: Node, schema: Schema) -> None:
    del schema
    element = helper.np_dtype_to_tensor_dtype(np.dtype(str(node.attributes["to"])))
    assert element != TensorProto.UNDEFINED
    graph.call("Cast", [node.inputs[0]], node.outputs[0], to=element)


_EXPANSIONS: Mapping[str, Emit] = {
    **OPERATIONS,
    "Gemm": _gemm,
    "BatchNormalization": _batch_norm,
    "LayerNormalization": _layer_norm,
    "GroupNormalization": _grouped_norm,
    "InstanceNormalization": _grouped_norm,
    "PRelu": _prelu,
    "Gather": _embedding,
    "LSTM": _recurrent,
    "GRU": _recurrent,
    "RNN": _recurrent,
    "Attention": _attention,
    "Add": _constant_operand,
    "Mul": _constant_operand,
    "Pow": _constant_operand,
    "Clip": _clip,
    **dict.fromkeys(
        ("ReduceMean", "ReduceMax", "ReduceSum", "ReduceMin", "ReduceProd", "ReduceLogSumExp"), _reduce
    ),
    "Reshape": _reshape,
    "Pad": _pad,
    "Relu": _relu,
    "Slice": _slice,
    "Select": _select,
    "Swish": _swish,
    "Parameter": _parameter,
    "Constant": _constant,
    "CausalMask": _causal_mask,
    "Expand": _expand,
    "Dropout": _identity,
    "Cast": _cast,
}
