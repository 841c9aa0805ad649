"""Small changes of a graph, one of which may be all that lies between it and another one: what people write otherwise by mistake."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from itertools import islice, permutations
from typing import Any

import numpy as np
from numpy.typing import NDArray

from xbackend_fl.mapping.diagnosis.change import Change, Changes, Pool, words
from xbackend_fl.mapping.diagnosis.graph import SILENT, Graph, Step
from xbackend_fl.mapping.diagnosis.numbers import attributes, bounds, constants, places, with_constant

Array = NDArray[Any]

_REWIRED = 12
"""Most other values that are tried as what a step reads."""

_ALIKE: tuple[frozenset[str], ...] = (
    frozenset({"Relu", "Sigmoid", "Tanh", "Softplus", "Softsign", "Gelu", "Elu", "Selu", "HardSwish", "HardSigmoid", "Mish", "Abs", "Exp", "Sin", "Cos", "Erf", "Sqrt", "Neg", "Reciprocal", "Identity", "LeakyRelu", "Log", "Sign"}),
    frozenset({"ReduceMean", "ReduceSum", "ReduceMax", "ReduceMin", "ReduceProd", "ReduceLogSumExp", "ReduceL2"}),
    frozenset({"Add", "Sub"}),
    frozenset({"Mul", "Div"}),
    frozenset({"Max", "Min"}),
    frozenset({"Less", "LessOrEqual", "Greater", "GreaterOrEqual", "Equal"}),
    frozenset({"And", "Or", "Xor"}),
    frozenset({"Softmax", "LogSoftmax"}),
    frozenset({"Floor", "Ceil", "Round"}),
    frozenset({"MaxPool", "AveragePool"}),
    frozenset({"ArgMax", "ArgMin"}),
)  # fmt: skip
"""Operators that stand in for each other."""

_RARE = frozenset({"Sign", "Abs", "Neg", "Reciprocal", "Erf", "Sin", "Cos", "Exp", "Log", "Sqrt", "Softsign"})
"""What nobody takes for an activation: it stands for another one only if the other graph has it."""

_ORDERED = frozenset(
    {"Sub", "Div", "Pow", "MatMul", "Less", "Greater", "LessOrEqual", "GreaterOrEqual", "Mod"}
)

_LARGE = 1e3
"""From here on a factor of a mask is one."""

_SMALL = 1e-3
"""What is smaller stands for nothing that is multiplied or added."""

_MOVES = SILENT - {"Flatten"}
"""Steps that move values: a difference there shows in what reads them."""


def simple(graph: Graph, index: int, pool: Pool, values: Mapping[str, Array]) -> Changes:
    """Another attribute, constant, operator or order at one step, or the step left out.

    Args:
        graph: The graph.
        index: The step.
        pool: What the other graph is made of.
        values: What every step makes in a run.
    """
    step = graph.steps[index]
    if step.operator in _MOVES and not (step.operator == "Identity" and step.inputs[0] in graph.constants):
        return
    yield from attributes(index, step, pool, values)
    yield from bounds(graph, step, index)
    yield from constants(graph, index, step, pool)
    yield from places(graph, index, step, values)
    yield from _absent(graph, index, step, values)
    yield from _orders(index, step)
    yield from _operators(graph, index, step, pool)


def _operators(graph: Graph, index: int, step: Step, pool: Pool) -> Changes:
    if step.operator == "Identity":
        return
    if step.operator in {"Add", "Mul"} and not any(name in graph.constants for name in step.inputs):
        other = "Mul" if step.operator == "Add" else "Add"
        yield Change(index, (replace(step, operator=other),), "operation", step.operator, other)
    for group in _ALIKE:
        if step.operator in group:
            for other in sorted(group - {step.operator}):
                own = dict(step.attributes) if len(group) < len(_ALIKE[0]) else {}
                there = [dict(found) for found in pool.sets(other)] if group is _ALIKE[0] else []
                if other in _RARE and not there:
                    continue
                for given in there or [own]:
                    new = replace(step, operator=other, attributes=given)
                    yield Change(index, (new,), "operation", step.operator, other)
            return


def _orders(index: int, step: Step) -> Changes:
    """What is read in another order."""
    if step.operator in _ORDERED and len(step.inputs) == 2:
        yield _reordered(index, step, step.inputs[::-1])
    if step.operator == "Where":
        condition, one, two = step.inputs
        yield _reordered(index, step, (condition, two, one))
    if step.operator == "Concat" and len(step.inputs) > 1:
        for inputs in islice(permutations(step.inputs), 1, 6):
            yield _reordered(index, step, inputs)


def _reordered(index: int, step: Step, inputs: tuple[str, ...]) -> Change:
    old, new = (", ".join(map(repr, names)) for names in (step.inputs, inputs))
    return Change(index, (replace(step, inputs=inputs),), "order of what it reads", old, new)


def _absent(graph: Graph, index: int, step: Step, values: Mapping[str, Array]) -> Changes:
    """The step left out: what it reads goes on as it is."""
    (output, *more) = step.outputs
    if more or output not in values:
        return
    shape, kind = values[output].shape, values[output].dtype
    for name in dict.fromkeys(step.inputs):
        found = values.get(name)
        if found is not None and found.shape == shape and found.dtype == kind:
            new = Step("Identity", (name,), step.outputs, {}, step.owner)
            gone = graph.left_out(index, new)
            yield Change(index, (new,), "presence", "present", f"{name!r} alone", left_out=gone)


def further(graph: Graph, index: int, pool: Pool, values: Mapping[str, Array]) -> Changes:
    """Another value read at one step, a number in the place of one, or axes in another order.

    Args:
        graph: The graph.
        index: The step.
        pool: What the other graph is made of.
        values: What every step makes in a run.
    """
    step = graph.steps[index]
    yield from _rewired(graph, index, step, values)
    yield from _as_numbers(graph, index, step, pool)
    yield from _scaled(graph, index, step, pool)
    yield from _turned(index, step, values)


def _rewired(graph: Graph, index: int, step: Step, values: Mapping[str, Array]) -> Changes:
    before = {port.name for port in graph.schema.inputs}
    before |= {name for other in graph.steps[:index] for name in other.outputs}
    for place, name in enumerate(step.inputs):
        own = values.get(name)
        if own is None or name in graph.constants:
            continue
        fitting = [
            other
            for other in reversed(list(values))
            if other in before
            and other not in step.inputs
            and values[other].shape == own.shape
            and values[other].dtype == own.dtype
            and not np.array_equal(values[other], own)
        ]
        for other in fitting[:_REWIRED]:
            inputs = (*step.inputs[:place], other, *step.inputs[place + 1 :])
            new = replace(step, inputs=inputs)
            gone = graph.left_out(index, new) if other in graph.before(name) else ()
            what = "presence" if gone else "input"
            yield Change(index, (new,), what, repr(name), repr(other), left_out=gone)


def _as_numbers(graph: Graph, index: int, step: Step, pool: Pool) -> Changes:
    if step.operator not in {"Mul", "Div", "Add", "Sub", "Where"}:
        return
    for place, name in enumerate(step.inputs):
        if name in graph.constants or (step.operator == "Where" and not place):
            continue
        for number in (*pool.numbers, *(1 / n for n in pool.numbers if n)):
            if abs(number) < _SMALL:
                # It would take out whatever it stands for, and explain nothing.
                continue
            new, added = with_constant(step, place, np.asarray(number, np.float32), "v")
            yield Change(index, (new,), "input", repr(name), f"the number {words(number)}", added)


def _scaled(graph: Graph, index: int, step: Step, pool: Pool) -> Changes:
    """What is added, as many times as the other graph has a large number for: a mask that hides too little."""
    if step.operator not in {"Add", "Sub"}:
        return
    for place, name in enumerate(step.inputs):
        if name in graph.constants:
            continue
        for number in dict.fromkeys(sign * n for n in pool.numbers if abs(n) >= _LARGE for sign in (1, -1)):
            label = f"_scaled_{step.outputs[0]}_{place}"
            scale = Step("Mul", (name, f"{label}_by"), (label,), {}, step.owner)
            inputs = (*step.inputs[:place], label, *step.inputs[place + 1 :])
            added = {f"{label}_by": np.asarray(number, np.float32)}
            new = (scale, replace(step, inputs=inputs))
            yield Change(index, new, "scale of what is added", "1", words(number), added)


def _turned(index: int, step: Step, values: Mapping[str, Array]) -> Changes:
    if step.operator != "Transpose" or step.inputs[0] not in values:
        return
    shape = values[step.inputs[0]].shape
    own = tuple(step.attributes["perm"])
    made = [shape[axis] for axis in own]
    for perm in islice(permutations(range(len(shape))), 120):
        if perm != own and [shape[axis] for axis in perm] == made:
            new = replace(step, attributes={"perm": list(perm)})
            yield Change(index, (new,), "perm", words(own), words(perm))
