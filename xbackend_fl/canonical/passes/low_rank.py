"""A layer whose weight is a sum with a product of two parameters is a sum of layers: low-rank adapters in either spelling.

``x·(W + s·A·B)``, as Keras writes it, and ``x·W + s·(x·A)·B``, as PEFT does, are one function with one gradient for each parameter.
So is a table of ids.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace

from xbackend_fl.canonical import views
from xbackend_fl.canonical.draft import Draft, Graph
from xbackend_fl.canonical.layout import Layout, Shape
from xbackend_fl.canonical.passes.edit import Edit


@dataclass(frozen=True)
class _Term:
    """``scale`` times a product of matrices ``[in, out]``, each under the name of its parameter, in the order in which data meets them."""

    scale: float
    factors: tuple[tuple[str, Layout], ...]

    def turned(self) -> _Term:
        """The term of the transposed matrix."""
        factors = ((name, views.transposed(layout, (1, 0))) for name, layout in reversed(self.factors))
        return replace(self, factors=tuple(factors))


def spread_low_rank(graph: Graph) -> tuple[Draft, ...]:
    """Layers in a row, and their sum, in place of one layer with a computed weight."""
    edit = Edit(graph)
    gone: set[str] = set()
    for draft in graph.drafts:
        if draft.name in gone:
            continue
        terms = _weight(edit, draft)
        if terms is None:
            edit.keep(draft)
        elif draft.operator == "MatMul":
            data, shape, last = _without_merging(edit, draft)
            gone |= {last.name} - {draft.name}
            parts = [_behind(edit, draft, data, shape[:-1], term) for term in terms]
            _add(edit, replace(last, shapes=(shape,)), parts)
        else:
            ids = edit.producer(draft.inputs[1])
            assert ids is not None
            _add(edit, draft, [_looked_up(edit, draft, ids.inputs[0], term) for term in terms])
    return tuple(edit.drafts)


def _weight(edit: Edit, draft: Draft) -> list[_Term] | None:
    """The weight of a layer, the product of the fewest parameters first; ``None`` where none of them is a product."""
    if draft.operator == "MatMul":
        data, weight = draft.inputs
        if len(edit.shape(data)) < 2 or _terms(edit, data) is not None:
            return None
    elif draft.operator == "GatherND" and not draft.attributes["batch_dims"]:
        weight, places = draft.inputs
        ids = edit.producer(places)
        if ids is None or ids.operator != "Reshape" or edit.shape(places) != (*edit.shape(ids.inputs[0]), 1):
            return None
    else:
        return None
    terms = _terms(edit, weight)
    if terms is None or all(len(term.factors) == 1 for term in terms):
        return None
    return sorted(terms, key=lambda term: len(term.factors))


def _terms(edit: Edit, value: str) -> list[_Term] | None:
    """A matrix as a sum of products of parameters; ``None`` if it is something else."""
    draft = edit.producer(value)
    if draft is None or len(draft.shape) != 2:
        return None
    inner = [_terms(edit, item) for item in draft.inputs]
    found = [terms for terms in inner if terms is not None]
    if len(found) < len(inner):
        return None
    match draft.operator:
        case "Parameter":
            return [_Term(1.0, ((draft.name, draft.layouts["weight"]),))]
        case "Identity":
            return found[0]
        case "Transpose":
            return [term.turned() for term in found[0]]
        case "Mul" if isinstance(scale := draft.attributes.get("constant"), float) and len(found) == 1:
            return [replace(term, scale=term.scale * scale) for term in found[0]]
        case "Add" if len(found) == 2 and all(edit.shape(item) == draft.shape for item in draft.inputs):
            return [*found[0], *found[1]]
        case "MatMul" if all(len(terms) == 1 for terms in found):
            (one,), (two,) = found
            return [_Term(one.scale * two.scale, (*one.factors, *two.factors))]
    return None


def _without_merging(edit: Edit, product: Draft) -> tuple[str, Shape, Draft]:
    """What a product multiplies, the shape of what comes of it, and the node that yields it: without axes that are merged for it alone."""
    data = product.inputs[0]
    merging, parting = edit.producer(data), edit.graph.only_reader(product.outputs[0])
    if merging is not None and merging.operator == "Reshape" and parting is not None:
        before = edit.shape(merging.inputs[0])
        shape = (*before[:-1], product.shape[-1])
        if parting.operator == "Reshape" and parting.shape == shape and before[-1] == edit.shape(data)[-1]:
            return merging.inputs[0], shape, parting
    return data, product.shape, product


def _behind(edit: Edit, near: Draft, data: str, lead: Shape, term: _Term) -> str:
    """Data behind the dense layers of a term."""
    for name, layout in term.factors:
        weight = {"weight": views.transposed(layout, (1, 0))}
        data = edit.make(near, "Gemm", [data], (*lead, layout.shape[1]), layouts=weight, name=name)
    return _scaled(edit, near, data, term)


def _looked_up(edit: Edit, near: Draft, ids: str, term: _Term) -> str:
    """Rows of the first table of a term, behind the dense layers of the others."""
    (name, table), *rest = term.factors
    lead = edit.shape(ids)
    made = edit.make(near, "Gather", [ids], (*lead, table.shape[1]), layouts={"weight": table}, name=name)
    rows = _behind(edit, near, made, lead, _Term(1.0, tuple(rest)))
    return _scaled(edit, near, rows, term)


def _scaled(edit: Edit, near: Draft, value: str, term: _Term) -> str:
    if term.scale == 1.0:
        return value
    return edit.make(near, "Mul", [value], edit.shape(value), {"constant": term.scale})


def _add(edit: Edit, last: Draft, parts: Sequence[str]) -> None:
    """The sum of several values in place of a node."""
    total, *rest = parts
    for part in rest[:-1]:
        total = edit.make(last, "Add", [total, part], last.shape)
    if not rest:
        edit.keep(edit.renamed(last, total))
        return
    edit.keep(replace(last, operator="Add", inputs=(total, rest[-1]), layouts={}, attributes={}))
