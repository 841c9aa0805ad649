"""A slice of a slice is one, and what is computed for every element of a layer is computed for each part that is taken of it."""

from __future__ import annotations

from dataclasses import replace

from xbackend_fl.canonical.draft import Draft, Graph
from xbackend_fl.canonical.ops import has
from xbackend_fl.canonical.passes.common import bounds
from xbackend_fl.canonical.passes.cuts import is_linear
from xbackend_fl.canonical.passes.edit import Edit
from xbackend_fl.canonical.row import Property


def slice_before_functions(graph: Graph) -> tuple[Draft, ...]:
    """Functions of the parts of a linear layer in place of parts of a function of it."""
    edit = Edit(graph)
    for draft in graph.drafts:
        function = graph.producers.get(draft.inputs[0]) if _is_range(draft) else None
        if function is None or not _is_cut(graph, function):
            edit.keep(draft)
            continue
        part = edit.make(draft, "Slice", function.inputs, draft.shape, draft.attributes)
        edit.keep(replace(draft, operator=function.operator, inputs=(part,), attributes=function.attributes))
    merged = Edit(Graph(tuple(edit.drafts), graph.outputs, graph.inputs))
    for draft in edit.drafts:
        merged.keep(_of_slice(merged, draft) if _is_range(draft) else draft)
    return tuple(merged.drafts)


def _is_range(draft: Draft) -> bool:
    return draft.operator == "Slice" and draft.attributes["step"] == 1


def _is_cut(graph: Graph, function: Draft) -> bool:
    """Whether a function of every element of a linear layer is read in ranges of one axis alone."""
    value = function.outputs[0]
    readers = graph.readers[value]
    return (
        has(function.operator, Property.GATES)
        and value not in graph.outputs
        and is_linear(graph, function.inputs[0])
        and all(_is_range(reader) for reader in readers)
        and len({reader.attributes["axis"] for reader in readers}) == 1
    )


def _of_slice(edit: Edit, draft: Draft) -> Draft:
    source = edit.producer(draft.inputs[0])
    if source is None or not _is_range(source) or source.attributes["axis"] != draft.attributes["axis"]:
        return draft
    offset, (start, stop) = bounds(source)[0], bounds(draft)
    moved = {**draft.attributes, "start": start + offset, "stop": stop + offset}
    return replace(draft, inputs=source.inputs, attributes=moved)
