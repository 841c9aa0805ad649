"""Which parameters the probes have seen: a pairing that no probe could have refuted is not proven.

Two nodes that structure cannot tell apart are paired by gradients, and names decide where those say nothing. Such a choice
is only a proposal. It stands because outputs and gradients agree with it where the parameters show; if exchanging two
parameters changes nothing there either, they are interchangeable. Where a parameter never shows, any choice would agree.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from xbackend_fl.canonical import Kind, Node, Parameter, Schema
from xbackend_fl.mapping.match.match import ties
from xbackend_fl.mapping.match.skeleton import products_turned, skeleton_of
from xbackend_fl.mapping.probe.drawn import drawn_weights
from xbackend_fl.mapping.probe.executor import Executor
from xbackend_fl.mapping.probe.probe import Evidence, weights_of
from xbackend_fl.mapping.probe.runtime import GraphRefused
from xbackend_fl.mapping.proof.verify import TOLERANCE, finite, relative_error

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
                visible = float(np.linalg.norm(gradient)) > ABOVE_ROUNDING * float(noise[0])
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
                length = float(np.linalg.norm(gradient))
                if length > ABOVE_ROUNDING * float(np.linalg.norm(other - gradient)):
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


def standing(schema: Schema, runtime: Executor, evidence: Sequence[Evidence], visible: set[str]) -> Standing:
    """Judge the trainable parameters that no draw sees, and all of nodes without gradients that have look-alikes.

    Args:
        schema: The treaty.
        runtime: ONNX Runtime for it.
        evidence: What a model did with the probes.
        visible: Parameters whose gradient was seen; of a model without gradients, none.
    """
    known = {node.name for node in schema.nodes if not visible.isdisjoint(node.parameters.values())}
    graph = skeleton_of(schema)
    tied = ties(products_turned(graph) or graph, known)
    differentiable = any(item.gradients for item in evidence)
    shown: dict[str, bool] = {}
    for node in schema.nodes:
        kinds = {name: schema.by_name[name].kind for name in node.parameters.values()}
        if node.name in tied and not (differentiable and Kind.TRAINABLE in kinds.values()):
            shown |= {
                name: moves_outputs(schema, runtime, evidence, name)
                for name, kind in kinds.items()
                if kind is not Kind.COUNTER
            }
    unproven: dict[str, str] = {}
    notes: list[str] = []
    owners: dict[str, list[Node]] = {}
    for node in schema.nodes:
        for name in node.parameters.values():
            owners.setdefault(name, []).append(node)
    for parameter in schema.parameters:
        name = parameter.name
        if name in shown:
            if not shown[name]:
                unproven[name] = "no draw shows an output that moves with it"
            continue
        if not differentiable or parameter.kind is not Kind.TRAINABLE or name in visible:
            continue
        beside = [other for node in owners[name] for other in node.parameters.values() if other in visible]
        alone = all(node.name not in tied for node in owners[name])
        if _is_vector(parameter) and (beside or alone):
            place = f"its place follows from {beside[0]}" if beside else "its place follows from the graph"
            notes.append(f"{_shown(schema, runtime, evidence, name)}; {place}")
        elif moves_outputs(schema, runtime, evidence, name):
            notes.append(f"{_STILL.format(name)} and agree")
        else:
            unproven[name] = "its gradient is zero, or rounding, in every draw, and no output moves with it"
    return Standing(unproven, tuple(notes))


_STILL = "the gradient of {0} is zero, or rounding, in every draw; outputs move with it"


def _shown(schema: Schema, runtime: Executor, evidence: Sequence[Evidence], name: str) -> str:
    """What the draws show of a parameter without a gradient."""
    if moves_outputs(schema, runtime, evidence, name):
        return _STILL.format(name)
    return f"no draw saw {name} move an output"


def moves_outputs(schema: Schema, runtime: Executor, evidence: Sequence[Evidence], name: str) -> bool:
    """Whether outputs move visibly in some draw if a parameter has other values; by what runs the schema."""
    for item in evidence:
        if item.case.by_shape:
            continue
        weights = weights_of(schema, item.case) | dict(item.statistics)
        other = drawn_weights(schema, item.case.seed + 100)[name]
        try:
            before = runtime.outputs(weights, item.case.inputs)
            after = runtime.outputs(weights | {name: other}, item.case.inputs)
        except GraphRefused:
            # The graph has sizes of the example written in it; other draws show it.
            continue
        if not (finite(before) and finite(after)):
            continue
        if max(relative_error(a, b) for a, b in zip(after, before, strict=True)) > 10 * TOLERANCE:
            return True
    return False


def size(array: Array) -> float:
    """Root mean square; 0 for an empty array."""
    return float(np.sqrt(np.mean(np.square(array)))) if array.size else 0.0


def _is_vector(parameter: Parameter) -> bool:
    # Nothing can be turned or taken apart wrongly in it; a layer's biases follow its weight.
    return parameter.role == "bias" or sum(length > 1 for length in parameter.shape) <= 1
