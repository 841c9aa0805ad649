"""Which parameters the probes have seen: a pairing that no probe could have refuted is not proven.

Two nodes that structure cannot tell apart are paired by gradients, and names decide where those say nothing. Such a choice
is only a proposal. It stands because outputs and gradients agree with it where the parameters show; if exchanging two
parameters changes nothing there either, they are interchangeable. Where a parameter never shows, any choice would agree.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from xbackend_fl.canonical import Kind, Node, Parameter, Schema
from xbackend_fl.mapping.match.match import ties
from xbackend_fl.mapping.match.skeleton import products_turned, skeleton_of
from xbackend_fl.mapping.probe.draw import draw_weights
from xbackend_fl.mapping.probe.norms import norm_of
from xbackend_fl.mapping.probe.probe import Evidence, weights_of
from xbackend_fl.mapping.probe.runtime import GraphRefused
from xbackend_fl.mapping.proof.verify import TOLERANCE, Answers, finite, relative_error

Array = NDArray[Any]

PLAIN = 1e-4
"""A gradient of at least this part of the draw's largest (root mean square) is no rounding error."""

ABOVE_ROUNDING = 100.0
"""Where rounding was measured, a gradient counts that is so many times what rounding does, or what the two models differ by."""


@dataclass(frozen=True)
class Standing:
    """What is known about the parameters that no draw sees.

    Attributes:
        unproven: Parameter to what keeps it from being proven.
        notes: Parameters that no draw sees and whose place is certain, with the reason.
    """

    unproven: Mapping[str, str]
    notes: tuple[str, ...] = ()


def seen(evidence: Iterable[Evidence]) -> set[str]:
    """Parameters with a gradient that is no rounding error, in one model's evidence."""
    found: set[str] = set()
    drawn = [item for item in evidence if item.gradients and not item.case.by_shape]
    # What a layer multiplies by 1e9 is large and may be rounding all the same.
    for item in [item for item in drawn if item.rounding] or drawn:
        scale = max(map(size, item.gradients.values()))
        for name, gradient in item.gradients.items():
            noise = item.rounding.get(f"gradients/{name}")
            if noise is not None:
                visible = norm_of(gradient) > ABOVE_ROUNDING * float(noise[0])
            else:
                visible = scale > 0 and size(gradient) >= PLAIN * scale
            if visible:
                found.add(name)
    return found


def agreed(pairs: Sequence[tuple[Evidence, Evidence]]) -> set[str]:
    """Parameters whose gradients agree in some draw to a small part of their own size: none of that is rounding."""
    found: set[str] = set()
    for one, two in pairs:
        if one.case.by_shape:
            continue
        for name, gradient in one.gradients.items():
            other = two.gradients.get(name)
            if other is not None and other.shape == gradient.shape:
                length = norm_of(gradient)
                if length > ABOVE_ROUNDING * norm_of(other - gradient):
                    found.add(name)
    return found


def faint_nodes(
    schema: Schema, evidence: Sequence[Evidence], among: frozenset[str] | None = None
) -> frozenset[str]:
    """Nodes none of whose trainable parameters is seen; none at all for a model without gradients.

    Args:
        schema: The model.
        evidence: What it did.
        among: Names of the nodes in question; all if left out.
    """
    if not any(item.gradients for item in evidence):
        return among or frozenset()
    found = unseen_nodes(schema, seen(evidence))
    return found if among is None else found & among


def unseen_nodes(schema: Schema, visible: set[str]) -> frozenset[str]:
    """Nodes with trainable parameters of which none is visible."""
    named = {
        node.name: [name for name in node.parameters.values() if schema.by_name[name].kind is Kind.TRAINABLE]
        for node in schema.nodes
    }
    return frozenset(node for node, names in named.items() if names and visible.isdisjoint(names))


def standing(answers: Answers, evidence: Sequence[Evidence], visible: set[str]) -> Standing:
    """Judge the trainable parameters that no draw sees, and all of nodes without gradients that have look-alikes.

    Args:
        answers: What ONNX Runtime answers.
        evidence: What a model did with the probes.
        visible: Parameters whose gradient was seen; of a model without gradients, none.
    """
    schema = answers.schema
    known = {node.name for node in schema.nodes if not visible.isdisjoint(node.parameters.values())}
    graph = skeleton_of(schema)
    tied = ties(products_turned(graph) or graph, known)
    differentiable = any(item.gradients for item in evidence)
    shown: set[str] = set()
    for node in schema.nodes:
        kinds = {name: schema.by_name[name].kind for name in node.parameters.values()}
        if node.name in tied and not (differentiable and Kind.TRAINABLE in kinds.values()):
            shown |= {name for name, kind in kinds.items() if kind is not Kind.COUNTER}
    still = (
        {p.name for p in schema.parameters if p.kind is Kind.TRAINABLE} - visible if differentiable else set()
    )
    moving = moving_outputs(answers, evidence, [p.name for p in schema.parameters if p.name in shown | still])
    unproven: dict[str, str] = {}
    notes: list[str] = []
    owners: dict[str, list[Node]] = {}
    for node in schema.nodes:
        for name in node.parameters.values():
            owners.setdefault(name, []).append(node)
    for parameter in schema.parameters:
        name = parameter.name
        if name in shown:
            if name not in moving:
                unproven[name] = "no draw shows an output that moves with it"
            continue
        if name not in still:
            continue
        beside = [other for node in owners[name] for other in node.parameters.values() if other in visible]
        alone = all(node.name not in tied for node in owners[name])
        if _is_vector(parameter) and (beside or alone):
            place = f"its place follows from {beside[0]}" if beside else "its place follows from the graph"
            said = _STILL if name in moving else "no draw saw {0} move an output"
            notes.append(f"{said.format(name)}; {place}")
        elif name in moving:
            notes.append(f"{_STILL.format(name)} and agree")
        else:
            unproven[name] = "its gradient is zero, or rounding, in every draw, and no output moves with it"
    return Standing(unproven, tuple(notes))


_STILL = "the gradient of {0} is zero, or rounding, in every draw; outputs move with it"


def moving_outputs(answers: Answers, evidence: Sequence[Evidence], names: Sequence[str]) -> set[str]:
    """Parameters with which outputs move visibly in some draw if they have other values; by what runs the schema.

    Several that change at once and move no output move none alone either, for nothing makes random changes cancel. So all that are left
    change together in each draw, and only where outputs move it is asked which of them it was.
    """
    schema, found = answers.schema, set[str]()
    for item in evidence:
        left = [name for name in names if name not in found]
        if item.case.by_shape or not left:
            continue
        weights = weights_of(schema, item.case) | dict(item.statistics)
        others = draw_weights(schema, item.case.seed + 100, frozenset(left))
        try:
            before = answers.outputs(item)
            if finite(before):
                found |= set(_those_that_move(answers, item, weights, others, before))
        except GraphRefused:
            # The graph has sizes of the example written in it; other draws show it.
            continue
    return found


def _those_that_move(
    answers: Answers,
    item: Evidence,
    weights: Mapping[str, Array],
    others: Mapping[str, Array],
    before: Sequence[Array],
) -> Iterator[str]:
    """The parameters among ``others`` that move outputs from what they were ``before``; halved while several do."""
    names = list(others)
    after = answers.runtime.outputs({**weights, **others}, item.case.inputs)
    # What is no number shows no parameter, and hides what others do.
    hidden = not finite(after)
    if not hidden and _apart(after, before) <= 10 * TOLERANCE:
        return
    if len(names) > 1:
        for half in (names[: len(names) // 2], names[len(names) // 2 :]):
            yield from _those_that_move(answers, item, weights, {name: others[name] for name in half}, before)
    elif not hidden:
        yield names[0]


def _apart(after: Sequence[Array], before: Sequence[Array]) -> float:
    return max(relative_error(a, b) for a, b in zip(after, before, strict=True))


def size(array: Array) -> float:
    """Root mean square; 0 for an empty array."""
    return float(np.sqrt(np.mean(np.square(array)))) if array.size else 0.0


def _is_vector(parameter: Parameter) -> bool:
    # Nothing can be turned or taken apart wrongly in it; a layer's biases follow its weight.
    return parameter.role == "bias" or sum(length > 1 for length in parameter.shape) <= 1
