"""Changes of the numbers of one step: attributes, constants, tables, axes and places."""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping
from dataclasses import replace
from typing import Any

import numpy as np
from numpy.typing import NDArray

from xbackend_fl.mapping.diagnosis.change import HIDES, Change, Changes, Pool, words
from xbackend_fl.mapping.diagnosis.graph import Graph, Step

Array = NDArray[Any]


_RATIO = 1e5
"""A factor that is so much larger or smaller takes out what it stands beside, and explains nothing."""

_FACTORS = frozenset({"Mul", "Div", "Pow"})
"""Where a number of the other graph may stand as one over it."""


def attributes(index: int, step: Step, pool: Pool, values: Mapping[str, Array]) -> Changes:
    """Another attribute, as the other graph has it."""
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


def with_constant(step: Step, place: int, array: Array, label: str) -> tuple[Step, dict[str, Array]]:
    """A step that reads a new constant in one place, and that constant by its name."""
    name = f"_changed_{step.outputs[0]}_{label}"
    inputs = (*step.inputs[:place], name, *step.inputs[place + 1 :])
    return replace(step, inputs=inputs), {name: array}


def constants(graph: Graph, index: int, step: Step, pool: Pool) -> Changes:
    """Another number, or another table."""
    for place, name in enumerate(step.inputs):
        array = graph.constants.get(name)
        if array is None or array.dtype.kind not in "fib" or _places_of(step, place):
            continue
        if array.size == 1 and array.dtype.kind != "b":
            own = float(array.reshape(()).item())
            inverse = [1 / n for n in pool.numbers if n] if step.operator in _FACTORS else []
            others = [*pool.numbers, *inverse, *(-n for n in pool.numbers if n)]
            if array.dtype.kind == "i":
                others = [own + 1, own - 1, *(n for n in pool.numbers if n.is_integer())]
            for other in dict.fromkeys(others):
                if not math.isclose(other, own, rel_tol=1e-6) and not _erases(step, own, other):
                    new, added = with_constant(step, place, np.full(array.shape, other, array.dtype), "n")
                    yield Change(index, (new,), "constant", words(own), words(other), added)
            continue
        for table in pool.constants:
            for other_table in _as_here(table, array):
                if not np.allclose(other_table, array, rtol=1e-5, atol=1e-7):
                    new, added = with_constant(step, place, other_table, "t")
                    yield Change(index, (new,), "constant", _table(array), _table(other_table), added)


def bounds(graph: Graph, step: Step, index: int) -> Changes:
    """One bound of two left out."""
    if step.operator != "Clip" or len(step.inputs) < 3 or "" in step.inputs:
        return
    for place, what in ((2, "upper bound"), (1, "lower bound")):
        if (array := graph.constants.get(step.inputs[place])) is not None and array.size == 1:
            inputs = step.inputs[:2] if place == 2 else (step.inputs[0], "", step.inputs[2])
            yield Change(
                index, (replace(step, inputs=inputs),), what, words(float(array.reshape(()).item())), "none"
            )


def _erases(step: Step, own: float, other: float) -> bool:
    """Whether nothing is left of what a factor stands beside: that is no other factor."""
    if step.operator in {"Mul", "Div"} and own and max(abs(own), abs(other)) < abs(HIDES):
        return not 1 / _RATIO < abs(other / own) < _RATIO
    return False


def _as_here(table: Array, here: Array) -> Iterator[Array]:
    """A table of the other graph as this one may hold it: negated, as truth values, or as numbers that hide."""
    if table.size != here.size:
        return
    found = table.reshape(here.shape)
    if here.dtype.kind == "b":
        yield from (found != 0, found == 0) if table.dtype.kind != "b" else (found, ~found)
    elif table.dtype.kind == "b":
        yield from (np.where(kept, 0, HIDES).astype(here.dtype) for kept in (found, ~found))
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


def places(graph: Graph, index: int, step: Step, values: Mapping[str, Array]) -> Changes:
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
                new, added = with_constant(step, place, np.full(array.shape, other, array.dtype), "p")
                word = "axis" if what == "axes" else what
                yield Change(index, (new,), word, words(int(array.reshape(()).item())), str(other), added)


def _shifted(graph: Graph, index: int, step: Step) -> Changes:
    start, stop = (graph.constants.get(name) for name in step.inputs[1:3])
    if start is None or stop is None or start.size != 1:
        return
    begin, end = int(start[0]), int(stop[0])
    for by in (1, -1, 2, -2):
        one, added = with_constant(step, 1, start + by, "start")
        two, more = with_constant(one, 2, stop + by, "stop")
        yield Change(index, (two,), "part", f"{begin}:{end}", f"{begin + by}:{end + by}", added | more)
    for place, array, by in ((1, start, 1), (1, start, -1), (2, stop, 1), (2, stop, -1)):
        new, added = with_constant(step, place, array + by, "bound")
        ends = (begin + by, end) if place == 1 else (begin, end + by)
        yield Change(index, (new,), "part", f"{begin}:{end}", f"{ends[0]}:{ends[1]}", added)
