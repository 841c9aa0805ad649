"""Constant factors of a product of matrices stand behind it, once: ``(s · q) @ kᵀ`` is ``s · (q @ kᵀ)``."""

from __future__ import annotations

from dataclasses import replace

from xbackend_fl.canonical.draft import Draft, Graph
from xbackend_fl.canonical.passes.edit import Edit


def pull_scales(graph: Graph) -> tuple[Draft, ...]:
    """Factors of the operands of a MatMul behind it, and factors of factors as one."""
    edit = Edit(graph)
    for draft in graph.drafts:
        if draft.operator == "MatMul":
            _product(edit, draft)
        elif _factor(draft) is not None:
            edit.keep(_merged(edit, draft))
        else:
            edit.keep(draft)
    return tuple(edit.drafts)


def _factor(draft: Draft | None) -> float | None:
    if draft is None or draft.operator != "Mul" or "constant" not in draft.attributes:
        return None
    return float(str(draft.attributes["constant"]))


def _product(edit: Edit, draft: Draft) -> None:
    values, scale = [], 1.0
    for value in draft.inputs:
        source, chain = edit.behind_moves(value)
        inner = edit.producer(source)
        factor = _factor(inner)
        if inner is None or factor is None:
            values.append(value)
            continue
        scale *= factor
        values.append(edit.moved(draft, inner.inputs[0], chain))
    if scale == 1.0:
        edit.keep(replace(draft, inputs=tuple(values)))
        return
    bare = edit.make(draft, "MatMul", values, draft.shape)
    edit.keep(replace(draft, operator="Mul", inputs=(bare,), attributes={"constant": scale}))


def _merged(edit: Edit, draft: Draft) -> Draft:
    inner = edit.producer(draft.inputs[0])
    factor, own = _factor(inner), _factor(draft)
    if inner is None or factor is None or own is None:
        return draft
    return replace(draft, inputs=inner.inputs, attributes={"constant": own * factor})
