"""Several linear layers of one input, joined again, are one."""

from __future__ import annotations

from dataclasses import replace

from xbackend_fl.canonical.draft import Draft, Graph
from xbackend_fl.canonical.layout import Join
from xbackend_fl.canonical.passes.common import feature_axis, features_first
from xbackend_fl.canonical.row import OPAQUE


def join_linears(graph: Graph) -> tuple[Draft, ...]:
    """Join the parameters of layers whose results are joined."""
    new: dict[str, Draft] = {}
    for draft in graph.drafts:
        if draft.operator != "Concat" or any(graph.only_reader(value) is not draft for value in draft.inputs):
            continue
        if any(reader.operator == OPAQUE for reader in graph.readers[draft.outputs[0]]):
            # Nothing cuts the layers apart again behind it, where another model has them so.
            continue
        joined = _joined(draft, [graph.producers[v] for v in draft.inputs if v in graph.producers])
        if joined is not None:
            new[draft.name] = joined
    return tuple(new.get(draft.name, draft) for draft in graph.drafts)


def _joined(concat: Draft, parts: list[Draft]) -> Draft | None:
    if len(parts) != len(concat.inputs) or len(parts) < 2:
        return None
    first = parts[0]
    alike = all(
        (part.operator, part.inputs, part.attributes, part.layouts.keys())
        == (first.operator, first.inputs, first.attributes, first.layouts.keys())
        for part in parts
    )
    if not alike or not features_first(first) or first.attributes.get("group", 1) != 1:
        return None
    if concat.attributes["axis"] != feature_axis(first):
        return None
    layouts = {role: Join(tuple(part.layouts[role] for part in parts), 0) for role in first.layouts}
    return replace(first, outputs=concat.outputs, layouts=layouts, shapes=concat.shapes)
