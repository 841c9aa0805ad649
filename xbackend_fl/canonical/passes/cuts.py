"""A linear layer of which every reader takes a part is one layer per part."""

from __future__ import annotations

import math
from collections.abc import Iterator
from dataclasses import dataclass, replace

from xbackend_fl.canonical import views
from xbackend_fl.canonical.draft import Draft, Graph, free_sizes, is_zero
from xbackend_fl.canonical.layout import Join, Layout
from xbackend_fl.canonical.passes.common import bounds, feature_axis, features_first
from xbackend_fl.errors import UnsupportedError

_PARTS = 3
"""Of each head, at least, that are layers of their own."""


@dataclass(frozen=True)
class _Cut:
    """Ranges of the features of a linear expression, one behind the other, as ``reader`` takes them."""

    reader: Draft
    ranges: tuple[tuple[int, int], ...]

    def __str__(self) -> str:
        (start, stop), *more = self.ranges
        return f"[{start}:{stop}{' …' if more else ''}]"

    def apply(self, layout: Layout) -> Layout:
        """These rows of a parameter."""
        parts = tuple(views.slice_axis(layout, 0, start, stop) for start, stop in self.ranges)
        return parts[0] if len(parts) == 1 else Join(parts, 0)

    @property
    def size(self) -> int:
        """How many features there are."""
        return sum(stop - start for start, stop in self.ranges)


def cut_linears(graph: Graph) -> tuple[Draft, ...]:
    """Cut the parameters of layers whose results are cut."""
    new: dict[str, list[Draft]] = {}
    for draft in graph.drafts:
        if is_linear(graph, draft.outputs[0]):
            cuts = _cuts(graph, draft)
            if cuts is None:
                continue
            try:
                made = {cut.reader.name: list(_slice_of(graph, draft, cut)) for cut in cuts}
            except UnsupportedError:
                # A cut through a gate or a flattened axis has no layout; the nodes stay as they are.
                continue
            new |= made
    return tuple(made for draft in graph.drafts for made in new.get(draft.name, [draft]))


def is_linear(graph: Graph, value: str) -> bool:
    """Whether ``value`` is a linear layer or a sum of linear layers that nobody else reads."""
    draft = graph.producers.get(value)
    if draft is None:
        return False
    if draft.operator == "Add" and "constant" not in draft.attributes:
        # Where a part is broadcast, the axis of its features is another one.
        return all(
            graph.only_reader(part) is draft
            and is_linear(graph, part)
            and graph.producers[part].shape == draft.shape
            for part in draft.inputs
        )
    return features_first(draft) and draft.attributes.get("group", 1) == 1


def _cuts(graph: Graph, draft: Draft) -> list[_Cut] | None:
    """How the readers of ``draft`` cut its features; ``None`` if somebody reads it whole."""
    value, axis = draft.outputs[0], _feature_axis_of_sum(graph, draft)
    if value in graph.outputs or not graph.readers[value]:
        return None
    cuts: list[_Cut] = []
    for reader in graph.readers[value]:
        if (
            reader.operator == "Slice"
            and reader.attributes["axis"] == axis
            and reader.attributes["step"] == 1
        ):
            cuts.append(_Cut(reader, (bounds(reader),)))
            continue
        selected = _selects(graph, draft, reader, axis)
        if selected is None:
            return None
        cuts += selected
    return cuts


def _selects(graph: Graph, draft: Draft, reshape: Draft, axis: int) -> list[_Cut] | None:
    """Cuts of the form ``reshape(..., parts, rest)[..., i, :]``, or ``reshape(..., heads, 3, rest)[..., i, :]``: query, key and value of each head.

    Two parts of each head are what turns by an angle, and stay together: another model has neighbours where this one has halves.
    """
    lead, shape = draft.shape[:axis], reshape.shape
    if reshape.operator != "Reshape" or axis != len(draft.shape) - 1 or shape[:axis] != lead:
        return None
    if len(shape) == axis:
        # A single feature whose axis goes away leaves nothing to cut.
        return None
    if reshape.outputs[0] in graph.outputs:
        return None
    cuts = []
    for reader in graph.readers[reshape.outputs[0]]:
        place = reader.attributes.get("axis")
        if not isinstance(place, int) or place < axis:
            return None
        if reader.operator == "Select":
            start = int(str(reader.attributes["index"])) % shape[place]
            stop = start + 1
        elif reader.operator == "Slice" and reader.attributes["step"] == 1:
            start, stop = bounds(reader)
        else:
            return None
        outer, size = math.prod(shape[axis:place]), math.prod(shape[place + 1 :])
        if place > axis and (reader.operator != "Select" or shape[place] < _PARTS or size == 1):
            return None
        whole = shape[place] * size
        ranges = ((part * whole + start * size, part * whole + stop * size) for part in range(outer))
        cuts.append(_Cut(reader, tuple(ranges)))
    return cuts


def _feature_axis_of_sum(graph: Graph, draft: Draft) -> int:
    while draft.operator == "Add":
        draft = graph.producers[draft.inputs[0]]
    return feature_axis(draft)


def _slice_of(graph: Graph, draft: Draft, cut: _Cut) -> Iterator[Draft]:
    """Nodes that compute the cut alone; the last one makes the reader's output."""
    made = list(_part(graph, draft, cut))
    *before, last = made
    yield from before
    if cut.reader.operator == "Slice" and len(cut.reader.shape) == len(last.shape):
        yield replace(last, outputs=cut.reader.outputs)
        return
    yield last
    sizes = free_sizes(last.shape, cut.reader.shape)
    yield replace(cut.reader, operator="Reshape", inputs=last.outputs, attributes={"shape": sizes})


def _part(graph: Graph, draft: Draft, cut: _Cut) -> Iterator[Draft]:
    name = f"{draft.name}{cut}"
    if draft.operator == "Add":
        values = []
        for value in draft.inputs:
            parts = list(_part(graph, graph.producers[value], cut))
            yield from parts
            values.append(parts[-1].outputs[0])
        shape = _narrowed(draft, _feature_axis_of_sum(graph, draft), cut)
        yield replace(draft, name=name, inputs=tuple(values), outputs=(name,), shapes=(shape,))
        return
    layouts = {role: cut.apply(layout) for role, layout in draft.layouts.items()}
    shape = _narrowed(draft, feature_axis(draft), cut)
    whole = replace(draft, name=name, outputs=(name,), layouts=layouts, shapes=(shape,))
    source = graph.producers.get(draft.inputs[0])
    if source is None or source.operator != "Concat" or source.attributes["axis"] != feature_axis(draft):
        yield whole
        return
    yield from by_inputs(graph, whole, source)


def by_inputs(graph: Graph, linear: Draft, concat: Draft) -> Iterator[Draft]:
    """A linear layer of a concatenation is a sum of linear layers, one per part; zeros add nothing."""
    offset, values = 0, []
    layouts: dict[str, Layout] = dict(linear.layouts)
    for value, size in zip(concat.inputs, _sizes(graph, linear, concat), strict=True):
        layouts["weight"] = views.slice_axis(linear.layouts["weight"], 1, offset, offset + size)
        name = f"{linear.name}({offset}:{offset + size})"
        offset += size
        if not is_zero(value, graph.producers.get):
            yield replace(linear, name=name, inputs=(value,), outputs=(name,), layouts=dict(layouts))
            values.append(name)
            layouts.pop("bias", None)
    total = values[0] if values else ""
    for place, value in enumerate(values[1:], start=1):
        name = f"{linear.name}(sum)" if place == len(values) - 1 else f"{linear.name}(sum {place})"
        yield Draft(name, "Add", (total, value), (name,), {}, {}, linear.origin, linear.shapes)
        total = name


def _sizes(graph: Graph, linear: Draft, concat: Draft) -> list[int]:
    """Features of each input of ``concat``; a data input, which no node makes, has the rest."""
    axis = concat.attributes["axis"]
    assert isinstance(axis, int)
    sources = [graph.producers.get(value) for value in concat.inputs]
    known = [
        source.shapes[source.outputs.index(value)][axis]
        for value, source in zip(concat.inputs, sources, strict=True)
        if source is not None
    ]
    rest = linear.layouts["weight"].shape[1] - sum(known)
    inputs = sources.count(None)
    if inputs > 1:
        raise UnsupportedError("two data inputs are joined in front of a layer that is cut")
    sizes = iter(known)
    return [rest if source is None else next(sizes) for source in sources]


def _narrowed(draft: Draft, axis: int, cut: _Cut) -> tuple[int, ...]:
    return (*draft.shape[:axis], cut.size, *draft.shape[axis + 1 :])
