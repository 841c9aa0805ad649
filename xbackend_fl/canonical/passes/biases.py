"""``linear(x) + parameter`` is a layer with a bias."""

from __future__ import annotations

from dataclasses import replace

from xbackend_fl.canonical import views
from xbackend_fl.canonical.draft import Draft, Graph
from xbackend_fl.canonical.layout import Layout
from xbackend_fl.canonical.ops import has
from xbackend_fl.canonical.passes.common import feature_axis, features_first
from xbackend_fl.canonical.row import Property


def fold_biases(graph: Graph) -> tuple[Draft, ...]:
    """Move an added parameter into the layer in front of it."""
    new: dict[str, Draft] = {}
    gone: set[str] = set()
    for addition in graph.drafts:
        if addition.operator != "Add" or len(addition.inputs) != 2:
            continue
        for one, two in (addition.inputs, addition.inputs[::-1]):
            linear, operand = graph.producers.get(one), graph.producers.get(two)
            if linear is None or operand is None or operand.operator != "Parameter":
                continue
            if graph.only_reader(one) is not addition:
                continue
            if linear.operator == "Add" and (term := _term(graph, linear)) is not None:
                bias = _as_bias(term, operand.layouts["weight"])
                if bias is not None and term.name not in new:
                    new[term.name] = replace(term, layouts={**term.layouts, "bias": bias})
                    new[addition.name] = replace(linear, outputs=addition.outputs)
                    gone.add(linear.name)
                break
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
    return tuple(new.get(draft.name, draft) for draft in graph.drafts if draft.name not in gone)


def _term(graph: Graph, total: Draft) -> Draft | None:
    """The first linear layer of a sum of linear layers that nobody else reads, some of them scaled, if none of them has a bias."""
    terms = [graph.producers.get(value) for value in total.inputs]
    if any(graph.only_reader(value) is not total for value in total.inputs):
        return None
    found = [_linear(graph, term, total) for term in terms]
    linear = [term for term in found if term is not None and "bias" not in term.layouts]
    plain = [term for term in linear if term in terms]
    return plain[0] if plain and len(linear) == len(terms) else None


def _linear(graph: Graph, term: Draft | None, total: Draft) -> Draft | None:
    """The linear layer that makes a term of a sum, perhaps with a factor behind it."""
    if (
        term is not None
        and term.operator == "Mul"
        and "constant" in term.attributes
        and len(term.inputs) == 1
    ):
        term = graph.producers.get(term.inputs[0])
    return term if term is not None and features_first(term) and term.shape == total.shape else None


def _split_gemm(graph: Graph, reshape: Draft, layout: Layout) -> Draft | None:
    """The dense layer whose features ``reshape`` leaves alone, or splits into the axes of ``layout``: a stack of experts."""
    source = graph.producers.get(reshape.inputs[0])
    if source is None or source.operator != "Gemm" or graph.only_reader(reshape.inputs[0]) is not reshape:
        return None
    if layout.shape == source.shape[-1:] == reshape.shape[-1:]:
        return source
    lead = len(source.shape) - 1
    splits = reshape.shape[:lead] == source.shape[:lead] and reshape.shape[lead:] == layout.shape
    return source if splits else None


def _as_bias(linear: Draft, layout: Layout) -> Layout | None:
    """``layout`` as the bias ``[features]`` of ``linear``; ``None`` if it is not one value per feature."""
    grouped = linear.operator == "ConvTranspose" and linear.attributes["group"] != 1
    if not has(linear.operator, Property.LINEAR) or "bias" in linear.layouts or grouped:
        return None
    axis = feature_axis(linear)
    features, behind = linear.shape[axis], len(linear.shape) - 1 - axis
    return views.reshaped(layout, (features,)) if layout.shape == (features, *(1,) * behind) else None
