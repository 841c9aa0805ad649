"""Turns what was found, or not found, into the message that a person reads."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import Any

import numpy as np
from numpy.typing import NDArray

from xbackend_fl.adapter import Adapter, Trainer
from xbackend_fl.canonical import Description, Kind, Node, Schema, TrainingEffect
from xbackend_fl.canonical.schema import AttributeValue
from xbackend_fl.errors import MismatchError, UnprovenError
from xbackend_fl.mapping.cases import cases
from xbackend_fl.mapping.diagnose import Difference
from xbackend_fl.mapping.draw import draw_weights
from xbackend_fl.mapping.probe import Evidence, by_shape, observe
from xbackend_fl.mapping.runtime import execute
from xbackend_fl.mapping.verify import TOLERANCE, Proof, relative_error

SHOWN = 8
"""How many differences a message lists."""

Array = NDArray[Any]


def mismatch(
    found: Sequence[Difference],
    schema: Schema,
    description: Description,
    adapter: Adapter,
    *,
    example: Sequence[Array] = (),
    verdict: str = "",
    reference: tuple[Adapter, Mapping[str, str]] | None = None,
) -> MismatchError:
    """The error for two graphs that differ.

    Args:
        found: What differs.
        schema: The reference's schema.
        description: The candidate.
        adapter: The candidate's adapter.
        example: One array per input; with it, the effect of each changed attribute is measured.
        verdict: What the probe that needs no map says.
        reference: The reference's adapter and its native names by node, if they are known here.
    """
    effects = _effects(schema, found[:SHOWN], example)
    lines = [f"  {difference}{effect}" for difference, effect in zip(found, effects, strict=False)]
    if len(found) > SHOWN:
        lines.append(f"  … and {len(found) - SHOWN} more")
    if verdict:
        lines.append(f"  {verdict}")
    hints: dict[str, None] = {}
    for difference in found[:SHOWN]:
        native = description.binding.nodes.get(difference.candidate, difference.candidate)
        hints |= dict.fromkeys(_advice(adapter, native, difference, difference.expected))
        if reference is not None:
            native = reference[1].get(difference.reference, difference.reference)
            there = _advice(reference[0], native, difference, difference.received)
            hints |= dict.fromkeys(f"or {line}" for line in there)
    message = "\n".join(["the two models are not the same function:", *lines])
    return MismatchError(message, hint="; ".join(hints) or None)


def verdict_by_shape(trainer: Trainer, description: Description, evidence: Sequence[Evidence] | None) -> str:
    """Whether both models compute the same when equal shapes hold equal weights: it needs no map.

    Args:
        trainer: The candidate; its weights are changed.
        description: The candidate's own description.
        evidence: What the reference did, this probe included.
    """
    found = by_shape(evidence)
    if not found:
        return ""
    item = found[0]
    case = replace(item.case, differentiate=False)
    outputs = observe(trainer, description.binding, description.schema, case, {}).outputs
    if [a.shape for a in outputs] != [a.shape for a in item.outputs]:
        return ""
    error = max(relative_error(a, b) for a, b in zip(outputs, item.outputs, strict=True))
    spread = max(float(np.ptp(a, axis=0).max()) / (float(np.abs(a).max()) or 1.0) for a in item.outputs)
    if error > TOLERANCE:
        return f"given equal weights by shape, outputs differ by {error:.1e}: the difference is real"
    if spread < 1e-2:
        return ""
    return (
        f"given equal weights by shape, outputs agree to {error:.1e}: it is probably one function in two forms, "
        "and the map between them is not known"
    )


def failure(proof: Proof, effects: Sequence[TrainingEffect] = ()) -> MismatchError | UnprovenError:
    """The error for a binding that the numbers contradict, or do not support.

    Args:
        proof: The comparisons.
        effects: What either model does in training beside its graph; they are named where only training differs.
    """
    failed = [check for check in proof.checks if not check.passed]
    if not failed:
        return _unproven(proof.unproven)
    lines = [
        f"  {check.what} at {check.case}: relative error {check.error:.1e}"
        + (f" in {check.where!r}" if check.where else "")
        for check in failed[:SHOWN]
    ]
    if effects and {check.what for check in failed} <= {"gradients", "step", "statistics"}:
        causes = dict.fromkeys(map(str, effects))
        head = "outputs agree, and training does not:"
        return MismatchError(
            "\n".join([head, *lines, *(f"  {cause}" for cause in causes)]),
            hint="; ".join(dict.fromkeys(effect.cure for effect in effects)),
        )
    agree = {check.case for check in proof.checks} - {check.case for check in failed}
    hint = "look for a custom layer, a different activation, or another axis order of the data"
    if agree - {"all draws"}:
        hint = f"the models agree at: {'; '.join(sorted(agree))}. Uneven SAME padding depends on the size"
    head = f"the graphs match but the numbers do not (tolerance {proof.tolerance:.0e}):"
    return MismatchError("\n".join([head, *lines]), hint=hint)


def _unproven(names: Mapping[str, str]) -> UnprovenError:
    shown = [f"  {name}: {reason}" for name, reason in list(names.items())[:SHOWN]]
    if len(names) > SHOWN:
        shown.append(f"  … and {len(names) - SHOWN} more")
    head = (
        "nothing contradicts the map, but it is not proven: normal numbers, zeros and ones, ones, small and large values "
        "and the example leave parameters unseen, so another pairing would agree as well:"
    )
    return UnprovenError(
        "\n".join([head, *shown]),
        hint="give data on which they matter as the example, e.g. --input mask.npy (an array in ONNX layout), or a longer "
        "sequence; a layer that no output needs can go",
    )


def _advice(adapter: Adapter, native: str, difference: Difference, wanted: str) -> list[str]:
    if difference.attribute in {"structure", "connection"}:
        return []
    role, _, what = difference.attribute.partition(" ")
    if what == "shape":
        return [f"{adapter.name}: {native}: give its {role} the shape {wanted}"]
    if "shared with" in difference.expected or "shared with" in difference.received:
        return [f"{adapter.name}: {native}: its {role} must be {wanted}"]
    if what == "kind":
        return [adapter.hint(native, difference.operator, "trainable", wanted == Kind.TRAINABLE)]
    value: object = {"present": True, "absent": False}.get(wanted, wanted)
    return [adapter.hint(native, difference.operator, role, value)]


def _effects(schema: Schema, found: Sequence[Difference], example: Sequence[Array]) -> list[str]:
    """How far each changed attribute alone moves the outputs of the reference, by ONNX Runtime."""
    if not example or all(difference.value is None for difference in found):
        return [""] * len(found)
    case = cases(schema, example)[0]
    weights = draw_weights(schema, case.seed)
    before = execute(schema, weights, case.inputs)

    def effect(difference: Difference, value: AttributeValue) -> str:
        changed = replace(schema, nodes=tuple(_with(node, difference, value) for node in schema.nodes))
        try:
            after = execute(changed, weights, case.inputs)
        except Exception:  # noqa: BLE001  ONNX Runtime has no error type of its own for a graph that cannot run
            return " (outputs then have another shape)"
        if [a.shape for a in after] != [a.shape for a in before]:
            return " (outputs then have another shape)"
        error = max(relative_error(a, b) for a, b in zip(after, before, strict=True))
        return f" (moves outputs by {error:.1e})"

    return ["" if item.value is None else effect(item, item.value) for item in found]


def _with(node: Node, difference: Difference, value: AttributeValue) -> Node:
    if node.name != difference.reference:
        return node
    return replace(node, attributes={**node.attributes, difference.attribute: value})
