"""A transposed convolution that is cropped has longer pads."""

from __future__ import annotations

from dataclasses import replace

from xbackend_fl.canonical.draft import Draft, Graph
from xbackend_fl.canonical.passes.common import bounds
from xbackend_fl.canonical.value import numbers


def crop_transposed(graph: Graph) -> tuple[Draft, ...]:
    """Move a Slice into the pads of the transposed convolution in front of it."""
    new: dict[str, Draft] = {}
    for draft in graph.drafts:
        source = graph.producers.get(draft.inputs[0]) if draft.operator == "Slice" else None
        source = source and new.get(source.name, source)
        if (
            source is None
            or source.operator != "ConvTranspose"
            or graph.only_reader(draft.inputs[0]) is not draft
        ):
            continue
        axis, (start, stop) = draft.attributes["axis"], bounds(draft)
        if not isinstance(axis, int) or axis < 2 or draft.attributes["step"] != 1:
            continue
        pads, rank = list(numbers(source.attributes["pads"])), len(source.shape) - 2
        pads[axis - 2] += start
        pads[axis - 2 + rank] += source.shape[axis] - stop
        attributes = {**source.attributes, "pads": tuple(int(n) for n in pads)}
        new[draft.name] = replace(source, outputs=draft.outputs, shapes=draft.shapes, attributes=attributes)
    return tuple(new.get(draft.name, draft) for draft in graph.drafts)
