"""What a model applies again and again, a cell written by hand, in the form that recurrent layers have.

A layer of input and state joined is a sum of a layer of each, and two biases of one sum are one: the second is kept at zero,
neither trained nor counted, as the second bias of an LSTM is. A cell that resets behind a product (a GRU) keeps all its biases, as the layer does.
"""

from __future__ import annotations

from collections import Counter, defaultdict
from collections.abc import Iterator
from dataclasses import replace

from xbackend_fl.canonical.draft import Draft, Graph
from xbackend_fl.canonical.layout import Layout, Sum, leaves
from xbackend_fl.canonical.passes.common import feature_axis, features_first
from xbackend_fl.canonical.passes.cuts import by_inputs
from xbackend_fl.errors import UnsupportedError


def pick_before_layers(graph: Graph) -> tuple[Draft, ...]:
    """A dense layer of one step in place of one step of a layer of all steps, where nobody reads them together.

    A cell written by hand often projects the whole series before its loop.
    """
    new: dict[str, list[Draft]] = {}
    for draft in graph.drafts:
        value, readers = draft.outputs[0], graph.readers[draft.outputs[0]]
        axes = {reader.attributes["axis"] if reader.operator == "Select" else None for reader in readers}
        if draft.operator != "Gemm" or len(axes) != 1 or value in graph.outputs:
            continue
        (axis,) = axes
        if not isinstance(axis, int) or axis == len(draft.shape) - 1:
            continue
        features = draft.layouts["weight"].shape[1]
        new[draft.name] = []
        for reader in readers:
            name = f"{reader.name}.picked"
            shape = (*reader.shape[:-1], features)
            picked = replace(reader, name=name, inputs=draft.inputs, outputs=(name,), shapes=(shape,))
            layer = replace(reader, operator="Gemm", inputs=(name,), layouts=draft.layouts, attributes={})
            new[reader.name] = [picked, layer]
    return tuple(made for draft in graph.drafts for made in new.get(draft.name, [draft]))


def split_repeated_layers(graph: Graph) -> tuple[Draft, ...]:
    """Sums of layers in place of a layer that reads concatenations, and nothing else, several times."""
    uses: dict[Layout, list[Draft]] = defaultdict(list)
    for draft in graph.drafts:
        if features_first(draft):
            uses[draft.layouts["weight"]].append(draft)
    new: dict[str, list[Draft]] = {}
    for drafts in uses.values():
        joined = [_joined(graph, draft) for draft in drafts]
        if len(drafts) < 2 or None in joined:
            continue
        try:
            made = {
                draft.name: list(by_inputs(graph, draft, concat))
                for draft, concat in zip(drafts, joined, strict=True)
                if concat is not None
            }
        except UnsupportedError:
            # A cut through a flattened axis has no layout; the layer stays as it is.
            continue
        used = [{part.layouts["weight"] for part in parts if part.layouts} for parts in made.values()]
        # Zeros in front of the first step leave out a part there; what is cut otherwise at each step is no loop.
        if all(cut <= max(used, key=len) for cut in used):
            for draft in drafts:
                *before, last = made[draft.name]
                new[draft.name] = [*before, replace(last, outputs=draft.outputs)]
    return tuple(made for draft in graph.drafts for made in new.get(draft.name, [draft]))


def _joined(graph: Graph, draft: Draft) -> Draft | None:
    source = graph.producers.get(draft.inputs[0])
    if source is None or source.operator != "Concat" or draft.attributes.get("group", 1) != 1:
        return None
    return source if source.attributes["axis"] == feature_axis(draft) else None


def merge_repeated_biases(graph: Graph) -> tuple[Draft, ...]:
    """One bias in place of several that are added to each other at every step."""
    if any(_resets_after(graph, draft) for draft in graph.drafts):
        return graph.drafts
    places = Counter(draft.layouts["bias"] for draft in graph.drafts if _is_biased(draft))
    together: Counter[tuple[Layout, ...]] = Counter()
    found: dict[str, tuple[Layout, ...]] = {}
    for draft in graph.drafts:
        if draft.operator == "Add" and not _is_part(graph, draft):
            terms = list(_terms(graph, draft))
            biases = tuple(term.layouts["bias"] for term in terms)
            if len(set(biases)) > 1:
                together[biases] += 1
                found |= {term.name: biases for term in terms}
    merged = {
        biases
        for biases, count in together.items()
        if count > 1 and all(places[bias] == count for bias in biases) and _alone(graph, biases)
    }
    return tuple(
        _merged(draft, found[draft.name]) if found.get(draft.name) in merged else draft
        for draft in graph.drafts
    )


def _merged(draft: Draft, biases: tuple[Layout, ...]) -> Draft:
    rest = {role: layout for role, layout in draft.layouts.items() if role != "bias"}
    return replace(
        draft, layouts={**rest, "bias": Sum(biases)} if draft.layouts["bias"] == biases[0] else rest
    )


def _alone(graph: Graph, biases: tuple[Layout, ...]) -> bool:
    """Whether nothing else holds these numbers, and no sum is among them already."""
    held = {leaf for bias in biases for leaf in leaves(bias)}
    others = (layout for draft in graph.drafts for layout in draft.layouts.values() if layout not in biases)
    return not any(isinstance(bias, Sum) for bias in biases) and held.isdisjoint(
        leaf for layout in others for leaf in leaves(layout)
    )


def _resets_after(graph: Graph, total: Draft) -> bool:
    """Whether a layer with a bias is added to another one only after it was multiplied: both biases are needed there."""
    if total.operator != "Add" or not any(True for _ in _terms(graph, total)):
        return False
    gated = [
        graph.producers.get(value)
        for term in map(graph.producers.get, total.inputs)
        if term is not None and term.operator == "Mul"
        for value in term.inputs
    ]
    return any(map(_is_biased, filter(None, gated)))


def _is_biased(draft: Draft) -> bool:
    return features_first(draft) and "bias" in draft.layouts


def _is_part(graph: Graph, draft: Draft) -> bool:
    """Whether a sum is a term of another one alone."""
    reader = graph.only_reader(draft.outputs[0])
    return reader is not None and reader.operator == "Add" and "constant" not in reader.attributes


def _terms(graph: Graph, total: Draft) -> Iterator[Draft]:
    """The layers with a bias that a sum adds, and nobody else reads, in order."""
    if "constant" in total.attributes:
        return
    for value in total.inputs:
        term = graph.producers.get(value)
        if term is None or graph.only_reader(value) is not total or term.shape != total.shape:
            continue
        if term.operator == "Add":
            yield from _terms(graph, term)
        elif _is_biased(term):
            yield term
