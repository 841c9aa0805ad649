"""Recurrent layers.

The pass ``states`` takes the last step of a sequence for the last state.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np

from xbackend_fl.canonical.row import Effect, Operator, Property, Slot, attributes

if TYPE_CHECKING:
    from xbackend_fl.canonical.node import Node
    from xbackend_fl.canonical.onnx_graph import OnnxGraph


def _recurrent(graph: OnnxGraph, node: Node) -> None:
    weight, recurrent = node.parameters["weight"], node.parameters["recurrent_weight"]
    directions, rows, _ = graph.shapes[weight]
    bias = ""
    if name := node.parameters.get("bias"):
        missing = 2 * rows - graph.shapes[name][1]
        bias = name
        if missing:
            bias = graph.call("Concat", [name, graph.real(np.zeros((directions, missing)))], axis=1)
    activation = node.attributes.get("activation")
    by_time = graph.call("Transpose", [node.inputs[0]], perm=[1, 0, 2])
    begun = [_by_direction(graph, value, directions) for value in node.inputs[1:]]
    sequence, *ends = (f"{node.name}_{word}" for word in ("Y", "H", "C")[: len(node.outputs)])
    graph.several(
        node.operator,
        [by_time, weight, recurrent, *([bias, "", *begun] if begun else [bias] if bias else [])],
        [sequence, *ends],
        f"{node.name}_cell",
        hidden_size=node.attributes["hidden_size"],
        direction=node.attributes["direction"],
        linear_before_reset=node.attributes.get("linear_before_reset"),
        activations=[activation] * directions if activation else None,
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


def _row(name: str, gates: str, width: str, bias: str, *further: str) -> Operator:
    read, kept = (
        f"[directions, {width}·hidden, {columns}], gates {gates}" for columns in ("input", "hidden")
    )
    return Operator(
        name,
        (
            Slot("weight", "W", read, fan_in_axes=(2,), out_axis=1, in_axis=2),
            Slot("recurrent_weight", "R", kept, fan_in_axes=(2,)),
            Slot("bias", "B", bias),
        ),
        attributes(Effect.FUNCTION, "hidden_size", "direction", *further),
        Property.RECURRENT | Property.SERIES | Property.SATURATES,
        _recurrent,
        feature_axis=-1,
        note="inputs [N, T, F] and, if it does not begin with zeros, the first state (and memory) [N, directions·hidden]; "
        "outputs sequence [N, T, directions·hidden], last state and, if it is read, memory of an LSTM [N, directions·hidden]",
    )


OPERATORS = (
    _row("LSTM", "iofc", "4", "[directions, 4·hidden] = Wb + Rb"),
    _row(
        "GRU",
        "zrh",
        "3",
        "[directions, 6·hidden] = Wb, Rb; [directions, 3·hidden] when linear_before_reset is 0",
        "linear_before_reset",
    ),
    _row("RNN", "one gate", "1", "[directions, hidden] = Wb + Rb", "activation"),
)
