"""Activations that models spell out: what several nodes compute becomes the one node that ONNX has for it."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import replace

from xbackend_fl.canonical.draft import Draft, Graph


def name_activations(graph: Graph) -> tuple[Draft, ...]:
    """Swish, Mish, HardSigmoid, HardSwish and Gelu by their definitions in the ONNX specification.

    One pass in execution order: what a node became is what its readers see.
    """
    producers = dict(graph.producers)
    drafts = []
    for draft in graph.drafts:
        new = _hard_sigmoid(draft, producers) or _gated(draft, producers) or _gelu(draft, producers) or draft
        producers[draft.outputs[0]] = new
        drafts.append(new)
    return tuple(drafts)


def _constant(draft: Draft | None, operator: str, number: float) -> bool:
    """Whether a node adds or multiplies with this constant."""
    return (
        draft is not None
        and draft.operator == operator
        and math.isclose(float(str(draft.attributes.get("constant", math.nan))), number, rel_tol=1e-5)
    )


def _hard_sigmoid(draft: Draft, producers: Mapping[str, Draft]) -> Draft | None:
    """``clip(x + 3, 0, 6) / 6``."""
    if not _constant(draft, "Mul", 1 / 6):
        return None
    clip = producers.get(draft.inputs[0])
    if (
        clip is None
        or clip.operator != "Clip"
        or (clip.attributes.get("min"), clip.attributes.get("max")) != (0.0, 6.0)
    ):
        return None
    shift = producers.get(clip.inputs[0])
    if shift is None or not _constant(shift, "Add", 3.0):
        return None
    return replace(
        draft, operator="HardSigmoid", inputs=shift.inputs, attributes={"alpha": 1 / 6, "beta": 0.5}
    )


def _gated(draft: Draft, producers: Mapping[str, Draft]) -> Draft | None:
    """``x · sigmoid(x)``, ``x · hard_sigmoid(x)`` and ``x · tanh(softplus(x))``."""
    if draft.operator != "Mul" or len(draft.inputs) != 2:
        return None
    for value, other in (draft.inputs, draft.inputs[::-1]):
        gate = producers.get(other)
        if gate is None:
            continue
        if gate.operator == "Sigmoid" and gate.inputs == (value,):
            return replace(draft, operator="Swish", inputs=(value,))
        if gate.operator == "HardSigmoid" and gate.inputs == (value,) and gate.attributes["beta"] == 0.5:
            usual = math.isclose(float(str(gate.attributes["alpha"])), 1 / 6, rel_tol=1e-5)
            return replace(draft, operator="HardSwish", inputs=(value,)) if usual else None
        inner = producers.get(gate.inputs[0]) if gate.operator == "Tanh" else None
        if inner is not None and inner.operator == "Softplus" and inner.inputs == (value,):
            return replace(draft, operator="Mish", inputs=(value,))
    return None


def _gelu(draft: Draft, producers: Mapping[str, Draft]) -> Draft | None:
    """``x · (1 + erf(x / √2)) / 2`` with the half on either side."""
    if draft.operator != "Mul":
        return None
    halved = _constant(draft, "Mul", 0.5)
    product = producers.get(draft.inputs[0]) if halved else draft
    if product is None or product.operator != "Mul" or len(product.inputs) != 2:
        return None
    for value, other in (product.inputs, product.inputs[::-1]):
        source, factor = _scaled(producers, value)
        gate, gate_factor = _scaled(producers, other)
        scale = factor * gate_factor * (0.5 if halved else 1.0)
        shifted = producers.get(gate)
        if (
            not math.isclose(scale, 0.5, rel_tol=1e-5)
            or shifted is None
            or not _constant(shifted, "Add", 1.0)
        ):
            continue
        erf = producers.get(shifted.inputs[0])
        if erf is not None and erf.operator == "Erf":
            inner, inverse_root = _scaled(producers, erf.inputs[0])
            if inner == source and math.isclose(inverse_root, math.sqrt(0.5), rel_tol=1e-5):
                return replace(draft, operator="Gelu", inputs=(source,), attributes={"approximate": "none"})
    return None


def _scaled(producers: Mapping[str, Draft], value: str) -> tuple[str, float]:
    """``value`` in front of a multiplication with a constant, and the constant."""
    draft = producers.get(value)
    if draft is None or draft.operator != "Mul" or "constant" not in draft.attributes:
        return value, 1.0
    return draft.inputs[0], float(str(draft.attributes["constant"]))
