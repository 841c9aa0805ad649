"""Truth values: comparisons, logic, choices and casts, each in its one form.

Of the six comparisons three are left: ``!=`` is not ``==``, ``>=`` is not ``<``, ``<=`` is not ``>``, and of two values the
larger stands second. Whole numbers know ``<`` alone. A comparison of a truth value with a number is the truth value, or not.
"""

from __future__ import annotations

import math
import operator
from collections.abc import Callable, Mapping, Sequence

import numpy as np
from numpy.typing import NDArray

from xbackend_fl.canonical.dtypes import is_whole
from xbackend_fl.canonical.graph.builder import GraphBuilder
from xbackend_fl.canonical.graph.operands import (
    Operand,
    as_value,
    beside,
    combine,
    finite,
    is_causal_mask,
    native_shape,
    uniform,
)
from xbackend_fl.canonical.layout import Step
from xbackend_fl.canonical.ops import has
from xbackend_fl.canonical.row import Property
from xbackend_fl.canonical.value import Value

HIDES = -1e4
"""A number that, added to scores, leaves nothing of them behind a softmax; so does every smaller one."""

_MIRRORED = {"eq": "eq", "ne": "ne", "lt": "gt", "gt": "lt", "le": "ge", "ge": "le"}
_NEGATED = {"ne": "eq", "ge": "lt", "le": "gt"}
_COMPARISONS: Mapping[str, Callable[[float, float], object]] = {
    word: getattr(operator, word) for word in _MIRRORED
}


def is_truth(builder: GraphBuilder, operand: Operand) -> bool:
    """Whether an operand holds truth values."""
    if isinstance(operand, Value):
        return builder.recorder.dtype(operand.name) == "bool"
    return isinstance(operand, bool) or (isinstance(operand, np.ndarray) and operand.dtype == bool)


def compare(builder: GraphBuilder, word: str, name: str, left: Operand, right: Operand) -> Value:
    """``left word right``, where ``word`` is ``eq``, ``ne``, ``lt``, ``le``, ``gt`` or ``ge``, with broadcasting."""
    if not isinstance(left, Value) and isinstance(right, Value):
        left, right, word = right, left, _MIRRORED[word]
    value = as_value(builder, left)
    number = uniform(right, value)
    if number is not None:
        return _with_number(builder, word, name, value, number)
    other = beside(builder, right, value)
    if word in _NEGATED:
        return negate(builder, name, compare(builder, _NEGATED[word], name, value, other))
    if word == "gt":
        value, other = other, value
    return builder.broadcast("Equal" if word == "eq" else "Less", name, [value, other])


def _with_number(builder: GraphBuilder, word: str, name: str, value: Value, number: float) -> Value:
    if is_truth(builder, value):
        holds = tuple(bool(_COMPARISONS[word](truth, number)) for truth in (0.0, 1.0))
        if holds == (False, True):
            return value
        if holds == (True, False):
            return negate(builder, name, value)
        value = builder.elementwise("Cast", name, value, to="float32")
    if word in _NEGATED:
        return negate(builder, name, _with_number(builder, _NEGATED[word], name, value, number))
    whole = is_whole(builder.recorder.dtype(value.name))
    if whole and word == "gt":
        less = builder.elementwise("Less", name, value, constant=float(math.floor(number) + 1))
        return negate(builder, name, less)
    kind = {"eq": "Equal", "lt": "Less", "gt": "Greater"}[word]
    if whole and word == "lt":
        number = math.ceil(number)
    return builder.elementwise(kind, name, value, constant=float(number))


def negate(builder: GraphBuilder, name: str, operand: Operand) -> Value:
    """Not ``operand``; what was negated already is what it was."""
    value = truth(builder, name, operand)
    draft = builder.recorder.producer(value.name)
    if draft is not None and draft.operator == "Not":
        return Value(draft.inputs[0], value.shape, value.perm, value.order)
    return builder.elementwise("Not", name, value)


def truth(builder: GraphBuilder, name: str, operand: Operand) -> Value:
    """An operand as truth values: whether it is not zero."""
    if isinstance(operand, np.ndarray) and operand.dtype != bool:
        operand = operand != 0
    value = as_value(builder, operand)
    if is_truth(builder, value):
        return value
    draft = builder.recorder.producer(value.name)
    if draft is not None and draft.operator == "Cast" and builder.recorder.dtype(draft.inputs[0]) == "bool":
        return Value(draft.inputs[0], value.shape, value.perm, value.order)
    return compare(builder, "ne", name, value, 0.0)


def logical(builder: GraphBuilder, kind: str, name: str, left: Operand, right: Operand) -> Operand:
    """``And``, ``Or`` or ``Xor`` of two operands, with broadcasting; a constant that decides nothing is left out."""
    for one, other in ((left, right), (right, left)):
        number = uniform(other, one) if isinstance(one, Value) else None
        if number is not None and isinstance(one, Value):
            value = truth(builder, name, one)
            if kind == "Xor":
                return negate(builder, name, value) if number else value
            if bool(number) == (kind == "And"):
                return value
            return np.full(value.native_shape, kind == "Or")
    first = truth(builder, name, left if isinstance(left, Value) else _truth_beside(builder, left, right))
    second = truth(builder, name, right if isinstance(right, Value) else _truth_beside(builder, right, left))
    return builder.broadcast(kind, name, [first, second])


def _truth_beside(builder: GraphBuilder, operand: Operand, other: Operand) -> Value:
    if isinstance(operand, np.ndarray):
        operand = operand != 0
    return beside(builder, operand, other)


def cast(builder: GraphBuilder, name: str, operand: Operand, to: str) -> Operand:
    """An operand as numbers of another kind."""
    if isinstance(operand, np.ndarray):
        return operand.astype(to)
    if isinstance(operand, Step) and to == "float32":
        return operand
    value = as_value(builder, operand)
    if builder.recorder.dtype(value.name) == to:
        return value
    return truth(builder, name, value) if to == "bool" else builder.elementwise("Cast", name, value, to=to)


def where(builder: GraphBuilder, name: str, mask: Operand, chosen: Operand, other: Operand) -> Operand:
    """``chosen`` where ``mask`` is true, else ``other``, with broadcasting; a number in either place is a fill."""
    full = np.broadcast_shapes(*map(native_shape, (mask, chosen, other)))
    if isinstance(mask, np.ndarray):
        shown = mask != 0
        mask = shown
        for kept, always in ((chosen, bool(shown.all())), (other, not shown.any())):
            if always and native_shape(kept) == full:
                return kept
    for filled, fill, is_chosen in ((other, chosen, True), (chosen, other, False)):
        number = uniform(fill, filled) if isinstance(filled, Value) else None
        if number is not None and isinstance(filled, Value) and filled.native_shape == full:
            hidden = mask if is_chosen else _opposite(builder, name, mask)
            return fill_where(builder, name, filled, hidden, number)
    condition = truth(builder, name, mask if isinstance(mask, Value) else beside(builder, mask, chosen))
    one = chosen if isinstance(chosen, Value) else beside(builder, chosen, condition)
    two = other if isinstance(other, Value) else beside(builder, other, condition)
    return builder.broadcast("Where", name, [condition, one, two])


def keep_where(builder: GraphBuilder, name: str, operand: Operand, kept: NDArray[np.bool_]) -> Operand:
    """An operand where a constant ``kept`` is true, and zeros elsewhere."""
    if is_truth(builder, operand):
        return logical(builder, "And", name, operand, kept)
    return combine(builder, "Mul", name, operand, kept.astype(np.float32))


def any_along(
    builder: GraphBuilder,
    name: str,
    operand: Operand,
    axes: Sequence[int] | None,
    *,
    keepdims: bool,
    every: bool,
) -> Value:
    """Whether any, or every, element along some native axes is true; along all of them if ``axes`` is ``None``."""
    value = truth(builder, name, operand)
    places = list(range(len(value.shape))) if axes is None else list(axes)
    numbers = builder.elementwise("Cast", name, value, to="float32")
    found = builder.reduce("ReduceMin" if every else "ReduceMax", name, numbers, places, keepdims=keepdims)
    return builder.elementwise("Greater", name, found, constant=0.5)


def _opposite(builder: GraphBuilder, name: str, mask: Operand) -> Operand:
    return ~mask if isinstance(mask, np.ndarray) else negate(builder, name, mask)


def fill_where(builder: GraphBuilder, name: str, value: Value, mask: Operand, number: float) -> Operand:
    """``number`` in the places of ``value`` where ``mask`` is true.

    What is set to zero is a product: models write either.
    """
    if isinstance(mask, np.ndarray):
        filled = mask != 0
        mask = filled
        if number <= HIDES and is_causal_mask(~filled):
            return builder.elementwise("CausalMask", name, value)
        if not filled.any():
            return value
    hidden = truth(builder, name, mask if isinstance(mask, Value) else beside(builder, mask, value))
    if number == 0.0 and not is_truth(builder, value) and not _may_be_infinite(builder, value):
        shown = negate(builder, name, hidden)
        kept = builder.elementwise("Cast", name, shown, to=builder.recorder.dtype(value.name))
        return builder.broadcast("Mul", name, [value, kept])
    return builder.broadcast("Masked", name, [value, hidden], value=finite(number))


def _may_be_infinite(builder: GraphBuilder, value: Value) -> bool:
    """Whether a choice guards against what a product would let through."""
    draft = builder.recorder.producer(value.name)
    return draft is not None and has(draft.operator, Property.UNBOUNDED)
