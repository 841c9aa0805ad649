"""Bounds in several steps are one: ``min(max(x, a), b)`` is ``clip(x, a, b)``, and zero below alone is a ReLU."""

from __future__ import annotations

import math
from dataclasses import replace

from xbackend_fl.canonical.draft import Draft, Graph
from xbackend_fl.canonical.node import AttributeValue


def merge_bounds(graph: Graph) -> tuple[Draft, ...]:
    """One node for bounds of bounds."""
    producers = dict(graph.producers)
    drafts = []
    for draft in graph.drafts:
        new = draft
        own, inner = _bounds(draft), None
        source = producers.get(draft.inputs[0]) if own is not None and draft.inputs else None
        inner = None if source is None else _bounds(source)
        if own is not None and inner is not None and source is not None:
            low, high = max(own[0], inner[0]), min(own[1], inner[1])
            if low < high:
                new = _bounded(replace(draft, inputs=source.inputs), low, high)
        elif own is not None:
            new = _bounded(draft, *own)
        producers |= dict.fromkeys(new.outputs, new)
        drafts.append(new)
    return tuple(drafts)


def _bounds(draft: Draft) -> tuple[float, float] | None:
    if draft.operator == "Relu":
        return 0.0, math.inf
    if draft.operator != "Clip":
        return None
    low, high = draft.attributes.get("min", -math.inf), draft.attributes.get("max", math.inf)
    return float(str(low)), float(str(high))


def _bounded(draft: Draft, low: float, high: float) -> Draft:
    if (low, high) == (0.0, math.inf):
        return replace(draft, operator="Relu", attributes={})
    attributes: dict[str, AttributeValue] = {}
    if low != -math.inf:
        attributes["min"] = low
    if high != math.inf:
        attributes["max"] = high
    return replace(draft, operator="Clip", attributes=attributes)
