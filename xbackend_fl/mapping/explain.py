"""Turns what was found, or not found, into the message that a person reads."""

from __future__ import annotations

import ast
import re
from collections.abc import Container, Mapping, Sequence
from dataclasses import replace
from typing import Any

import numpy as np
from numpy.typing import NDArray

from xbackend_fl.adapter import Adapter
from xbackend_fl.adapter.canonical_model import CanonicalModel
from xbackend_fl.canonical import Binding, Description, Kind, Node, Property, Schema, has
from xbackend_fl.canonical.layout import leaves
from xbackend_fl.canonical.node import AttributeValue
from xbackend_fl.canonical.ops import OPERATORS
from xbackend_fl.errors import MismatchError, UnprovenError
from xbackend_fl.mapping.align.pairings import Outcome
from xbackend_fl.mapping.diagnosis.cause import Cause
from xbackend_fl.mapping.match.difference import Difference
from xbackend_fl.mapping.probe.cases import cases
from xbackend_fl.mapping.probe.draw import draw_weights
from xbackend_fl.mapping.probe.probe import Evidence, by_shape, observe
from xbackend_fl.mapping.probe.runtime import execute
from xbackend_fl.mapping.proof.verify import TOLERANCE, Proof, relative_error

UNMOVED = 1e-7
"""A change of outputs that rounding alone makes."""

_FORMAL = frozenset({"structure", "operation", "axis", "axes", "index"})
"""Differences that one function may have in two forms."""

SHOWN = 8
"""How many differences a message lists."""

_BESIDE = 3
"""How many differences of form a message lists beside a cause."""

Array = NDArray[Any]


def mismatch(
    found: Sequence[Difference],
    schema: Schema,
    description: Description,
    adapter: Adapter,
    *,
    example: Sequence[Array] = (),
    verdict: str = "",
    reference: tuple[Adapter, Binding] | None = None,
    cause: Cause | None = None,
) -> MismatchError:
    """The error for two graphs that differ.

    Args:
        found: What differs.
        schema: The reference's schema.
        description: The candidate.
        adapter: The candidate's adapter.
        example: One array per input; with it, the effect of each changed attribute is measured.
        verdict: What the probe that needs no map says.
        reference: The reference's adapter and binding, if they are known here.
        cause: What the values of both graphs say; differences of form then come behind it, and are fewer.
    """
    alike, shown = _alike(found), SHOWN if cause is None else _BESIDE
    effects = _effects(schema, alike[:shown], example)
    sides = (None if reference is None else reference[1], description.binding)
    lines = [
        f"  {items[0]}{_more(items)}{_shapes(items[0], schema, sides)}{effect}"
        for items, effect in zip(alike, effects, strict=False)
    ]
    if len(alike) > shown:
        lines.append(f"  … and {len(alike) - shown} more")
    if cause is not None:
        lines = [*(f"  {line}" for line in cause.lines), *lines]
    if verdict:
        lines.append(f"  {verdict}")
    hints: dict[str, None] = {cause.cure: None} if cause and cause.cure else {}
    for items in alike[:shown]:
        there = description.binding.nodes
        native = _names([there.get(item.candidate, item.candidate) for item in items])
        if place := description.places.get(items[0].candidate):
            native += f" ({place})"
        hints |= dict.fromkeys(_advice(adapter, native, items[0], items[0].expected))
        if reference is not None:
            here = reference[1].nodes
            native = _names([here.get(item.reference, item.reference) for item in items])
            other = _advice(reference[0], native, items[0], items[0].received)
            hints |= dict.fromkeys(f"or {line}" for line in other)
    # Other nodes may be the same function in another form; equal nodes that are fed otherwise are not.
    formal = all(item.attribute in _FORMAL for item in found) and not (cause and cause.sure)
    head = "the graphs of the two models differ:" if formal else "the two models are not the same function:"
    message = "\n".join([head, *lines])
    return MismatchError(message, hint="; ".join(hints) or None)


def _alike(found: Sequence[Difference]) -> list[list[Difference]]:
    """Differences that are the same at several nodes, together."""
    groups: dict[object, list[Difference]] = {}
    for item in found:
        place = (
            item.reference if item.attribute in {"structure", "connection", "width", "input width"} else ""
        )
        key = (item.operator, item.attribute, item.expected, item.received, place)
        groups.setdefault(key, []).append(item)
    return list(groups.values())


def _more(items: Sequence[Difference]) -> str:
    return f", and so at {len(items) - 1} more of these" if len(items) > 1 else ""


def _names(names: Sequence[str]) -> str:
    """Native places, as the user names them: the second call of a layer is the same layer's."""
    unique = list(dict.fromkeys(re.sub(r"@\d+$", "", name) for name in names))
    return ", ".join(unique[:3]) + (f" and {len(unique) - 3} more" if len(unique) > 3 else "")


def _shapes(difference: Difference, schema: Schema, sides: tuple[Binding | None, Binding]) -> str:
    """The tensors that show a difference, as each framework prints their shapes."""
    ours, theirs = difference.parameters
    if not ours or not theirs:
        return ""
    first = _native(sides[0], ours)
    if first is None:
        first = f"{ours} {list(schema.by_name[ours].shape)} in ONNX's order"
    second = _native(sides[1], theirs)
    return f" ({first}; {second})" if second else f" ({first})"


def _native(binding: Binding | None, parameter: str) -> str | None:
    layout = None if binding is None else binding.parameters.get(parameter)
    if binding is None or layout is None:
        return None
    leaf = next(leaves(layout))
    return f"{leaf.tensor} {list(leaf.full_shape)} in {binding.backend}"


def verdict_by_shape(model: CanonicalModel, evidence: Sequence[Evidence] | None) -> str:
    """How closely both models' outputs agree on normal data when equal shapes hold equal weights: it needs no map.

    Args:
        model: The candidate under its own schema; its weights are changed.
        evidence: What the reference did, this probe included.
    """
    found = by_shape(evidence)
    if not found:
        return ""
    item = found[0]
    case = replace(item.case, differentiate=False)
    outputs = observe(model, case, {}).outputs
    if [a.shape for a in outputs] != [a.shape for a in item.outputs]:
        return ""
    error = max(relative_error(a, b) for a, b in zip(outputs, item.outputs, strict=True))
    spread = max(float(np.ptp(a, axis=0).max()) / (float(np.abs(a).max()) or 1.0) for a in item.outputs)
    if error > TOLERANCE:
        # Another form of one function may hold its weights in other shapes, or their elements in another order.
        return ""
    if spread < 1e-2:
        return ""
    return (
        f"on normal data, given equal weights by shape, outputs agree to {error:.1e}; other data were not compared so, "
        "and the map between the models is not known"
    )


def not_finite_apart(proof: Proof) -> str:
    """Where one model alone has a finite number, and on what data; empty if that is nowhere."""
    return next(
        (f"{check.apart} ({check.what} at {check.case})" for check in proof.checks if check.apart), ""
    )


def apart_somewhere(proof: Proof) -> str:
    """Where the best pairing's outputs differ, if there is data on which they agree; empty otherwise."""
    compared = [check for check in proof.checks if check.what == "outputs"]
    wrong = [check for check in compared if not check.passed]
    if not wrong or len(wrong) == len(compared):
        return ""
    worst = max(wrong, key=lambda check: check.error)
    return (
        f"with the parameters paired by their gradients, outputs agree in {len(compared) - len(wrong)} comparisons and differ by "
        f"{worst.error:.1e} at {worst.case}"
    )


def failure(
    found: Outcome, schema: Schema, candidate: Description, cause: Cause | None = None
) -> MismatchError | UnprovenError:
    """The error for a binding that the numbers contradict, or do not support.

    Args:
        found: The comparisons, and how many other pairings were tried.
        schema: The reference.
        candidate: The candidate's own description.
        cause: What the values of both graphs say.
    """
    proof = found.proof
    failed = [check for check in proof.checks if not check.passed]
    if not failed:
        return _unproven(proof.unproven, {parameter.name for parameter in schema.parameters})
    lines = []
    for what in dict.fromkeys(check.what for check in failed):
        wrong = [check for check in failed if check.what == what]
        worst = max(wrong, key=lambda check: check.error)
        every = sum(check.what == what for check in proof.checks)
        if what == "reacts":
            lines.append(f"  {_mixed(schema) or _ignored(worst.error)}")
            continue
        apart = worst.apart or "another shape, or no finite numbers,"
        how = f"relative error {worst.error:.1e}" if np.isfinite(worst.error) else apart
        where = f" in {worst.where!r}" if worst.where else ""
        count = f"; {len(wrong)} of {every} comparisons fail" if every > 1 else ""
        lines.append(f"  {what}: {how} at {worst.case}{where}{count}")
    if found.tried:
        end = "; more are left, and were not tried" if found.more else ""
        lines.append(
            f"  {found.tried} other pairings of nodes that structure does not tell apart were tried, and none agrees{end}"
        )
    effects = (*schema.training_effects, *candidate.schema.training_effects)
    if effects and {check.what for check in failed} <= {"gradients", "step", "statistics"}:
        causes = dict.fromkeys(map(str, effects))
        return MismatchError(
            "\n".join(["outputs agree, and training does not:", *lines, *(f"  {cause}" for cause in causes)]),
            hint="; ".join(dict.fromkeys(effect.cure for effect in effects)),
        )
    head = f"the graphs match but the numbers do not (tolerance {proof.tolerance:.0e}):"
    if {check.what for check in failed} == {"reacts"}:
        head = "nothing contradicts the map, but nothing shows it either:"
    if cause is not None:
        lines = [*(f"  {line}" for line in cause.lines), *lines]
    hint = cause.cure if cause and cause.cure else _beyond_structure(proof, schema, candidate)
    return MismatchError("\n".join([head, *lines]), hint=hint)


_ONE_BY_ONE = "the model mixes the examples of a batch, or writes out how many there are: x.reshape(x.shape[0], …) instead of x.reshape(1, …)"


def _mixed(schema: Schema) -> str:
    """What to say of a first output that has not one row per example; empty if it has."""
    data, found = schema.inputs[0].shape[:1], schema.outputs[0].shape[:1]
    return "" if data == found else f"the first output has {found[0]} rows for {data[0]} examples"


def _ignored(reaction: float) -> str:
    if np.isinf(reaction):
        return "outputs are the same for all examples of a batch, in every draw"
    return f"outputs of different examples differ by {1 / reaction:.1e} of their size at most, in every draw"


def _beyond_structure(proof: Proof, schema: Schema, candidate: Description) -> str:
    """What can differ between two graphs whose nodes and attributes agree, as far as it is there."""
    failed = {check.what for check in proof.checks if not check.passed}
    if failed == {"reacts"} and _mixed(schema):
        return _ONE_BY_ONE
    if failed == {"reacts"}:
        return (
            "two functions that ignore their data are always equal: return something of every example "
            "(no mean over the batch, no constant), or give several examples that they tell apart: --input examples.npy"
        )
    outputs = [check for check in proof.checks if check.what in {"outputs", "onnx runtime"}]
    if apart := [check for check in outputs if check.apart]:
        return (
            f"one model overflows, or divides by zero, on data that the other answers ({apart[0].case}): write it as the other does, with the "
            "library's own function (softmax, softplus, logsigmoid, tanh, logsumexp), or with a bound on what is divided by"
        )
    if all(np.isinf(check.error) for check in outputs if check.what == "onnx runtime"):
        return _ONE_BY_ONE
    wrong, right = ({c.case for c in outputs if c.passed is passed} for passed in (False, True))
    if wrong and right and len(wrong) == 1:
        resized = [n.name for n in (*schema.nodes, *candidate.schema.nodes) if _depends_on_size(n)]
        cause = (
            f"; {resized[0]!r} pads unevenly, as padding='same' and ceil_mode do at some sizes"
            if resized
            else ""
        )
        return (
            f"the outputs agree at {'; '.join(sorted(right))}, and not at {wrong.pop()}{cause}; "
            "what a model computes from the size of its data (a padding, a length) is in its graph as at the example"
        )
    for side, nodes in (("reference", schema.nodes), ("candidate", candidate.schema.nodes)):
        readers = [node.name for node in nodes if node.name in _across_batches(nodes)]
        others = candidate.schema.nodes if side == "reference" else schema.nodes
        if readers and not _across_batches(others):
            return (
                f"in the {side}, {readers[0]!r} runs along axis 0 of the example, the batch, and in the other model not: "
                "batch_first=True, or declare the order of its axes: with_axes(model, inputs=[(1, 0, 2)])"
            )
    read = "; ".join(
        f"input {i} as {list(axes.perm)} ({axes.note or 'as given'})"
        for i, axes in enumerate(candidate.binding.inputs)
    )
    return (
        "nodes and attributes agree; the order of axes and of reshaped features does not show in them. "
        f"The candidate reads {read}; with_axes declares another order"
    )


def _depends_on_size(node: Node) -> bool:
    pads = node.attributes.get("pads")
    uneven = isinstance(pads, tuple) and pads[: len(pads) // 2] != pads[len(pads) // 2 :]
    return has(node.operator, Property.WINDOWED) and (uneven or bool(node.attributes.get("ceil_mode")))


def _across_batches(nodes: Sequence[Node]) -> set[str]:
    """Recurrent and attention nodes that read an odd number of exchanges of the batch with another axis."""
    turned: set[str] = set()
    found: set[str] = set()
    for node in nodes:
        inside = any(value in turned for value in node.inputs)
        perm = node.attributes.get("perm")
        if node.operator == "Transpose" and isinstance(perm, tuple) and perm[0] != 0:
            inside = not inside
        if inside:
            turned.update(node.outputs)
            if has(node.operator, Property.SERIES):
                found.add(node.name)
    return found


def _unproven(names: Mapping[str, str], parameters: Container[str]) -> UnprovenError:
    if len(set(names.values())) == 1 and len(names) > SHOWN // 2:
        shown = [f"  {_names(list(names))}: {next(iter(names.values()))}"]
    else:
        shown = [f"  {name}: {reason}" for name, reason in list(names.items())[:SHOWN]]
        if len(names) > SHOWN:
            shown.append(f"  … and {len(names) - SHOWN} more")
    if not any(name in parameters for name in names):
        return UnprovenError(
            "\n".join(["nothing contradicts the map, but it is not proven:", *shown]),
            hint="give data that holds such values, and others, as the example: --input data.npy (an array in ONNX layout); or let both models "
            "ask the same of their data",
        )
    head = (
        "nothing contradicts the map, but it is not proven: normal numbers, zeros and ones, ones, small and large values, "
        "patterns and the example leave parameters unseen, so another pairing would agree as well:"
    )
    return UnprovenError(
        "\n".join([head, *shown]),
        hint="give data on which they matter as the example, e.g. --input mask.npy (an array in ONNX layout), or a longer "
        "sequence; a layer that no output needs can go",
    )


def _advice(adapter: Adapter, native: str, difference: Difference, wanted: str) -> list[str]:
    said = {"structure", "connection", "operation", "initial state", "order of axes", "entry"}
    if difference.attribute in said:
        return []
    if (difference.operator, difference.attribute) == ("Select", "direction"):
        return []
    if difference.attribute == "epsilon" and "epsilon" not in (OPERATORS[difference.operator].attributes):
        # It is added by hand, or bounds something: whoever wrote it knows the place.
        both = {difference.expected, difference.received}
        instead = "".join(both - {wanted})
        return [f"{adapter.name}: {native}: {wanted} instead of {instead}"] if "absent" not in both else []
    role, _, what = difference.attribute.rpartition(" ")
    role = role or difference.attribute
    if what == "shape":
        return [f"{adapter.name}: {native}: give its {role} the shape {wanted}"]
    if "shared with" in difference.expected or "shared with" in difference.received:
        return [f"{adapter.name}: {native}: its {role} must be {wanted}"]
    if what == "kind":
        return [adapter.hint(native, difference.operator, "trainable", wanted == Kind.TRAINABLE)]
    return [adapter.hint(native, difference.operator, role, _value(difference, wanted))]


def _value(difference: Difference, wanted: str) -> object:
    """A value as it is, from the words in which a difference says it."""
    attribute = difference.attribute in (OPERATORS[difference.operator].attributes)
    if wanted in {"present", "absent"}:
        return None if attribute else wanted == "present"
    try:
        return ast.literal_eval(wanted)
    except (SyntaxError, ValueError):
        return wanted


def _effects(schema: Schema, found: Sequence[Sequence[Difference]], example: Sequence[Array]) -> list[str]:
    """How far each changed attribute, at all the nodes that differ in it, moves the outputs of the reference, by ONNX Runtime."""
    if not example or schema.opaque or all(items[0].value is None for items in found):
        return [""] * len(found)
    case = cases(schema, example)[0]
    weights = draw_weights(schema, case.seed)
    before = execute(schema, weights, case.inputs)

    def effect(items: Sequence[Difference], value: AttributeValue) -> str:
        names, attribute = {item.reference for item in items}, items[0].attribute
        nodes = tuple(
            replace(node, attributes={**node.attributes, attribute: value}) if node.name in names else node
            for node in schema.nodes
        )
        changed = replace(schema, nodes=nodes)
        try:
            after = execute(changed, weights, case.inputs)
        except Exception:  # noqa: BLE001  ONNX Runtime has no error type of its own for a graph that cannot run
            return " (outputs then have another shape)"
        if [a.shape for a in after] != [a.shape for a in before]:
            return " (outputs then have another shape)"
        error = max(relative_error(a, b) for a, b in zip(after, before, strict=True))
        if error < UNMOVED:
            return " (moves no output at this size)"
        return f" (moves outputs by {error:.1e})"

    return ["" if items[0].value is None else effect(items, items[0].value) for items in found]
