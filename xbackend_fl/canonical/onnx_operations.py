"""Truth values, choices and movement as ONNX nodes."""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np

from xbackend_fl.canonical.node import Node
from xbackend_fl.canonical.onnx_graph import Emit, OnnxGraph
from xbackend_fl.canonical.schema import Schema


def _compare(graph: OnnxGraph, node: Node, schema: Schema) -> None:
    del schema
    constant = node.attributes.get("constant")
    inputs = graph.alike(node.inputs)
    if constant is not None:
        inputs.append(graph.number(constant, graph.dtypes[inputs[0]]))
    graph.call(node.operator, inputs, node.outputs[0])


def _where(graph: OnnxGraph, node: Node, schema: Schema) -> None:
    del schema
    condition, *values = node.inputs
    graph.call("Where", [condition, *graph.alike(values)], node.outputs[0])


def _arithmetic(graph: OnnxGraph, node: Node, schema: Schema) -> None:
    del schema
    graph.call(node.operator, graph.alike(node.inputs), node.outputs[0])


def _several(graph: OnnxGraph, node: Node, schema: Schema) -> None:
    """ONNX's logical operators take two."""
    del schema
    *rest, last = node.inputs
    total = rest[0]
    for value in rest[1:]:
        total = graph.call(node.operator, [total, value])
    graph.call(node.operator, [total, last], node.outputs[0])


def _masked(graph: OnnxGraph, node: Node, schema: Schema) -> None:
    del schema
    value, mask = node.inputs
    fill = graph.number(node.attributes["value"], graph.dtypes[value])
    graph.call("Where", [mask, fill, value], node.outputs[0])


def _arg_max(graph: OnnxGraph, node: Node, schema: Schema) -> None:
    del schema
    keep = int(bool(node.attributes["keepdims"]))
    graph.call("ArgMax", [node.inputs[0]], node.outputs[0], axis=node.attributes["axis"], keepdims=keep)


def _top_k(graph: OnnxGraph, node: Node, schema: Schema) -> None:
    del schema
    made = graph.call(
        "TopK",
        [node.inputs[0], graph.ints(int(str(node.attributes["k"])))],
        node.outputs[0],
        axis=node.attributes["axis"],
    )
    assert made == node.outputs[0]
    graph.nodes[-1].output.append(node.outputs[1])


def _cum_sum(graph: OnnxGraph, node: Node, schema: Schema) -> None:
    del schema
    given = {name: int(bool(node.attributes[name])) for name in ("exclusive", "reverse")}
    axis = graph.constant(node.attributes["axis"], np.int64)
    graph.call("CumSum", [node.inputs[0], axis], node.outputs[0], **given)


def _lp_normalization(graph: OnnxGraph, node: Node, schema: Schema) -> None:
    """Spelled out: ONNX's own says nothing of zeros."""
    del schema
    value = node.inputs[0]
    axis = graph.constant([node.attributes["axis"]], np.int64)
    norm = graph.call("ReduceL2", [value, axis], keepdims=1)
    graph.call("Div", [value, graph.call("Max", [norm, graph.real(1e-12)])], node.outputs[0])


def _mod(graph: OnnxGraph, node: Node, schema: Schema) -> None:
    """Of floats: ONNX's own gives the remainder the sign of the dividend."""
    del schema
    value = node.inputs[0]
    constant = node.attributes.get("constant")
    divisor = node.inputs[1] if constant is None else graph.number(constant, graph.dtypes[value])
    if graph.dtypes[value].startswith(("int", "uint")):
        graph.call("Mod", [value, divisor], node.outputs[0])
        return
    whole = graph.call("Floor", [graph.call("Div", [value, divisor])])
    graph.call("Sub", [value, graph.call("Mul", [whole, divisor])], node.outputs[0])


def _take(graph: OnnxGraph, node: Node, schema: Schema) -> None:
    del schema
    indices = graph.constant(node.attributes["indices"], np.int64)
    graph.call("Gather", [node.inputs[0], indices], node.outputs[0], axis=node.attributes["axis"])


def _flip(graph: OnnxGraph, node: Node, schema: Schema) -> None:
    del schema
    bounds = [
        graph.ints(-1),
        graph.ints(-(2**31)),
        graph.constant([node.attributes["axis"]], np.int64),
        graph.ints(-1),
    ]
    graph.call("Slice", [node.inputs[0], *bounds], node.outputs[0])


def _roll(graph: OnnxGraph, node: Node, schema: Schema) -> None:
    del schema
    value, axis = node.inputs[0], node.attributes["axis"]
    place, cut = (
        graph.constant([axis], np.int64),
        graph.constant([-int(str(node.attributes["shift"]))], np.int64),
    )
    tail = graph.call("Slice", [value, cut, graph.ints(2**31), place])
    head = graph.call("Slice", [value, graph.ints(0), cut, place])
    graph.call("Concat", [tail, head], node.outputs[0], axis=axis)


def _resize(graph: OnnxGraph, node: Node, schema: Schema) -> None:
    del schema
    scales, sizes = node.attributes["scales"], node.attributes.get("sizes")
    assert isinstance(scales, tuple)
    mode = str(node.attributes["mode"])
    coordinates, nearest = {
        "nearest": ("asymmetric", "floor"),
        "nearest_exact": ("half_pixel", "round_prefer_ceil"),
        "linear": ("half_pixel", None),
    }[mode]
    if node.attributes.get("align_corners"):
        coordinates = "align_corners"
    value = node.inputs[0]
    if isinstance(sizes, tuple):
        lead = graph.call("Shape", [value], start=0, end=2)
        inputs = [value, "", "", graph.call("Concat", [lead, graph.constant(sizes, np.int64)], axis=0)]
    else:
        inputs = [value, "", graph.real((1, 1, *scales))]
    graph.call(
        "Resize",
        inputs,
        node.outputs[0],
        mode=mode.removesuffix("_exact"),
        coordinate_transformation_mode=coordinates,
        nearest_mode=nearest,
    )


def _depth_to_space(graph: OnnxGraph, node: Node, schema: Schema) -> None:
    del schema
    size = node.attributes["blocksize"]
    graph.call("DepthToSpace", [node.inputs[0]], node.outputs[0], blocksize=size, mode="CRD")


def _space_to_depth(graph: OnnxGraph, node: Node, schema: Schema) -> None:
    """Spelled out: ONNX's own puts the places of a block in front of the channels; the channels come first here."""
    del schema
    value = node.inputs[0]
    size, channels = (int(str(node.attributes[word])) for word in ("blocksize", "channels"))
    pixels = graph.call("Shape", [value], start=2)
    rows, columns = (
        graph.call("Div", [graph.call("Slice", [pixels, graph.ints(k), graph.ints(k + 1)]), graph.ints(size)])
        for k in (0, 1)
    )
    block = graph.ints(size)
    split = graph.call("Concat", [graph.ints(0, channels), rows, block, columns, block], axis=0)
    parted = graph.call("Reshape", [value, split])
    turned = graph.call("Transpose", [parted], perm=[0, 1, 3, 5, 2, 4])
    sizes = graph.call("Concat", [graph.ints(0, size * size * channels), rows, columns], axis=0)
    graph.call("Reshape", [turned, sizes], node.outputs[0])


def _gather_elements(graph: OnnxGraph, node: Node, schema: Schema) -> None:
    del schema
    graph.call("GatherElements", [*node.inputs], node.outputs[0], axis=node.attributes["axis"])


def _gather_nd(graph: OnnxGraph, node: Node, schema: Schema) -> None:
    del schema
    graph.call("GatherND", [*node.inputs], node.outputs[0], batch_dims=node.attributes["batch_dims"])


EXPANSIONS: Mapping[str, Emit] = {
    **dict.fromkeys(("Equal", "Less", "Greater"), _compare),
    **dict.fromkeys(("And", "Or", "Xor"), _several),
    "Where": _where,
    **dict.fromkeys(("Sub", "Div", "Max", "Min"), _arithmetic),
    "Masked": _masked,
    "ArgMax": _arg_max,
    "TopK": _top_k,
    "CumSum": _cum_sum,
    "LpNormalization": _lp_normalization,
    "Mod": _mod,
    "Take": _take,
    "GatherElements": _gather_elements,
    "GatherND": _gather_nd,
    "Flip": _flip,
    "Roll": _roll,
    "Resize": _resize,
    "DepthToSpace": _depth_to_space,
    "SpaceToDepth": _space_to_depth,
}
