"""Vectors of length one: ``x / |x|``, with whatever small number keeps it from dividing by zero."""

from __future__ import annotations

from dataclasses import replace

from xbackend_fl.canonical.draft import Draft, Graph
from xbackend_fl.canonical.passes.edit import Edit

SMALL = 1e-6
"""A number that guards a division and is no part of the function where anything is divided."""


def name_unit_vectors(graph: Graph) -> tuple[Draft, ...]:
    """LpNormalization in place of its formulas."""
    edit = Edit(graph)
    for draft in graph.drafts:
        edit.keep(_unit(edit, draft) or draft)
    return tuple(edit.drafts)


def _unit(edit: Edit, draft: Draft) -> Draft | None:
    if len(draft.inputs) != 2 or draft.operator not in {"Mul", "Div"}:
        return None
    value, other = draft.inputs
    pairs = [(value, other)] if draft.operator == "Div" else [(value, other), (other, value)]
    for vector, size in pairs:
        total = _size(edit, size) if draft.operator == "Div" else _inverse_size(edit, size)
        axis = None if total is None else _summed_squares(edit, total, vector)
        if axis is not None:
            place = axis - len(draft.shape)
            return replace(draft, operator="LpNormalization", inputs=(vector,), attributes={"axis": place})
    return None


def _size(edit: Edit, value: str) -> str | None:
    """The sum of squares of which ``value`` is the root."""
    draft = edit.producer(_unguarded(edit, value))
    return draft.inputs[0] if draft is not None and draft.operator == "Sqrt" else None


def _inverse_size(edit: Edit, value: str) -> str | None:
    """The sum of squares of which ``value`` is the inverse root, also where that is bounded above."""
    draft = edit.producer(edit.behind_moves(value)[0])
    if draft is not None and draft.operator == "Clip" and "min" not in draft.attributes:
        draft = edit.producer(edit.behind_moves(draft.inputs[0])[0])
    if draft is not None and draft.operator == "Pow" and draft.attributes.get("constant") == -0.5:
        return draft.inputs[0]
    return None


def _unguarded(edit: Edit, value: str) -> str:
    """``value`` before a small number is added to it, or bounds it below."""
    source, _ = edit.behind_moves(value)
    draft = edit.producer(source)
    if draft is None:
        return source
    bound = (
        draft.attributes.get("min") if draft.operator == "Clip" and "max" not in draft.attributes else None
    )
    if draft.operator == "Add":
        bound = draft.attributes.get("constant")
    small = bound is not None and 0.0 < float(str(bound)) <= SMALL
    return _unguarded(edit, draft.inputs[0]) if small else source


def _summed_squares(edit: Edit, total: str, vector: str) -> int | None:
    """The axis along which ``total`` sums the squares of ``vector``."""
    draft = edit.producer(_unguarded(edit, total))
    if draft is None or draft.operator != "ReduceSum":
        return None
    axes = draft.attributes["axes"]
    assert isinstance(axes, tuple)
    square = edit.producer(draft.inputs[0])
    if square is None or square.operator != "Pow" or square.attributes.get("constant") != 2.0:
        return None
    return int(axes[0]) if len(axes) == 1 and square.inputs == (vector,) else None
