"""One form for one function: joins what a model stores apart and splits what it stores together.

A fused query-key-value projection and three separate ones are the same function; so are one bias inside a
layer and one added behind it. Every rule here rewrites the graph and the layouts of its parameters together, so
that models which store the same numbers differently end up with the same nodes and the same parameters.
"""

from __future__ import annotations

import math
from collections.abc import Iterator
from dataclasses import dataclass, replace

from xbackend_fl.canonical import views
from xbackend_fl.canonical.draft import Draft, Graph, free_sizes
from xbackend_fl.canonical.layout import Join, Layout
from xbackend_fl.canonical.ops import OPAQUE, OPERATORS
from xbackend_fl.canonical.spellings import name_activations
from xbackend_fl.canonical.value import numbers
from xbackend_fl.errors import UnsupportedError

_LINEAR = frozenset({"Gemm", "Conv"})


def normal_form(drafts: tuple[Draft, ...], outputs: set[str]) -> tuple[Draft, ...]:
    """The graph in its one form, without what reaches no output.

    Args:
        drafts: Nodes in execution order.
        outputs: Values that the model returns.
    """
    for rule in (name_activations, _crop, _fold_biases, _join_linears, _squeeze_features, _cut_linears):
        drafts = rule(Graph(_live(drafts, outputs), outputs))
    return _live(drafts, outputs)


def _live(drafts: tuple[Draft, ...], outputs: set[str]) -> tuple[Draft, ...]:
    needed, live = set(outputs), []
    for draft in reversed(drafts):
        if needed.intersection(draft.outputs):
            needed.update(draft.inputs)
            live.append(draft)
    return tuple(reversed(live))


# A transposed convolution that is cropped has longer pads.


def _crop(graph: Graph) -> tuple[Draft, ...]:
    new: dict[str, Draft] = {}
    for draft in graph.drafts:
        source = graph.producers.get(draft.inputs[0]) if draft.operator == "Slice" else None
        source = source and new.get(source.name, source)
        if (
            source is None
            or source.operator != "ConvTranspose"
            or graph.only_reader(draft.inputs[0]) is not draft
        ):
            continue
        axis, (start, stop) = draft.attributes["axis"], _range(draft)
        if not isinstance(axis, int) or axis < 2 or draft.attributes["step"] != 1:
            continue
        pads, rank = list(numbers(source.attributes["pads"])), len(source.shape) - 2
        pads[axis - 2] += start
        pads[axis - 2 + rank] += source.shape[axis] - stop
        attributes = {**source.attributes, "pads": tuple(int(n) for n in pads)}
        new[draft.name] = replace(source, outputs=draft.outputs, shapes=draft.shapes, attributes=attributes)
    return tuple(new.get(draft.name, draft) for draft in graph.drafts)


# linear(x) + parameter is a layer with a bias.


def _fold_biases(graph: Graph) -> tuple[Draft, ...]:
    new: dict[str, Draft] = {}
    for addition in graph.drafts:
        if addition.operator != "Add" or len(addition.inputs) != 2:
            continue
        for one, two in (addition.inputs, addition.inputs[::-1]):
            linear, operand = graph.producers.get(one), graph.producers.get(two)
            if linear is None or operand is None or operand.operator != "Parameter":
                continue
            if graph.only_reader(one) is not addition:
                continue
            layout, reshape = operand.layouts["weight"], linear
            if linear.operator == "Reshape" and (source := _split_gemm(graph, linear, layout)) is not None:
                linear, layout = source, views.reshaped(layout, (source.shape[-1],))
            bias = _as_bias(linear, layout)
            if bias is None:
                continue
            folded = {**linear.layouts, "bias": bias}
            if linear is reshape:
                new[addition.name] = replace(linear, outputs=addition.outputs, layouts=folded)
            else:
                new[linear.name] = replace(linear, layouts=folded)
                new[addition.name] = replace(reshape, outputs=addition.outputs)
            break
    return tuple(new.get(draft.name, draft) for draft in graph.drafts)


def _split_gemm(graph: Graph, reshape: Draft, layout: Layout) -> Draft | None:
    """The dense layer whose features ``reshape`` splits into the axes of ``layout``: a stack of experts."""
    source = graph.producers.get(reshape.inputs[0])
    if source is None or source.operator != "Gemm" or graph.only_reader(reshape.inputs[0]) is not reshape:
        return None
    lead = len(source.shape) - 1
    splits = reshape.shape[:lead] == source.shape[:lead] and reshape.shape[lead:] == layout.shape
    return source if splits else None


def _as_bias(linear: Draft, layout: Layout) -> Layout | None:
    """``layout`` as the bias ``[features]`` of ``linear``; ``None`` if it is not one value per feature."""
    grouped = linear.operator == "ConvTranspose" and linear.attributes["group"] != 1
    if linear.operator not in {"Gemm", "Conv", "ConvTranspose"} or "bias" in linear.layouts or grouped:
        return None
    rank = 1 if linear.operator == "Gemm" else len(linear.shape) - 1
    axis = len(linear.shape) - 1 if linear.operator == "Gemm" else 1
    features = linear.shape[axis]
    return views.reshaped(layout, (features,)) if layout.shape == (features, *(1,) * (rank - 1)) else None


# Several linear layers of one input, joined again, are one.


def _join_linears(graph: Graph) -> tuple[Draft, ...]:
    new: dict[str, Draft] = {}
    for draft in graph.drafts:
        if draft.operator != "Concat" or any(graph.only_reader(value) is not draft for value in draft.inputs):
            continue
        if any(reader.operator == OPAQUE for reader in graph.readers[draft.outputs[0]]):
            # Nothing cuts the layers apart again behind it, where another model has them so.
            continue
        joined = _joined(draft, [graph.producers[v] for v in draft.inputs if v in graph.producers])
        if joined is not None:
            new[draft.name] = joined
    return tuple(new.get(draft.name, draft) for draft in graph.drafts)


def _joined(concat: Draft, parts: list[Draft]) -> Draft | None:
    if len(parts) != len(concat.inputs) or len(parts) < 2:
        return None
    first = parts[0]
    alike = all(
        (part.operator, part.inputs, part.attributes, part.layouts.keys())
        == (first.operator, first.inputs, first.attributes, first.layouts.keys())
        for part in parts
    )
    if not alike or first.operator not in _LINEAR or first.attributes.get("group", 1) != 1:
        return None
    if concat.attributes["axis"] != _feature_axis(first):
        return None
    layouts = {role: Join(tuple(part.layouts[role] for part in parts), 0) for role in first.layouts}
    return replace(first, outputs=concat.outputs, layouts=layouts, shapes=concat.shapes)


def _feature_axis(linear: Draft) -> int:
    return len(linear.shape) - 1 if linear.operator == "Gemm" else 1


# The only feature of a layer, picked, is the layer without that axis.


def _squeeze_features(graph: Graph) -> tuple[Draft, ...]:
    def squeezed(draft: Draft) -> Draft:
        source = graph.producers.get(draft.inputs[0]) if draft.operator == "Select" else None
        if source is None or source.operator not in _LINEAR:
            return draft
        axis = _feature_axis(source)
        if draft.attributes["axis"] != axis or source.shape[axis] != 1:
            return draft
        sizes = free_sizes(source.shape, draft.shape)
        return replace(draft, operator="Reshape", attributes={"shape": sizes})

    return tuple(map(squeezed, graph.drafts))


# A linear layer of which every reader takes a part is one layer per part.


@dataclass(frozen=True)
class _Cut:
    """The features ``start:stop`` of a linear expression, as ``reader`` takes them."""

    reader: Draft
    start: int
    stop: int


def _cut_linears(graph: Graph) -> tuple[Draft, ...]:
    new: dict[str, list[Draft]] = {}
    for draft in graph.drafts:
        if _is_linear(graph, draft.outputs[0]):
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


def _is_linear(graph: Graph, value: str) -> bool:
    """Whether ``value`` is a linear layer or a sum of linear layers that nobody else reads."""
    draft = graph.producers.get(value)
    if draft is None:
        return False
    if draft.operator == "Add" and "constant" not in draft.attributes:
        # Where a part is broadcast, the axis of its features is another one.
        return all(
            graph.only_reader(part) is draft
            and _is_linear(graph, part)
            and graph.producers[part].shape == draft.shape
            for part in draft.inputs
        )
    return draft.operator in _LINEAR and draft.attributes.get("group", 1) == 1


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
            cuts.append(_Cut(reader, *_range(reader)))
            continue
        selected = _selects(graph, draft, reader, axis)
        if selected is None:
            return None
        cuts += selected
    return cuts


def _selects(graph: Graph, draft: Draft, reshape: Draft, axis: int) -> list[_Cut] | None:
    """Cuts of the form ``reshape(..., parts, rest)[..., i, :]``."""
    lead, shape = draft.shape[:axis], reshape.shape
    if reshape.operator != "Reshape" or axis != len(draft.shape) - 1 or shape[:axis] != lead:
        return None
    if len(shape) == axis:
        # A single feature whose axis goes away leaves nothing to cut.
        return None
    if reshape.outputs[0] in graph.outputs:
        return None
    parts, size = shape[axis], math.prod(shape[axis + 1 :])
    cuts = []
    for reader in graph.readers[reshape.outputs[0]]:
        if reader.operator == "Select" and reader.attributes["axis"] == axis:
            index = reader.attributes["index"]
            assert isinstance(index, int)
            cuts.append(_Cut(reader, index % parts * size, (index % parts + 1) * size))
        elif (
            reader.operator == "Slice"
            and reader.attributes["axis"] == axis
            and reader.attributes["step"] == 1
        ):
            start, stop = _range(reader)
            cuts.append(_Cut(reader, start * size, stop * size))
        else:
            return None
    return cuts


def _range(cut: Draft) -> tuple[int, int]:
    """Start and stop of a Slice."""
    start, stop = cut.attributes["start"], cut.attributes["stop"]
    assert isinstance(start, int)
    assert isinstance(stop, int)
    return start, stop


def _feature_axis_of_sum(graph: Graph, draft: Draft) -> int:
    while draft.operator == "Add":
        draft = graph.producers[draft.inputs[0]]
    return _feature_axis(draft)


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
    name = f"{draft.name}[{cut.start}:{cut.stop}]"
    if draft.operator == "Add":
        values = []
        for value in draft.inputs:
            parts = list(_part(graph, graph.producers[value], cut))
            yield from parts
            values.append(parts[-1].outputs[0])
        shape = _narrowed(draft, _feature_axis_of_sum(graph, draft), cut)
        yield replace(draft, name=name, inputs=tuple(values), outputs=(name,), shapes=(shape,))
        return
    layouts = {role: views.part(layout, 0, cut.start, cut.stop) for role, layout in draft.layouts.items()}
    shape = _narrowed(draft, _feature_axis(draft), cut)
    whole = replace(draft, name=name, outputs=(name,), layouts=layouts, shapes=(shape,))
    source = graph.producers.get(draft.inputs[0])
    if source is None or source.operator != "Concat" or source.attributes["axis"] != _feature_axis(draft):
        yield whole
        return
    yield from _by_inputs(graph, whole, source)


def _by_inputs(graph: Graph, linear: Draft, concat: Draft) -> Iterator[Draft]:
    """A linear layer of a concatenation is a sum of linear layers, one per part; zeros add nothing."""
    offset, values = 0, []
    layouts: dict[str, Layout] = dict(linear.layouts)
    for value, size in zip(concat.inputs, _sizes(graph, linear, concat), strict=True):
        layouts["weight"] = views.part(linear.layouts["weight"], 1, offset, offset + size)
        name = f"{linear.name}({offset}:{offset + size})"
        offset += size
        if not _is_zero(graph, value):
            yield replace(linear, name=name, inputs=(value,), outputs=(name,), layouts=dict(layouts))
            values.append(name)
            layouts.pop("bias", None)
    if len(values) > 1:
        total = f"{linear.name}(sum)"
        yield Draft(total, "Add", tuple(values), (total,), {}, {}, linear.origin, linear.shapes)


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


def _is_zero(graph: Graph, value: str) -> bool:
    draft = graph.producers.get(value)
    while draft is not None and OPERATORS[draft.operator].shape_only:
        draft = graph.producers.get(draft.inputs[0])
    if draft is None or draft.operator != "Constant":
        return False
    numbers = draft.attributes["value"]
    return isinstance(numbers, tuple) and not any(numbers)


def _narrowed(draft: Draft, axis: int, cut: _Cut) -> tuple[int, ...]:
    return (*draft.shape[:axis], cut.stop - cut.start, *draft.shape[axis + 1 :])
