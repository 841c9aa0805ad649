"""Rows of layers in another order: heads counted before or behind their width, halves against neighbours, a made matrix transposed.

What a layer makes is often taken apart by lengths: into heads and places, into the rows and columns of a matrix. Two models may count
the same numbers in another order, and then the layer's rows are turned, those of several layers alike, and the columns of the
layer that reads the result with them. Each order is a guess, told by outputs under equal weights by shape.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import replace
from itertools import combinations, product
from typing import TypeAlias

from xbackend_fl.canonical import Binding, Node, Schema
from xbackend_fl.canonical.layout import Layout, Reorder, Segment

_TOGETHER = 3
"""Most layers whose rows are turned alike."""

_Turn: TypeAlias = tuple[int, int, int]
"""Two lengths that change places, and the length of what stays together behind them."""


def row_orders(reference: Schema, own: Schema, binding: Binding) -> Iterator[Binding]:
    """A candidate's bindings with rows of dense layers in other orders, the fewest layers first.

    Args:
        reference: The reference's schema.
        own: The candidate's.
        binding: The candidate's own binding.
    """
    layers = [
        node for node in own.nodes if node.operator == "Gemm" and node.parameters.get("weight") in own.by_name
    ]
    turns = _turns(reference, own)
    for extra, count in product((0, 1), range(1, _TOGETHER + 1)):
        for some in combinations(layers, count):
            readers: Sequence[Node | None] = [n for n in layers if n not in some] if extra else [None]
            for reader, turn in product(readers, turns):
                if layouts := _turned(own, binding, some, reader, turn):
                    yield replace(binding, parameters={**binding.parameters, **layouts})


def _turns(one: Schema, two: Schema) -> list[_Turn]:
    """Changes of two lengths that either model takes something apart by, and of halves."""
    lengths = {2}
    for node in (*one.nodes, *two.nodes):
        shape = node.attributes.get("shape") if node.operator == "Reshape" else ()
        lengths |= {int(n) for n in shape if n > 1} if isinstance(shape, tuple) else set()
    every = sorted(lengths)
    return sorted(product(every, every, (1, *every)), key=lambda turn: turn[0] * turn[1] * turn[2])


def _turned(
    own: Schema, binding: Binding, some: Sequence[Node], reader: Node | None, turn: _Turn
) -> dict[str, Layout]:
    """Layouts of what is turned; none if the lengths do not divide one of them, or another order would be the same."""
    axes = [
        (node.parameters[role], 0) for node in some for role in ("weight", "bias") if role in node.parameters
    ]
    axes += [(reader.parameters["weight"], 1)] if reader else []
    found: dict[str, Layout] = {}
    for name, axis in axes:
        length, size = own.by_name[name].shape[axis], turn[0] * turn[1] * turn[2]
        if name in found or length % size:
            return {}
        segment = Segment((length // size, *turn), (0, 2, 1, 3))
        found[name] = Reorder(binding.parameters[name], axis, (segment,))
    return found
