"""Sums over an axis along which parts were joined, and products that sum over nothing else, are additions of the parts.

``stack(parts).sum``, ``sum(w[:, k] · part_k)`` and a product of a row with the joined parts are one function: a mixture.
"""

from __future__ import annotations

from dataclasses import replace

from xbackend_fl.canonical.draft import Draft, Graph, free_sizes
from xbackend_fl.canonical.node import AttributeValue
from xbackend_fl.canonical.passes.edit import Edit


def add_joined_parts(graph: Graph) -> tuple[Draft, ...]:
    """Additions in place of sums and means over a joined axis, also where its parts are weighted."""
    edit = Edit(graph)
    for draft in graph.drafts:
        parts = _parts(edit, draft) if draft.operator in {"ReduceSum", "ReduceMean"} else None
        if parts is None:
            edit.keep(draft)
            continue
        total = parts[0]
        for part in parts[1:]:
            total = edit.make(draft, "Add", [total, part], edit.shape(part))
        if draft.operator == "ReduceMean":
            total = edit.make(draft, "Mul", [total], edit.shape(total), {"constant": 1.0 / len(parts)})
        edit.keep(_shaped(edit, draft, total))
    return tuple(edit.drafts)


def _shaped(edit: Edit, draft: Draft, total: str) -> Draft:
    if edit.shape(total) == draft.shape:
        return edit.renamed(draft, total)
    return replace(
        draft,
        operator="Reshape",
        inputs=(total,),
        attributes={"shape": _sizes(edit.shape(total), draft.shape)},
    )


def _sizes(before: tuple[int, ...], after: tuple[int, ...]) -> tuple[int, ...]:
    return free_sizes(before, after)


def _parts(edit: Edit, reduction: Draft) -> list[str] | None:
    """What is added; every part has length one along the axis."""
    axes = reduction.attributes["axes"]
    assert isinstance(axes, tuple)
    if len(axes) != 1:
        return None
    axis = int(axes[0])
    source = edit.producer(reduction.inputs[0])
    if source is None:
        return None
    joined = _joined(source, axis, edit, reduction)
    if joined is not None:
        return list(joined)
    if source.operator != "Mul" or len(source.inputs) != 2:
        return None
    for value, weight in (source.inputs, source.inputs[::-1]):
        draft = edit.producer(value)
        joined = None if draft is None else _joined(draft, axis, edit, reduction)
        if joined is not None and len(edit.shape(weight)) == len(source.shape):
            return [_weighted(edit, source, part, weight, axis, place) for place, part in enumerate(joined)]
    return None


def _joined(draft: Draft, axis: int, edit: Edit, near: Draft) -> tuple[str, ...] | None:
    """Parts of length one along ``axis``: of a concatenation there, or of features that are split into parts again."""
    if draft.operator == "Concat" and draft.attributes["axis"] == axis:
        return draft.inputs if all(edit.shape(part)[axis] == 1 for part in draft.inputs) else None
    source = edit.producer(draft.inputs[0]) if draft.operator == "Reshape" else None
    if source is None or source.operator != "Concat" or source.attributes["axis"] != axis:
        return None
    short = (*draft.shape[:axis], *draft.shape[axis + 1 :])
    if draft.shape[axis] != len(source.inputs) or any(edit.shape(part) != short for part in source.inputs):
        return None
    grown = (*draft.shape[:axis], 1, *draft.shape[axis + 1 :])
    sizes = {"shape": free_sizes(short, grown)}
    return tuple(edit.make(near, "Reshape", [part], grown, sizes) for part in source.inputs)


def _weighted(edit: Edit, product: Draft, part: str, weight: str, axis: int, place: int) -> str:
    shape = edit.shape(weight)
    if shape[axis] != 1:
        short = (*shape[:axis], 1, *shape[axis + 1 :])
        attributes: dict[str, AttributeValue] = {"axis": axis, "start": place, "stop": place + 1, "step": 1}
        weight = edit.make(product, "Slice", [weight], short, attributes)
    made = (*product.shape[:axis], 1, *product.shape[axis + 1 :])
    return edit.make(product, "Mul", [part, weight], made)
