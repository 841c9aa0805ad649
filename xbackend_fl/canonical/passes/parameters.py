"""A parameter of which only rows are taken is a parameter for each row: first states of several layers, a weight for each gate."""

from __future__ import annotations

from dataclasses import replace

from xbackend_fl.canonical import views
from xbackend_fl.canonical.draft import Draft, Graph, free_sizes
from xbackend_fl.canonical.passes.edit import Edit


def pick_before_expanding(graph: Graph) -> tuple[Draft, ...]:
    """One row, repeated, in place of one row of what was repeated along another axis."""
    edit = Edit(graph)
    batch = next((shape[0] for shape, _ in graph.inputs.values() if shape), 0)
    for draft in graph.drafts:
        source = edit.producer(draft.inputs[0]) if draft.operator == "Select" else None
        axis = draft.attributes.get("axis")
        if source is None or source.operator != "Expand" or not isinstance(axis, int):
            edit.keep(draft)
            continue
        sizes = source.attributes["shape"]
        before = edit.shape(source.inputs[0])
        if not isinstance(sizes, tuple) or sizes[axis] != 1 or len(before) != len(sizes):
            edit.keep(draft)
            continue
        short = (*before[:axis], *before[axis + 1 :])
        picked = edit.make(draft, "Select", source.inputs, short, draft.attributes)
        rest = [int(n) for place, n in enumerate(sizes) if place != axis]
        if rest and rest[0] == batch > 1:
            # What was the second axis is the batch now.
            rest[0] = 0
        edit.keep(replace(draft, operator="Expand", inputs=(picked,), attributes={"shape": tuple(rest)}))
    return tuple(edit.drafts)


def cut_parameters(graph: Graph) -> tuple[Draft, ...]:
    """Parameters in place of rows of one, if every row is taken and nobody reads them together."""
    edit = Edit(graph)
    for draft in graph.drafts:
        source = edit.producer(draft.inputs[0]) if draft.operator == "Select" else None
        if source is None or not _is_taken_in_rows(graph, source):
            edit.keep(draft)
            continue
        axis, index = draft.attributes["axis"], draft.attributes["index"]
        assert isinstance(axis, int)
        assert isinstance(index, int)
        row = views.index(source.layouts["weight"], axis, index)
        keep = next((place for place, n in enumerate(row.shape) if n != 1), max(len(row.shape) - 1, 0))
        short = row.shape[keep:]
        made = replace(
            draft,
            operator="Parameter",
            inputs=(),
            layouts={"weight": views.reshaped(row, short)},
            attributes={},
            shapes=(short,),
        )
        if short == draft.shape:
            edit.keep(made)
            continue
        name = f"{draft.name}.row"
        edit.keep(replace(made, name=name, outputs=(name,)))
        sizes = {"shape": free_sizes(short, draft.shape)}
        edit.keep(replace(draft, operator="Reshape", inputs=(name,), attributes=sizes))
    return tuple(edit.drafts)


def _is_taken_in_rows(graph: Graph, draft: Draft) -> bool:
    value = draft.outputs[0]
    readers = graph.readers[value]
    if draft.operator != "Parameter" or value in graph.outputs:
        return False
    places = {(reader.operator, reader.attributes.get("axis")) for reader in readers}
    if len(places) != 1 or next(iter(places))[0] != "Select":
        return False
    axis = readers[0].attributes["axis"]
    assert isinstance(axis, int)
    length = draft.shape[axis]
    return {int(str(reader.attributes["index"])) % length for reader in readers} == set(range(length))
