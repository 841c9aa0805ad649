"""A slice behind a convolution with zeros around is the convolution with fewer of them: a chomp is causal padding."""

from __future__ import annotations

from dataclasses import replace

from xbackend_fl.canonical.draft import Draft, Graph
from xbackend_fl.canonical.passes.common import bounds
from xbackend_fl.canonical.value import numbers


def trim_convolutions(graph: Graph) -> tuple[Draft, ...]:
    """Move a Slice into the pads of the convolution in front of it, where it takes no more than those made."""
    new: dict[str, Draft] = {}
    for draft in graph.drafts:
        source = graph.producers.get(draft.inputs[0]) if draft.operator == "Slice" else None
        source = source and new.get(source.name, source)
        if source is None or source.operator != "Conv" or graph.only_reader(draft.inputs[0]) is not draft:
            continue
        trimmed = _trimmed(draft, source)
        if trimmed is not None:
            new[draft.name] = trimmed
    return tuple(new.get(draft.name, draft) for draft in graph.drafts)


def _trimmed(cut: Draft, conv: Draft) -> Draft | None:
    axis, (start, stop) = cut.attributes["axis"], bounds(cut)
    if not isinstance(axis, int) or axis < 2 or cut.attributes["step"] != 1:
        return None
    place, rank = axis - 2, len(conv.shape) - 2
    pads = [int(n) for n in numbers(conv.attributes["pads"])]
    stride = int(numbers(conv.attributes["strides"])[place])
    pads[place] -= start * stride
    pads[place + rank] -= (conv.shape[axis] - stop) * stride
    if stride != 1 or min(pads[place], pads[place + rank]) < 0:
        return None
    return replace(
        conv,
        outputs=cut.outputs,
        shapes=cut.shapes,
        attributes={**conv.attributes, "pads": tuple(pads)},
    )
