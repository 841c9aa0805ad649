"""Says what a step does, and what of it differs, in words that a person reads."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from numpy.typing import NDArray

from xbackend_fl.mapping.diagnosis.change import Change, words
from xbackend_fl.mapping.diagnosis.graft import Graft
from xbackend_fl.mapping.diagnosis.graph import SILENT, Graph, Step
from xbackend_fl.mapping.diagnosis.search import Finding

Array = NDArray[Any]

_SIDES = "reference", "candidate"
_SHOWN = 5
"""Steps of each side that are shown where values part."""

_HIDING = -1e4
_ENDS = {0.0: "the first", -1.0: "the last"}
_NOTHING = "nothing more"
_AXES = frozenset({"axis", "axes", "perm"})


def found_lines(found: Finding, graphs: tuple[Graph, Graph], places: Mapping[str, str]) -> list[str]:
    """What differs, and how it is known; or where values part and what comes behind.

    Args:
        found: What was found.
        graphs: Reference and candidate.
        places: Line of the candidate's code by node name, where it is known.
    """
    if found.graft is not None:
        return [_branch(found.graft, graphs, places), _known(found)]
    if not found.changes:
        return list(_parted(found, graphs, places))
    graph, change = graphs[found.side], found.changes[0]
    more = f", and so at {len(found.changes) - 1} more of these" if len(found.changes) > 1 else ""
    flipped = " (so that ArgMax stands for ArgMin)" if _flips(graph, change) else ""
    what = _what(graph, change, found.side, places)
    return [f"{what}: {_difference(graph, change, found.side)}{flipped}{more}", _known(found)]


def _known(found: Finding) -> str:
    kinds = f"{found.draws} kinds of data" if found.draws > 1 else "the data"
    return (
        f"with that alone changed, outputs agree to {max(found.error, 1e-9):.0e} on {kinds}, under equal weights; "
        f"as they are, they differ by {found.before:.1e}"
    )


def _branch(graft: Graft, graphs: tuple[Graph, Graph], places: Mapping[str, str]) -> str:
    """What each side does between values that agree and one behind which all agrees."""
    branches = (graft.gone, graft.new)[:: 1 if graft.side == 0 else -1]
    told = [_goes_on(graphs[side], branches[side], places if side else {}) for side in (0, 1)]
    ends = (graft.location, graft.source)[:: 1 if graft.side == 0 else -1]
    for side in (0, 1):
        if told[side] == _NOTHING:
            return f"{told[1 - side]} of the {_SIDES[1 - side]}, in front of {ends[1 - side]!r}: missing in the {_SIDES[side]}, which goes on with {ends[side]!r}"
    return f"in front of {ends[0]!r} ({ends[1]!r} in the candidate): reference has {told[0]}, candidate has {told[1]}"


def cure(found: Finding, graphs: tuple[Graph, Graph], places: Mapping[str, str]) -> str:
    """What the candidate would have to do; empty if no single change is known."""
    if not found.changes:
        return ""
    graph, change = graphs[found.side], found.changes[0]
    what = _what(graph, change, found.side, places)
    if change.what == "presence":
        return f"leave out {what}" if found.side else f"the candidate needs {what}, too"
    wanted = change.new_words if found.side else change.old_words
    return f"{change.what} {wanted} in the candidate{', at ' if found.side else ', as at '}{what}"


def _what(graph: Graph, change: Change, side: int, places: Mapping[str, str]) -> str:
    """The step that is changed, or the steps that are left out."""
    told = [step for step in change.left_out if step.operator not in SILENT]
    if not told and change.new[0].operator != "Identity":
        # Another order of axes is all that goes, and not the step that reads it.
        told = list(change.left_out)
    subject = _subject(graph, graph.steps[change.index], side, places)
    if not told:
        return subject
    shown = [f"{described(graph, step)} {step.owner!r}" for step in told]
    place = next((places[step.owner] for step in told if step.owner in places), None) if side else None
    more = ", …" if len(shown) > _SHOWN else ""
    listed = f"{', '.join(shown[:_SHOWN])}{more}"
    if change.new[0].operator == "Identity":
        return f"{subject}, with {listed}"
    return f"{listed} of the {_SIDES[side]}" + (f" ({place})" if place else "")


def _flips(graph: Graph, change: Change) -> bool:
    """Whether a change turns the sign of what the place of the largest is asked of."""
    step = graph.steps[change.index]
    negates = step.operator in {"Neg", "Mul"} and change.what == "presence"
    turned = step.operator == "Sub" and change.what == "order of what it reads"
    return (negates or turned) and _only_for_largest(graph, step)


def _only_for_largest(graph: Graph, step: Step) -> bool:
    """Whether nothing comes of a step but the place of its largest, or of its least."""
    readers = [other for other in graph.steps if set(step.outputs) & set(other.inputs)]
    return bool(readers) and all(
        other.operator in {"ArgMax", "ArgMin"}
        or (other.operator in {"Mul", "Neg", *SILENT} and _only_for_largest(graph, other))
        for other in readers
    )


def _subject(graph: Graph, step: Step, side: int, places: Mapping[str, str]) -> str:
    place = places.get(step.owner) if side else None
    return f"{described(graph, step)} {step.owner!r} of the {_SIDES[side]}" + (f" ({place})" if place else "")


def _difference(graph: Graph, change: Change, side: int) -> str:
    """In the reference so, in the candidate otherwise."""
    if change.what == "presence":
        rest = change.new_words
        return f"missing in the {_SIDES[1 - side]}" + (
            "" if side or rest.startswith("'_") else f", which goes on with {rest}"
        )
    told = change.old_words, change.new_words
    if change.what == "input":
        told = _maker(graph, told[0]), _maker(graph, told[1])
    expected, received = told[:: 1 - 2 * side]
    axes = " (axes in ONNX's order)" if change.what in _AXES else ""
    return f"{change.what} is {expected} in the reference, {received} in the candidate{axes}"


def _maker(graph: Graph, word: str) -> str:
    """A value by what makes it, a step with its numbers, or by its name alone."""
    maker = next((step for step in graph.steps if word in map(repr, step.outputs)), None)
    return word if maker is None or maker.operator in SILENT else f"{described(graph, maker)} {word}"


def described(graph: Graph, step: Step) -> str:
    """A step with its numbers: ``Mul by 0.5``, ``Softmax over axis -1``, ``mask (Where)``."""
    numbers = [graph.constants[name] for name in step.inputs if name in graph.constants]
    single = [float(array.reshape(()).item()) for array in numbers if array.size == 1]
    if word := _mask(graph, step, single):
        return word
    match step.operator:
        case "Mul" | "Div" if single:
            return f"scale ({step.operator} with {words(single[0])})"
        case "Add" | "Sub" if single and single[0] <= _HIDING:
            return f"mask ({step.operator} with constant {words(single[0])})"
        case "Add" | "Sub" | "Pow" | "Max" | "Min" if single:
            return f"{step.operator} with constant {words(single[0])}"
        case "Clip" if len(single) == 2:
            return f"bound (Clip from {words(single[0])} to {words(single[1])})"
        case "Clip" if single:
            return f"bound ({'Max' if step.inputs[1:2] != ('',) else 'Min'} with {words(single[0])})"
        case "Identity" if numbers:
            return "constant"
        case "Gather" if single and single[0] in _ENDS and "axis" in step.attributes:
            return f"{_ENDS[single[0]]} along axis {step.attributes['axis']} (Gather)"
        case "Equal" | "Less" | "Greater" if single:
            return f"{step.operator} {words(single[0])}"
        case "Gelu":
            return f"Gelu ({words(step.attributes.get('approximate', 'none'))})"
    return _with_attributes(step, numbers)


def _mask(graph: Graph, step: Step, single: Sequence[float]) -> str:
    """What a step is called that hides something; empty if it does not."""
    makers = {other.operator for other in graph.steps if set(other.outputs) & set(step.inputs)}
    match step.operator:
        case "Trilu":
            return "causal mask (Trilu)"
        case "Add" if "Trilu" in makers:
            return "causal mask (Add)"
        case "Where" if any(number <= _HIDING for number in single):
            return "mask (Where)"
        case "Add" | "Sub" if not single and _in_front_of_softmax(graph, step):
            return f"mask or bias in front of a softmax ({step.operator})"
    return ""


def _with_attributes(step: Step, numbers: Sequence[Array]) -> str:
    axis, epsilon = step.attributes.get("axis"), step.attributes.get("epsilon")
    if epsilon is not None:
        return f"{step.operator} with epsilon {words(float(epsilon))}"
    if axis is not None:
        return f"{step.operator} over axis {axis}"
    if step.operator.startswith("Reduce") and numbers:
        return f"{step.operator} over axes {[int(number) for number in numbers[-1].ravel()]}"
    return step.operator


def _in_front_of_softmax(graph: Graph, step: Step) -> bool:
    """Whether nothing but moves lies between a step and a softmax."""
    names = set(step.outputs)
    for other in graph.steps:
        if not names.isdisjoint(other.inputs):
            if other.operator in {"Softmax", "LogSoftmax"}:
                return True
            if other.operator in SILENT:
                names |= set(other.outputs)
    return False


def _parted(found: Finding, graphs: tuple[Graph, Graph], places: Mapping[str, str]) -> list[str]:
    made = {name for step in graphs[0].steps for name in step.outputs}
    made |= {port.name for port in graphs[0].schema.inputs}
    last = [name for name in found.partings[0].last if name in made and not name.startswith("_")]
    pairs = [f"{name!r} ({found.known[name]!r} in the candidate)" for name in last[:3]]
    upto = f"values agree up to {', '.join(pairs)}" if pairs else "values part at the start"
    sides = [_goes_on(graphs[side], found.partings[side].region, places if side else {}) for side in (0, 1)]
    return [
        f"under equal weights by shape, {upto}; then the reference goes on with {sides[0]}",
        f"and the candidate with {sides[1]}; outputs differ by {found.before:.1e}",
    ]


def _goes_on(graph: Graph, region: Sequence[int], places: Mapping[str, str]) -> str:
    shown = []
    for index in region:
        step = graph.steps[index]
        if step.operator in SILENT and not any(name in graph.constants for name in step.inputs[:1]):
            continue
        place = places.get(step.owner)
        shown.append(f"{described(graph, step)} {step.owner!r}" + (f" ({place})" if place else ""))
    return ", ".join(shown[:_SHOWN]) + (", …" if len(shown) > _SHOWN else "") if shown else _NOTHING
