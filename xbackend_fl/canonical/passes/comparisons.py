"""Comparisons of bounds: the smaller of two is less than a number where one of them is."""

from __future__ import annotations

import numpy as np

from xbackend_fl.canonical.draft import Draft, Graph
from xbackend_fl.canonical.passes.edit import Edit

_JOINED = {("Min", "Less"): "Or", ("Max", "Less"): "And", ("Min", "Greater"): "And", ("Max", "Greater"): "Or"}


def compare_before_bounds(graph: Graph) -> tuple[Draft, ...]:
    """``min(a, b) < 1`` as ``a < 1 or b < 1``: masks of whole numbers are put together by either."""
    edit = Edit(graph)
    for draft in graph.drafts:
        if draft.operator in {"Less", "Greater"} and "constant" in draft.attributes:
            source, chain = edit.behind_moves(draft.inputs[0])
            made = _compared(edit, draft, source)
            if made is not None:
                edit.keep(edit.renamed(draft, edit.moved(draft, made, chain)))
                continue
        edit.keep(draft)
    return tuple(edit.drafts)


def _compared(edit: Edit, near: Draft, value: str) -> str | None:
    """The comparison ``near`` of a bound, part by part; ``None`` if ``value`` is none."""
    bound = edit.producer(value)
    joined = None if bound is None else _JOINED.get((bound.operator, near.operator))
    if bound is None or joined is None or len(bound.inputs) != 2:
        return None
    parts = [_compared(edit, near, item) or _part(edit, near, item) for item in bound.inputs]
    return edit.make(near, joined, parts, bound.shape)


def _part(edit: Edit, near: Draft, value: str) -> str:
    draft = edit.producer(value)
    if draft is None or draft.operator != "Constant":
        return edit.make(near, near.operator, [value], edit.shape(value), near.attributes)
    numbers, other = np.asarray(draft.attributes["value"]), float(str(near.attributes["constant"]))
    holds = numbers < other if near.operator == "Less" else numbers > other
    attributes = {**draft.attributes, "value": tuple(int(n) for n in holds), "dtype": "bool"}
    return edit.make(near, "Constant", [], draft.shape, attributes)
