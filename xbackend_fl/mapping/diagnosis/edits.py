"""Small changes of a graph, one of which may be all that lies between it and another one: what people write otherwise by mistake."""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from itertools import islice, permutations
from typing import Any, TypeAlias

import numpy as np
from numpy.typing import NDArray

from xbackend_fl.mapping.diagnosis.graph import Graph, Step

Array = NDArray[Any]

_POOL = 24
"""Most numbers of the other graph that are tried in one place."""

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
)  # fmt: skip
"""Operators that stand in for each other."""

_ORDERED = frozenset(
    {"Sub", "Div", "Pow", "MatMul", "Less", "Greater", "LessOrEqual", "GreaterOrEqual", "Mod"}
)

_HIDES = -1e9
"""What is added to a score that nobody is to see."""

_LARGE = 1e3
"""From here on a factor of a mask is one."""

_SMALL = 1e-3
"""What is smaller stands for nothing that is multiplied or added."""

_MOVES = frozenset({"Transpose", "Reshape", "Expand", "Cast", "Shape", "Identity", "Unsqueeze", "Squeeze"})
"""Steps that move values: a difference there shows in what reads them."""


@dataclass(frozen=True)
class Change:
    """What is written otherwise at one step.

    Attributes:
        index: The step.
        new: What stands there instead.
        what: An attribute, ``constant``, ``operation``, ``order``, ``input`` or ``presence``.
        old_words: What is there, in words.
        new_words: What stands there instead, in words.
        constants: Constants that the new steps read.
    """

    index: int
    new: tuple[Step, ...]
    what: str
    old_words: str
    new_words: str
    constants: Mapping[str, Array] = field(default_factory=dict)


Changes: TypeAlias = Iterator[Change]


class Pool:
    """What the other graph is made of: the numbers, tables and attributes that may stand here as well.

    Args:
        graph: The other graph.
    """

    def __init__(self, graph: Graph) -> None:
        numbers: dict[float, None] = {}
        self.tables: list[Array] = []
        self._attributes: dict[tuple[str, str], dict[str, Any]] = {}
        for step in graph.steps:
            for name in step.inputs:
                array = graph.constants.get(name)
                if array is None:
                    continue
                if array.size == 1:
                    numbers.setdefault(float(array.reshape(()).item()))
                else:
                    self.tables.append(array)
            for name, value in step.attributes.items():
                self._attributes.setdefault((step.operator, name), {})[repr(value)] = value
        finite = (n if math.isfinite(n) else math.copysign(_HIDES, n) for n in numbers if not math.isnan(n))
        self.numbers = tuple(islice(dict.fromkeys(finite), _POOL))

    def attributes(self, operator: str, name: str) -> list[Any]:
        """The values that an attribute of an operator has there."""
        return list(self._attributes.get((operator, name), {}).values())


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
    yield from _attributes(index, step, pool, values)
    yield from _constants(graph, index, step, pool)
    yield from _places(graph, index, step, values)
    yield from _absent(index, step, values)
    yield from _orders(index, step)
    yield from _operators(graph, index, step)


def words(value: object) -> str:
    """A number, a list or a word, short."""
    if isinstance(value, bytes):
        return value.decode()
    if isinstance(value, float):
        return f"{value:.6g}"
    return str(list(value)) if isinstance(value, (list, tuple)) else str(value)


def _attributes(index: int, step: Step, pool: Pool, values: Mapping[str, Array]) -> Changes:
    for name, value in step.attributes.items():
        others = pool.attributes(step.operator, name)
        if name == "axis" and step.inputs and step.inputs[0] in values:
            rank = values[step.inputs[0]].ndim
            others += [axis for axis in range(-1, -rank - 1, -1) if axis % rank != value % rank]
        if name in {"exclusive", "reverse", "count_include_pad", "upper"}:
            others.append(1 - value)
        if name == "approximate":
            others += [b"none", b"tanh"]
        seen = {words(value)}
        for other in others:
            if words(other) not in seen:
                seen.add(words(other))
                new = replace(step, attributes={**step.attributes, name: other})
                yield Change(index, (new,), name, words(value), words(other))
    if step.operator == "Gelu" and "approximate" not in step.attributes:
        new = replace(step, attributes={"approximate": "tanh"})
        yield Change(index, (new,), "approximate", "none", "tanh")


def _with_constant(step: Step, place: int, array: Array, label: str) -> tuple[Step, dict[str, Array]]:
    name = f"_changed_{step.outputs[0]}_{label}"
    inputs = (*step.inputs[:place], name, *step.inputs[place + 1 :])
    return replace(step, inputs=inputs), {name: array}


def _constants(graph: Graph, index: int, step: Step, pool: Pool) -> Changes:
    """Another number, or another table."""
    for place, name in enumerate(step.inputs):
        array = graph.constants.get(name)
        if array is None or array.dtype.kind not in "fib" or _places_of(step, place):
            continue
        if array.size == 1 and array.dtype.kind != "b":
            own = float(array.reshape(()).item())
            others = [*pool.numbers, *(1 / n for n in pool.numbers if n), *(-n for n in pool.numbers if n)]
            if array.dtype.kind == "i":
                others = [own + 1, own - 1, *(n for n in pool.numbers if n.is_integer())]
            for other in dict.fromkeys(others):
                if not math.isclose(other, own, rel_tol=1e-6):
                    new, added = _with_constant(step, place, np.full(array.shape, other, array.dtype), "n")
                    yield Change(index, (new,), "constant", words(own), words(other), added)
            continue
        for table in pool.tables:
            for other_table in _as_here(table, array):
                if not np.allclose(other_table, array, rtol=1e-5, atol=1e-7):
                    new, added = _with_constant(step, place, other_table, "t")
                    yield Change(index, (new,), "constant", _table(array), _table(other_table), added)


def _as_here(table: Array, here: Array) -> Iterator[Array]:
    """A table of the other graph as this one may hold it: negated, as truth values, or as numbers that hide."""
    if table.size != here.size:
        return
    found = table.reshape(here.shape)
    if here.dtype.kind == "b":
        yield from (found != 0, found == 0) if table.dtype.kind != "b" else (found, ~found)
    elif table.dtype.kind == "b":
        yield from (np.where(kept, 0, _HIDES).astype(here.dtype) for kept in (found, ~found))
        yield from (kept.astype(here.dtype) for kept in (found, ~found))
    elif table.dtype.kind == here.dtype.kind:
        yield from (found.astype(here.dtype), (-found).astype(here.dtype))


def _table(array: Array) -> str:
    shown = ", ".join(f"{value:.4g}" for value in array.ravel()[:4])
    return f"[{shown}{', …' if array.size > 4 else ''}]"


def _places_of(step: Step, place: int) -> str:
    """What a whole number says where it is no value: an axis, a bound, a place."""
    operator = step.operator
    if operator.startswith("Reduce") and place == 1:
        return "axes"
    if operator == "Slice" and place:
        return ("start", "stop", "axis", "step")[place - 1]
    if operator in {"Gather", "Trilu", "TopK"} and place == 1:
        return "index"
    if operator == "CumSum" and place == 1:
        return "axis"
    if operator == "Pad" and place == 1:
        return "pads"
    return "shape" if operator in {"Reshape", "Expand", "Unsqueeze", "Squeeze", "Tile"} and place == 1 else ""


def _places(graph: Graph, index: int, step: Step, values: Mapping[str, Array]) -> Changes:
    """Another axis to reduce, another place to pick, a part one place further."""
    for place, name in enumerate(step.inputs):
        array, what = graph.constants.get(name), _places_of(step, place)
        if array is None or what in {"", "shape", "pads", "step"}:
            continue
        data = values.get(step.inputs[0])
        rank = data.ndim if data is not None else 0
        if what == "axes" and array.size == 1 and rank:
            others = [axis for axis in range(1, rank) if axis != int(array[0]) % rank]
        elif what in {"index", "axis"} and array.size == 1:
            own = int(array.reshape(()).item())
            others = [own + 1, own - 1, -1, 0]
        elif what == "start":
            yield from _shifted(graph, index, step)
            continue
        else:
            continue
        for other in others:
            if other != int(array.reshape(()).item()):
                new, added = _with_constant(step, place, np.full(array.shape, other, array.dtype), "p")
                word = "axis" if what == "axes" else what
                yield Change(index, (new,), word, words(int(array.reshape(()).item())), str(other), added)


def _shifted(graph: Graph, index: int, step: Step) -> Changes:
    start, stop = (graph.constants.get(name) for name in step.inputs[1:3])
    if start is None or stop is None or start.size != 1:
        return
    begin, end = int(start[0]), int(stop[0])
    for by in (1, -1, 2, -2):
        one, added = _with_constant(step, 1, start + by, "start")
        two, more = _with_constant(one, 2, stop + by, "stop")
        yield Change(index, (two,), "part", f"{begin}:{end}", f"{begin + by}:{end + by}", added | more)
    for place, array, by in ((1, start, 1), (1, start, -1), (2, stop, 1), (2, stop, -1)):
        new, added = _with_constant(step, place, array + by, "bound")
        ends = (begin + by, end) if place == 1 else (begin, end + by)
        yield Change(index, (new,), "part", f"{begin}:{end}", f"{ends[0]}:{ends[1]}", added)


def _operators(graph: Graph, index: int, step: Step) -> Changes:
    if step.operator == "Identity":
        return
    if step.operator in {"Add", "Mul"} and not any(name in graph.constants for name in step.inputs):
        other = "Mul" if step.operator == "Add" else "Add"
        yield Change(index, (replace(step, operator=other),), "operation", step.operator, other)
    for group in _ALIKE:
        if step.operator in group:
            for other in sorted(group - {step.operator}):
                attributes = dict(step.attributes) if len(group) < len(_ALIKE[0]) else {}
                new = replace(step, operator=other, attributes=attributes)
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


def _absent(index: int, step: Step, values: Mapping[str, Array]) -> Changes:
    """The step left out: what it reads goes on as it is."""
    (output, *more) = step.outputs
    if more or output not in values:
        return
    shape, kind = values[output].shape, values[output].dtype
    for name in dict.fromkeys(step.inputs):
        found = values.get(name)
        if found is not None and found.shape == shape and found.dtype == kind:
            new = Step("Identity", (name,), step.outputs, {}, step.owner)
            yield Change(index, (new,), "presence", "present", f"{name!r} alone", {})


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
            yield Change(index, (replace(step, inputs=inputs),), "input", repr(name), repr(other))


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
            new, added = _with_constant(step, place, np.asarray(number, np.float32), "v")
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


def everywhere(graph: Graph, change: Change, region: Sequence[int]) -> dict[int, Change]:
    """The same change at every step of a region that is written alike; one step only if there is no other.

    Args:
        graph: The graph.
        change: What is changed at one step.
        region: Steps that are looked at.
    """
    step = graph.steps[change.index]
    found = {change.index: change}
    if (
        change.what not in {"constant", "operation", "presence", "axis"}
        and change.what not in step.attributes
    ):
        return found
    for index in region:
        other = graph.steps[index]
        if index == change.index or other.operator != step.operator or other.attributes != step.attributes:
            continue
        held = [graph.constants.get(name) for name in other.inputs]
        own = [graph.constants.get(name) for name in step.inputs]
        if [None if a is None else a.tobytes() for a in held] != [
            None if a is None else a.tobytes() for a in own
        ]:
            continue
        renamed: dict[str, str] = dict(zip(step.inputs, other.inputs, strict=True)) | dict(
            zip(step.outputs, other.outputs, strict=True)
        )
        constants = {f"{name}_{index}": array for name, array in change.constants.items()}
        renamed |= {name: f"{name}_{index}" for name in change.constants}
        new = tuple(
            replace(
                item,
                inputs=tuple(renamed.get(name, name) for name in item.inputs),
                outputs=other.outputs,
                owner=other.owner,
            )
            for item in change.new
        )
        found[index] = replace(change, index=index, new=new, constants=constants)
    return found
