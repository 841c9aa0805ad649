"""Activations that models spell out: what several nodes compute becomes the one node that ONNX has for it."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import replace

import numpy as np

from xbackend_fl.canonical.draft import Draft, Graph
from xbackend_fl.canonical.layout import Array


def name_activations(graph: Graph) -> tuple[Draft, ...]:
    """Swish, Mish, HardSigmoid, HardSwish and Gelu by their definitions in the ONNX specification.

    One pass in execution order: what a node became is what its readers see.
    """
    producers = dict(graph.producers)
    drafts = []
    for draft in graph.drafts:
        new = next(filter(None, (rule(draft, producers) for rule in _RULES)), draft)
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
    """``x · (1 + erf(x / √2)) / 2`` with the half on either side, or with its approximation by tanh."""
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
        if erf is not None and erf.operator == "Tanh" and _is_cubic(producers, erf.inputs[0], source):
            return replace(draft, operator="Gelu", inputs=(source,), attributes={"approximate": "tanh"})
        if erf is not None and erf.operator == "Erf":
            inner, inverse_root = _scaled(producers, erf.inputs[0])
            if inner == source and math.isclose(inverse_root, math.sqrt(0.5), rel_tol=1e-5):
                return replace(draft, operator="Gelu", inputs=(source,), attributes={"approximate": "none"})
    return None


_POINTS = np.linspace(-3.0, 3.0, 13)


def _is_cubic(producers: Mapping[str, Draft], value: str, source: str) -> bool:
    """Whether a value is ``√(2/π) · (x + 0.044715 · x³)``, however it is written."""
    found = _polynomial(producers, value, source)
    wanted = math.sqrt(2.0 / math.pi) * (_POINTS + 0.044715 * _POINTS**3)
    return found is not None and bool(np.allclose(found, wanted, rtol=1e-5, atol=1e-7))


def _polynomial(producers: Mapping[str, Draft], value: str, source: str) -> Array | None:
    """The value at some points if it is made of ``source`` by sums, products and powers; ``None`` if it is not."""
    if value == source:
        return _POINTS
    draft = producers.get(value)
    if draft is None or draft.operator not in {"Add", "Mul", "Pow"}:
        return None
    parts = [_polynomial(producers, item, source) for item in draft.inputs]
    if "constant" in draft.attributes:
        parts.append(np.asarray(float(str(draft.attributes["constant"]))))
    known = [part for part in parts if part is not None]
    if len(known) != 2 or len(parts) != 2:
        return None
    one, two = known
    if draft.operator == "Pow":
        return np.asarray(one**two) if two.ndim == 0 and float(two).is_integer() else None
    return one + two if draft.operator == "Add" else one * two


def _scaled(producers: Mapping[str, Draft], value: str) -> tuple[str, float]:
    """``value`` in front of a multiplication with a constant, and the constant."""
    draft = producers.get(value)
    if draft is None or draft.operator != "Mul" or "constant" not in draft.attributes:
        return value, 1.0
    return draft.inputs[0], float(str(draft.attributes["constant"]))


def _softplus(draft: Draft, producers: Mapping[str, Draft]) -> Draft | None:
    """``log(1 + exp(x))``, and ``log(sigmoid(x))`` and ``log(softmax(x))``."""
    inner = producers.get(draft.inputs[0]) if draft.operator == "Log" else None
    if inner is None:
        return None
    if inner.operator == "Softmax":
        return replace(inner, name=draft.name, operator="LogSoftmax", outputs=draft.outputs)
    power = producers.get(inner.inputs[0]) if _constant(inner, "Add", 1.0) else None
    if power is None or power.operator != "Exp":
        return None
    return replace(draft, operator="Softplus", inputs=power.inputs)


def _softsign(draft: Draft, producers: Mapping[str, Draft]) -> Draft | None:
    """``x / (1 + |x|)``."""
    if draft.operator != "Div":
        return None
    value, divisor = draft.inputs
    shifted = producers.get(divisor)
    size = (
        producers.get(shifted.inputs[0]) if shifted is not None and _constant(shifted, "Add", 1.0) else None
    )
    if size is None or size.operator != "Abs" or size.inputs != (value,):
        return None
    return replace(draft, operator="Softsign", inputs=(value,))


def _threshold(draft: Draft, producers: Mapping[str, Draft]) -> Draft | None:
    """``x`` times whether it is above a number."""
    if draft.operator != "Mul" or len(draft.inputs) != 2:
        return None
    for value, other in (draft.inputs, draft.inputs[::-1]):
        cast = producers.get(other)
        above = producers.get(cast.inputs[0]) if cast is not None and cast.operator == "Cast" else None
        if above is None or above.operator != "Greater" or above.inputs != (value,):
            continue
        limit = float(str(above.attributes.get("constant", math.nan)))
        if limit == 0.0:
            return replace(draft, operator="Relu", inputs=(value,), attributes={})
        if not math.isnan(limit):
            return replace(draft, operator="ThresholdedRelu", inputs=(value,), attributes={"alpha": limit})
    return None


def _elu(draft: Draft, producers: Mapping[str, Draft]) -> Draft | None:
    """``max(x, 0) + alpha · (exp(min(x, 0) / alpha) - 1)``: CELU, and ELU where alpha is 1."""
    if draft.operator != "Add" or len(draft.inputs) != 2:
        return None
    for one, two in (draft.inputs, draft.inputs[::-1]):
        positive = producers.get(one)
        value, alpha = _scaled(producers, two)
        if alpha == 1.0 and (beneath := _lowered(producers, two)) is not None:
            value, alpha = beneath
        power = _minus_one(producers, value, alpha)
        if positive is None or positive.operator != "Relu" or power is None:
            continue
        inner, slope = _scaled(producers, power.inputs[0])
        below = producers.get(inner)
        if below is None or below.operator != "Clip" or below.attributes != {"max": 0.0}:
            continue
        if below.inputs == positive.inputs and math.isclose(slope * alpha, 1.0, rel_tol=1e-5):
            operator = "Elu" if alpha == 1.0 else "Celu"
            return replace(draft, operator=operator, inputs=below.inputs, attributes={"alpha": alpha})
    return None


def _lowered(producers: Mapping[str, Draft], value: str) -> tuple[str, float] | None:
    """``alpha · e - alpha`` as the affine form that constants in a row have."""
    draft = producers.get(value)
    if draft is None or draft.operator != "Add" or "constant" not in draft.attributes:
        return None
    alpha = -float(str(draft.attributes["constant"]))
    return value, alpha


def _minus_one(producers: Mapping[str, Draft], value: str, alpha: float) -> Draft | None:
    """``e`` of ``alpha · e - alpha``, an exponential."""
    draft = producers.get(value)
    if draft is None or not _constant(draft, "Add", -alpha):
        return None
    inner, factor = _scaled(producers, draft.inputs[0])
    power = producers.get(inner)
    fits = power is not None and power.operator == "Exp" and math.isclose(factor, alpha, rel_tol=1e-5)
    return power if fits else None


def _log_sum_exp(draft: Draft, producers: Mapping[str, Draft]) -> Draft | None:
    """``log(sum(exp(x - m))) + m``, with ``m`` the largest ``x``."""
    if draft.operator != "Add" or len(draft.inputs) != 2:
        return None
    for one, two in (draft.inputs, draft.inputs[::-1]):
        log = producers.get(_before_moves(producers, one))
        total = producers.get(log.inputs[0]) if log is not None and log.operator == "Log" else None
        power = (
            producers.get(total.inputs[0]) if total is not None and total.operator == "ReduceSum" else None
        )
        shifted = producers.get(power.inputs[0]) if power is not None and power.operator == "Exp" else None
        if total is None or shifted is None or shifted.operator != "Sub":
            continue
        largest = _before_moves(producers, shifted.inputs[1])
        peak = producers.get(largest)
        if peak is None or peak.operator != "ReduceMax" or peak.inputs != shifted.inputs[:1]:
            continue
        if _before_moves(producers, two) == largest and peak.attributes["axes"] == total.attributes["axes"]:
            keep = len(draft.shape) == len(peak.shape)
            attributes = {**total.attributes, "keepdims": keep and bool(peak.attributes["keepdims"])}
            return replace(draft, operator="ReduceLogSumExp", inputs=peak.inputs, attributes=attributes)
    return None


def _before_moves(producers: Mapping[str, Draft], value: str) -> str:
    draft = producers.get(value)
    while draft is not None and draft.operator in {"Reshape", "Flatten", "Identity"}:
        value = draft.inputs[0]
        draft = producers.get(value)
    return value


_RULES = (_hard_sigmoid, _gated, _gelu, _softplus, _softsign, _threshold, _elu, _log_sum_exp)
