"""Recurrent layers over packed sequences: what they compute stays PyTorch's, what they hold is gates as everywhere.

No canonical operator stops at the end of each example. The layer is an opaque node that reads a parameter for each gate of its input and
of its state, which is what a layer with a mask, or a cell in a loop, has as well.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence

from torch.fx import Node

from xbackend_fl.canonical import Value
from xbackend_fl.canonical.graph.opaque import Operation, opaque
from xbackend_fl.canonical.graph.operands import parameter_value
from xbackend_fl.canonical.layout import Layout, Sum
from xbackend_fl.canonical.views import slice_axis
from xbfl_torch.graph import Context

PACKS = "aten._pack_padded_sequence.default"
"""The operation that packs."""


def packed(context: Context, node: Node, operator: str, gates: int) -> list[Value]:
    """Record a layer over packed data; what it returns, natively.

    Args:
        context: Of the walk.
        node: ``lstm.data``, ``gru.data`` or one of a simple layer.
        operator: ``LSTM``, ``GRU`` or ``RNN``.
        gates: How many it has.
    """
    a = context.arguments(node)
    tensors: list[Layout] = a["params"]
    per = 4 if a["has_biases"] else 2
    held = [
        parameter_value(context.builder, piece)
        for first in range(0, len(tensors), per)
        for piece in _pieces(tensors[first : first + per], operator, gates)
    ]
    begun = a["hx"] if isinstance(a["hx"], list) else [a["hx"]]
    options = {key: a[key] for key in ("has_biases", "num_layers", "bidirectional")}
    outputs = [
        (tuple(map(int, leaf.shape)), str(leaf.dtype).removeprefix("torch.")) for leaf in node.meta["val"]
    ]
    operation = Operation("torch", str(node.target), [a["data"], a["batch_sizes"], begun, held], options)
    return opaque(context.builder, context.name(node, tensors[0]), operation, outputs)


def _pieces(tensors: Sequence[Layout], operator: str, gates: int) -> Iterator[Layout]:
    """The gates of one direction of one layer, in the order of a cell by hand: of the input, then of the state, each with its biases.

    Two biases are one where only their sum counts.
    """
    width = tensors[0].shape[0] // gates
    cut = [
        [slice_axis(tensor, 0, place * width, (place + 1) * width) for place in range(gates)]
        for tensor in tensors
    ]
    if operator == "GRU" or len(cut) == 2:
        yield from (piece for kind in (cut[0], *cut[2:3], cut[1], *cut[3:]) for piece in kind)
        return
    yield from (*cut[0], *(Sum(pair) for pair in zip(cut[2], cut[3], strict=True)), *cut[1])
