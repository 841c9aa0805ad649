"""Tables of which one model reads the rows from the first on, and the other those behind some that no text reaches.

Places that are counted from two on leave two rows in front, which nobody reads whatever the length of a text. The rows that are read
are the same on both sides, and the rest is no part of the function.
"""

from __future__ import annotations

from collections import Counter, defaultdict
from collections.abc import Iterator
from dataclasses import dataclass, replace

import numpy as np

from xbackend_fl.canonical import Description, Node, Schema, views
from xbackend_fl.canonical.layout import Constant, Join, Layout, Shape


@dataclass(frozen=True)
class _Read:
    """The rows ``start:stop`` of a table, and how many there are behind ``start``, with their shape."""

    start: int
    stop: int
    behind: int
    row: Shape

    def as_far(self, other: _Read) -> bool:
        """Whether both read as many rows of as many behind the first one that is read."""
        one, two = ((x.stop - x.start, x.behind, x.row) for x in (self, other))
        return one == two and self.start != other.start and 0 in (self.start, other.start)


def match_embeddings(reference: Schema, description: Description) -> tuple[Description, tuple[str, ...]]:
    """A candidate whose tables have as many rows in front of those that are read as the reference's have, and a note for each.

    Args:
        reference: The reference's schema.
        description: The candidate's own.
    """
    ours, theirs = _embeddings(reference), _embeddings(description.schema)
    free = Counter(ours.values()) - Counter(theirs.values())
    notes = []
    for name, read in theirs.items():
        fitting = {other for other in free if read.as_far(other)}
        if len(fitting) != 1 or read in ours.values():
            continue
        (wanted,) = fitting
        native = description.binding.nodes.get(name, name)
        description = _with_front(description, name, read.start, wanted.start)
        rows = max(read.start, wanted.start)
        holder, other = ("the reference", "here") if wanted.start else ("this model", "in the reference")
        notes.append(
            f"{native}: no input reads the first {rows} rows that {holder} has in front and that are absent {other}; they are zeros "
            "in weights that move between both"
        )
    return description, tuple(notes)


def _embeddings(schema: Schema) -> dict[str, _Read]:
    """Every parameter that is data and of which one range of rows is read, by the name of its node."""
    readers: dict[str, list[Node]] = defaultdict(list)
    for node in schema.nodes:
        for value in node.inputs:
            readers[value].append(node)
    returned = {port.name for port in schema.outputs}
    found: dict[str, _Read] = {}
    for node in schema.nodes:
        if node.operator != "Parameter" or not returned.isdisjoint(node.outputs):
            continue
        shape = schema.by_name[node.parameters["weight"]].shape
        if len(shape) < 2:
            continue
        rows, row = shape[0], shape[1:]
        ranges = {_range(reader, rows) for reader in readers[node.outputs[0]]}
        if len(ranges) == 1:
            ((start, stop),) = ranges
            found[node.name] = _Read(start, stop, rows - start, row)
    return found


def _range(reader: Node, rows: int) -> tuple[int, int]:
    a = reader.attributes
    if reader.operator != "Slice" or a["axis"] != 0 or a["step"] != 1:
        return 0, rows
    start, stop = int(str(a["start"])), int(str(a["stop"]))
    return start, min(stop, rows)


def _with_front(description: Description, name: str, start: int, wanted: int) -> Description:
    """The description with so many rows in front of those that are read of one table."""
    schema, binding = description.schema, description.binding
    table = next(node for node in schema.nodes if node.name == name)
    weight = table.parameters["weight"]
    layout = _moved(binding.parameters[weight], wanted - start)
    parameters = tuple(
        replace(one, shape=layout.shape) if one.name == weight else one for one in schema.parameters
    )
    rows = schema.by_name[weight].shape[0]
    nodes = tuple(_shifted(schema.nodes, table, rows, wanted - start))
    changed = replace(schema, parameters=parameters, nodes=nodes)
    layouts = {**binding.parameters, weight: layout}
    return replace(
        description,
        schema=changed,
        binding=replace(binding, parameters=layouts, fingerprint=changed.fingerprint),
    )


def _moved(layout: Layout, rows: int) -> Layout:
    """A table with more rows of zeros in front, or fewer rows."""
    if rows < 0:
        return views.slice_axis(layout, 0, -rows, layout.shape[0])
    shape = (rows, *layout.shape[1:])
    return Join((Constant(shape, (0.0,) * int(np.prod(shape))), layout), 0)


def _shifted(nodes: tuple[Node, ...], table: Node, rows: int, by: int) -> Iterator[Node]:
    """The nodes with the same rows of the table read: where it is read whole on one side, a slice comes or goes."""
    (value,) = table.outputs
    short = f"{value}.rows"
    for node in nodes:
        if node is table:
            yield node
            if not any(one.operator == "Slice" and value in one.inputs for one in nodes):
                attributes = {"axis": 0, "start": by, "stop": by + rows, "step": 1}
                yield Node(short, "Slice", (value,), (short,), {}, attributes)
        elif value not in node.inputs:
            yield node
        elif node.operator == "Slice":
            start, stop = _range(node, rows)
            if (start + by, stop + by) == (0, rows + by):
                yield replace(node, operator="Identity", attributes={})
            else:
                yield replace(node, attributes={**node.attributes, "start": start + by, "stop": stop + by})
        else:
            yield replace(node, inputs=tuple(short if one == value else one for one in node.inputs))
