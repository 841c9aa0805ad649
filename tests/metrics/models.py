"""Schemas of models with an output of a given shape, for tests of what reads outputs."""

from __future__ import annotations

from xbackend_fl.canonical import Schema
from xbackend_fl.canonical.node import Node
from xbackend_fl.canonical.schema import Port


def schema_with(output: tuple[int, ...], *nodes: Node) -> Schema:
    """A model whose output has this shape beside the batch axis; its last nodes may be given."""
    name = nodes[-1].outputs[0] if nodes else "y"
    ports = Port("x", "float32", (2, 3)), Port(name, "float32", (2, *output))
    return Schema((ports[0],), (ports[1],), nodes, ())
