"""A dense layer whose rows are merged in front of it and taken apart behind it is a layer over the last axis."""

from __future__ import annotations

from dataclasses import replace

from xbackend_fl.canonical.draft import Draft, Graph
from xbackend_fl.canonical.passes.edit import Edit


def keep_rows_apart(graph: Graph) -> tuple[Draft, ...]:
    """``reshape(linear(reshape(x, (-1, features))), (*x.shape[:-1], out))`` as ``linear(x)``."""
    shapes = Edit(graph)
    new: dict[str, Draft] = {}
    gone: set[str] = set()
    for back in graph.drafts:
        linear = graph.producers.get(back.inputs[0]) if back.operator == "Reshape" else None
        if linear is None or linear.operator != "Gemm" or graph.only_reader(back.inputs[0]) is not back:
            continue
        merged = graph.producers.get(linear.inputs[0])
        if merged is None or merged.operator != "Reshape":
            continue
        source = shapes.shape(merged.inputs[0])
        if (*source[:-1], linear.shape[-1]) == back.shape and source[-1] == merged.shape[-1]:
            inputs = (merged.inputs[0], *linear.inputs[1:])
            new[linear.name] = replace(linear, inputs=inputs, outputs=back.outputs, shapes=(back.shape,))
            gone.add(back.name)
    return tuple(new.get(draft.name, draft) for draft in graph.drafts if draft.name not in gone)
