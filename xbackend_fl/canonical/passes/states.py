"""The last step of a recurrent layer's sequence is its state; a memory that nobody reads is no output."""

from __future__ import annotations

from dataclasses import replace

from xbackend_fl.canonical.draft import Draft, Graph
from xbackend_fl.canonical.ops import has
from xbackend_fl.canonical.passes.edit import Edit
from xbackend_fl.canonical.row import Property

_LAST = {"forward": -1, "reverse": 0}
"""Where the sequence of a layer of one direction holds its last step."""


def read_last_states(graph: Graph) -> tuple[Draft, ...]:
    """The state in place of the last step of a sequence, and the outputs that are read."""
    edit = Edit(graph)
    for draft in graph.drafts:
        state = _state(graph, draft)
        if state is not None:
            edit.keep(edit.renamed(draft, state))
        elif (
            has(draft.operator, Property.RECURRENT)
            and len(draft.outputs) > 2
            and not _is_read(graph, draft.outputs[2])
        ):
            edit.keep(replace(draft, outputs=draft.outputs[:2], shapes=draft.shapes[:2]))
        else:
            edit.keep(draft)
    return tuple(edit.drafts)


def _state(graph: Graph, draft: Draft) -> str | None:
    """The state that a Select of a sequence is."""
    if draft.operator != "Select" or draft.attributes["axis"] != 1:
        return None
    layer = graph.producers.get(draft.inputs[0])
    if layer is None or not has(layer.operator, Property.RECURRENT) or layer.outputs[0] != draft.inputs[0]:
        return None
    last = _LAST.get(str(layer.attributes["direction"]))
    return layer.outputs[1] if draft.attributes["index"] == last else None


def _is_read(graph: Graph, value: str) -> bool:
    return bool(graph.readers[value]) or value in graph.outputs
