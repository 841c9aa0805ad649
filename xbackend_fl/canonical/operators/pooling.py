"""Windows of pixels without weights, pixels between pixels, and pixels as channels.

The pass ``blocks`` moves an order of channels beside blocks of pixels into a layer.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from xbackend_fl.canonical.row import Effect, Operator, Property, attributes

if TYPE_CHECKING:
    from xbackend_fl.canonical.node import Node
    from xbackend_fl.canonical.onnx_graph import OnnxGraph


def _resize(graph: OnnxGraph, node: Node) -> None:
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
        inputs = [value, "", "", graph.call("Concat", [lead, graph.ints(*map(int, sizes))], axis=0)]
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


def _depth_to_space(graph: OnnxGraph, node: Node) -> None:
    size = node.attributes["blocksize"]
    graph.call("DepthToSpace", [node.inputs[0]], node.outputs[0], blocksize=size, mode="CRD")


def _space_to_depth(graph: OnnxGraph, node: Node) -> None:
    """Spelled out: ONNX's own puts the places of a block in front of the channels; the channels come first here."""
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


_WINDOW = attributes(Effect.FUNCTION, "kernel_shape", "strides", "pads", "dilations", "ceil_mode")
_POOLING = Property.WINDOWED | Property.CARRIES_BIAS | Property.KEEPS_AXES

OPERATORS = (
    Operator("MaxPool", attributes=_WINDOW, properties=_POOLING | Property.EXACT),
    Operator("AveragePool", attributes=_WINDOW | {"count_include_pad": Effect.FUNCTION}, properties=_POOLING),
    Operator(
        "Resize",
        attributes=attributes(Effect.FUNCTION, "scales", "mode", "align_corners") | {"sizes": Effect.SHAPE},
        properties=Property.KEEPS_AXES,
        expansion=_resize,
        note="half-pixel centres; nearest picks the pixel to the left, nearest_exact the nearest centre",
    ),
    Operator(
        "DepthToSpace",
        attributes={"blocksize": Effect.SHAPE},
        properties=Property.SHAPE_ONLY,
        expansion=_depth_to_space,
        note="mode CRD",
    ),
    Operator(
        "SpaceToDepth",
        attributes={"blocksize": Effect.SHAPE, "channels": Effect.SHAPE},
        properties=Property.SHAPE_ONLY,
        expansion=_space_to_depth,
        note="the inverse of mode CRD: channels before the places of a block",
    ),
)
