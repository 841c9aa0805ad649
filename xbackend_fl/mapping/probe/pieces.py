"""Parameters in pieces that every form of a function has: a recurrent layer's by direction and gate, all others whole.

One model has an LSTM layer, another one writes its cell by hand with a dense layer for each gate. What both hold is a matrix
for each gate; where pieces are paired, a layer's parameter is put together of them.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
from numpy.typing import NDArray

from xbackend_fl.canonical import Binding, Node, Parameter, Property, Schema, has, views
from xbackend_fl.canonical.layout import Join, Layout, Stack

Array = NDArray[Any]


@dataclass(frozen=True)
class _Piece:
    """One gate of one direction of a recurrent layer's parameter, as the dense layer's that it is."""

    parameter: Parameter
    whole: Parameter
    direction: int
    gate: int

    def slice_array(self, array: Array) -> Array:
        rows = self.parameter.shape[0]
        found: Array = array[self.direction, self.gate * rows : (self.gate + 1) * rows]
        return found

    def slice_layout(self, layout: Layout) -> Layout:
        rows = self.parameter.shape[0]
        one_direction = views.index(layout, 0, self.direction)
        return views.slice_axis(one_direction, 0, self.gate * rows, (self.gate + 1) * rows)


def piece_names(schema: Schema) -> dict[str, list[str]]:
    """The names of the pieces of each parameter; of one that is whole, its own."""
    found = _pieces(schema)
    return {p.name: [i.parameter.name for i in found.get(p.name, ())] or [p.name] for p in schema.parameters}


def in_pieces(schema: Schema) -> Schema:
    """A model whose recurrent layers hold a parameter for each piece; itself if it has none."""
    found = _pieces(schema)
    if not found:
        return schema
    parameters = [
        item
        for whole in schema.parameters
        for item in [piece.parameter for piece in found.get(whole.name, ())] or [whole]
    ]
    nodes = tuple(item for node in schema.nodes for item in _gates(node, found))
    return replace(schema, nodes=nodes, parameters=tuple(parameters))


def whole_nodes(schema: Schema) -> dict[str, str]:
    """The nodes of :func:`in_pieces`, by name, to the names of those that they are parts of."""
    found = _pieces(schema)
    return {item.name: node.name for node in schema.nodes for item in _gates(node, found)}


def _gates(node: Node, found: Mapping[str, list[_Piece]]) -> list[Node]:
    """A recurrent layer as two dense layers for each gate, of the input and of the state; any other node as it is."""
    pieces = [piece for name in node.parameters.values() for piece in found.get(name, ())]
    if not pieces:
        return [node]
    gates = 1 + max(piece.gate for piece in pieces if piece.parameter.role == "weight")
    layers: dict[str, dict[str, str]] = defaultdict(dict)
    for piece in pieces:
        # Behind the biases of the input, a GRU holds those of the state.
        of_state = piece.whole.role == "recurrent_weight" or piece.gate >= gates
        layer = f"{node.name}[{piece.direction}.{piece.gate % gates}{' state' if of_state else ''}]"
        layers[layer][piece.parameter.role] = piece.parameter.name
    return [
        replace(node, name=name, parameters=held, attributes={}, outputs=() if place else node.outputs)
        for place, (name, held) in enumerate(layers.items())
    ]


def binding_in_pieces(schema: Schema, binding: Binding) -> Binding:
    """A binding to the model that :func:`in_pieces` makes of ``schema``."""
    found = _pieces(schema)
    layouts: dict[str, Layout] = {}
    for name, layout in binding.parameters.items():
        pieces = found.get(name)
        layouts |= (
            {piece.parameter.name: piece.slice_layout(layout) for piece in pieces}
            if pieces
            else {name: layout}
        )
    return replace(binding, parameters=layouts)


def taken_apart(schema: Schema, arrays: Mapping[str, Array]) -> dict[str, Array]:
    """Every piece of some arrays by parameter name."""
    found = _pieces(schema)
    made: dict[str, Array] = {}
    for name, array in arrays.items():
        pieces = found.get(name)
        made |= (
            {piece.parameter.name: piece.slice_array(array) for piece in pieces} if pieces else {name: array}
        )
    return made


def put_together(schema: Schema, arrays: Mapping[str, Array]) -> dict[str, Array]:
    """The inverse of :func:`taken_apart`."""
    found = _pieces(schema)
    made: dict[str, Array] = {}
    for whole in schema.parameters:
        pieces = found.get(whole.name)
        if not pieces:
            made[whole.name] = arrays[whole.name]
            continue
        made[whole.name] = np.zeros(whole.shape, whole.dtype)
        for piece in pieces:
            piece.slice_array(made[whole.name])[...] = arrays[piece.parameter.name]
    return made


def layouts_together(schema: Schema, layouts: Mapping[str, Layout]) -> dict[str, Layout]:
    """The layout of every parameter of which all pieces have one, in the schema's order."""
    found = _pieces(schema)
    made: dict[str, Layout] = {}
    for whole in schema.parameters:
        directions: dict[int, list[Layout]] = defaultdict(list)
        for piece in found.get(whole.name, ()):
            directions[piece.direction].append(layouts[piece.parameter.name])
        rows = [parts[0] if len(parts) == 1 else Join(tuple(parts), 0) for parts in directions.values()]
        made[whole.name] = Stack(tuple(rows)) if rows else layouts[whole.name]
    return made


def _pieces(schema: Schema) -> dict[str, list[_Piece]]:
    """The pieces of every parameter of a recurrent layer, in their order."""
    found: dict[str, list[_Piece]] = {}
    for node in schema.nodes:
        width = node.attributes.get("hidden_size")
        if not isinstance(width, int):
            continue
        for name in node.parameters.values():
            whole = schema.by_name[name]
            if has(whole.operator, Property.RECURRENT):
                found[name] = _cut(whole, width)
    return found


def _cut(whole: Parameter, width: int) -> list[_Piece]:
    directions, rows, *rest = whole.shape
    dense = replace(whole, operator="Gemm", role="weight" if rest else "bias", shape=(width, *rest))
    return [
        _Piece(replace(dense, name=f"{whole.name}[{d}.{g}]"), whole, d, g)
        for d in range(directions)
        for g in range(rows // width)
    ]
