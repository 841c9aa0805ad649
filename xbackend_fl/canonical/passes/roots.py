"""Squares, roots and reciprocals in one form: ``x · x`` is a power, and ``a / sqrt(v)`` is ``a · v^-0.5``."""

from __future__ import annotations

from dataclasses import replace

from xbackend_fl.canonical.draft import Draft, Graph
from xbackend_fl.canonical.passes.edit import Edit


def settle_roots(graph: Graph) -> tuple[Draft, ...]:
    """Powers where a model multiplies by itself or divides by a root, and quotients where it multiplies by a reciprocal."""
    edit = Edit(graph)
    for draft in graph.drafts:
        edit.keep(_settled(edit, draft))
    return tuple(edit.drafts)


def _settled(edit: Edit, draft: Draft) -> Draft:
    match draft.operator, draft.inputs:
        case "Mul", (one, two) if one == two:
            return replace(draft, operator="Pow", inputs=(one,), attributes={"constant": 2.0})
        case "Reciprocal", (value,) if (inner := _root(edit, draft, value)) is not None:
            return replace(draft, operator="Pow", inputs=(inner,), attributes={"constant": -0.5})
        case "Div", (value, divisor) if (inner := _root(edit, draft, divisor)) is not None:
            inverse = edit.make(draft, "Pow", [inner], edit.shape(inner), {"constant": -0.5})
            return replace(draft, operator="Mul", inputs=(value, inverse))
        case "Mul", (one, two):
            for value, other in ((one, two), (two, one)):
                source, chain = edit.behind_moves(other)
                inner_draft = edit.producer(source)
                if inner_draft is not None and inner_draft.operator == "Reciprocal":
                    divisor = edit.moved(draft, inner_draft.inputs[0], chain)
                    return replace(draft, operator="Div", inputs=(value, divisor))
    return draft


def _root(edit: Edit, near: Draft, value: str) -> str | None:
    """What ``value`` is the square root of."""
    source, chain = edit.behind_moves(value)
    draft = edit.producer(source)
    if draft is None or draft.operator != "Sqrt":
        return None
    return edit.moved(near, draft.inputs[0], chain)
