"""A table of one row, added to a table of many, is a part of it: token types where there is but one.

Of the two only the sum is a function of the model, as of two biases of a recurrent layer; another model holds one table there. The
row goes into the smallest table of the sum.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator
from dataclasses import replace

from xbackend_fl.canonical.draft import Draft, Graph
from xbackend_fl.canonical.layout import Repeat, Sum, leaves
from xbackend_fl.canonical.passes.edit import Edit, axes_of, with_ones

_MOVES = frozenset({"Reshape", "Transpose", "Expand", "Identity", "Slice"})


def add_single_rows(graph: Graph) -> tuple[Draft, ...]:
    """Sums of tables with a table of one row in one of the others."""
    new: dict[str, Draft] = {}
    tensors = Counter(
        leaf.tensor for draft in graph.drafts for layout in draft.layouts.values() for leaf in leaves(layout)
    )
    for draft in graph.drafts:
        if draft.operator != "Gather" or not draft.layouts or not _is_single(draft):
            continue
        addition, own = _added(graph, draft)
        if addition is None or own is None:
            continue
        (rest,) = (value for value in addition.inputs if value != own[0])
        tables = [
            table
            for table, behind in _embeddings(graph, addition, own[0])
            if behind == own[1]
            and table.name not in new
            and all(tensors[leaf.tensor] == 1 for leaf in leaves(table.layouts["weight"]))
        ]
        alone = all(tensors[leaf.tensor] == 1 for leaf in leaves(draft.layouts["weight"]))
        if not tables or not alone or _shape(graph, rest) != addition.shape or addition.name in new:
            continue
        table = min(tables, key=lambda one: one.layouts["weight"].shape[0])
        weight = table.layouts["weight"]
        row = Repeat(draft.layouts["weight"], weight.shape[0])
        new[table.name] = replace(table, layouts={**table.layouts, "weight": Sum((weight, row))})
        new[addition.name] = Edit(graph).renamed(addition, rest)
    return tuple(new.get(draft.name, draft) for draft in graph.drafts)


def _is_single(draft: Draft) -> bool:
    return draft.layouts["weight"].shape[0] == 1 and draft.attributes.get("padding_idx", -1) == -1


def _added(graph: Graph, table: Draft) -> tuple[Draft | None, tuple[str, int] | None]:
    """The sum that alone reads a table's rows, which term of it they are, and how far from its last axis their features lie."""
    value = table.outputs[0]
    chain = [table]
    while (reader := graph.only_reader(value)) is not None:
        if reader.operator == "Add" and len(reader.inputs) == 2:
            behind = _features(graph, chain)
            return (None, None) if behind is None else (reader, (value, behind))
        if reader.operator not in _MOVES:
            break
        chain.append(reader)
        value = reader.outputs[0]
    return None, None


def _features(graph: Graph, chain: list[Draft]) -> int | None:
    """How far from the last axis the features of a table are, behind nodes that move its rows; ``None`` if they are taken apart."""
    table = chain[0]
    axis = len(table.shape) - 1
    for draft in chain[1:]:
        before = _shape(graph, draft.inputs[0])
        if draft.operator == "Transpose":
            axis = axes_of(draft).index(axis)
        elif draft.operator == "Reshape":
            places = with_ones(before, draft.shape)
            if places is None or axis not in places:
                return None
            axis = places.index(axis)
        elif draft.operator == "Slice" and draft.attributes["axis"] == axis:
            return None
    last = chain[-1].shape
    return len(last) - axis if last[axis] == table.layouts["weight"].shape[-1] else None


def _embeddings(graph: Graph, addition: Draft, own: str) -> Iterator[tuple[Draft, int]]:
    """Tables of rows among the terms of a sum, inner sums and the sums that alone read it included, but for one term."""
    top = addition
    while (reader := graph.only_reader(top.outputs[0])) is not None and _is_sum(reader):
        top = reader
    waiting = [value for value in top.inputs if value != own]
    while waiting:
        value = waiting.pop()
        draft, chain = graph.producers.get(value), list[Draft]()
        while draft is not None and draft.operator in _MOVES and graph.only_reader(draft.outputs[0]):
            chain.insert(0, draft)
            draft = graph.producers.get(draft.inputs[0])
        if draft is None or graph.only_reader(draft.outputs[0]) is None:
            continue
        if not chain and _is_sum(draft):
            waiting += [item for item in draft.inputs if item != own]
        elif draft.operator in {"Gather", "Parameter"} and len(draft.layouts["weight"].shape) == 2:
            behind = _features(graph, [draft, *chain])
            if behind is not None:
                yield draft, behind


def _is_sum(draft: Draft) -> bool:
    return draft.operator == "Add" and len(draft.inputs) == 2


def _shape(graph: Graph, value: str) -> tuple[int, ...]:
    draft = graph.producers.get(value)
    return graph.inputs[value][0] if draft is None else draft.shapes[draft.outputs.index(value)]
