"""One position of an axis is picked, and never cut; a slice of a concatenation that one part fills is that part.

What is picked of an axis that was turned round is picked from its other end.
"""

from __future__ import annotations

from dataclasses import replace

from xbackend_fl.canonical.draft import Draft, Graph, free_sizes
from xbackend_fl.canonical.passes.common import bounds
from xbackend_fl.canonical.passes.edit import Edit


def cut_concatenations(graph: Graph) -> tuple[Draft, ...]:
    """The parts of a concatenation in place of slices of it."""
    edit = Edit(graph)
    for draft in graph.drafts:
        edit.keep(_of_parts(edit, draft) or draft)
    return tuple(edit.drafts)


def pick_single_positions(graph: Graph) -> tuple[Draft, ...]:
    """Select in place of a Slice of length one."""
    edit = Edit(graph)
    for draft in graph.drafts:
        if draft.operator != "Slice" or bounds(draft)[1] - bounds(draft)[0] != 1:
            edit.keep(draft)
            continue
        axis, (start, _) = draft.attributes["axis"], bounds(draft)
        assert isinstance(axis, int)
        length = edit.shape(draft.inputs[0])[axis]
        short = tuple(n for place, n in enumerate(draft.shape) if place != axis)
        index = start if start != length - 1 else -1
        picked = edit.make(draft, "Select", draft.inputs, short, {"axis": axis, "index": index})
        sizes = {"shape": free_sizes(short, draft.shape)}
        edit.keep(replace(draft, operator="Reshape", inputs=(picked,), attributes=sizes))
    return tuple(edit.drafts)


def pick_from_the_other_end(graph: Graph) -> tuple[Draft, ...]:
    """A Select of what a Flip reads in place of a Select of what it makes."""
    edit = Edit(graph)
    for draft in graph.drafts:
        flip = edit.producer(draft.inputs[0]) if draft.operator == "Select" else None
        if flip is None or flip.operator != "Flip":
            edit.keep(draft)
            continue
        rank, index = len(flip.shape), int(str(draft.attributes["index"]))
        axis = int(str(draft.attributes["axis"]))
        if int(str(flip.attributes["axis"])) % rank != axis:
            edit.keep(draft)
            continue
        place = (-1 - index) % flip.shape[axis]
        other = -1 if place == flip.shape[axis] - 1 else place
        edit.keep(replace(draft, inputs=flip.inputs, attributes={"axis": axis, "index": other}))
    return tuple(edit.drafts)


def _of_parts(edit: Edit, draft: Draft) -> Draft | None:
    """What a Slice or a Select takes of one part of a concatenation."""
    source = edit.producer(draft.inputs[0]) if draft.operator in {"Slice", "Select"} else None
    if source is None or source.operator != "Concat" or source.attributes["axis"] != draft.attributes["axis"]:
        return None
    axis = draft.attributes["axis"]
    assert isinstance(axis, int)
    length = source.shape[axis]
    if draft.operator == "Select":
        index = int(str(draft.attributes["index"])) % length
        start, stop = index, index + 1
    else:
        start, stop = bounds(draft)
        if draft.attributes["step"] != 1:
            return None
    offset = 0
    for part in source.inputs:
        size = edit.shape(part)[axis]
        if offset <= start and stop <= offset + size:
            return _within(edit, draft, part, start - offset, stop - offset)
        offset += size
    return None


def _within(edit: Edit, draft: Draft, part: str, start: int, stop: int) -> Draft:
    axis = draft.attributes["axis"]
    assert isinstance(axis, int)
    shape = edit.shape(part)
    if draft.operator == "Slice":
        if (start, stop) == (0, shape[axis]):
            return edit.renamed(draft, part)
        return replace(draft, inputs=(part,), attributes={**draft.attributes, "start": start, "stop": stop})
    if shape[axis] == 1:
        sizes = {"shape": free_sizes(shape, draft.shape)}
        return replace(draft, operator="Reshape", inputs=(part,), attributes=sizes)
    index = start if start != shape[axis] - 1 else -1
    return replace(draft, inputs=(part,), attributes={**draft.attributes, "index": index})
