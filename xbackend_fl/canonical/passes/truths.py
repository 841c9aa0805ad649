"""Numbers that stand for truth values: ``1 - m`` is not ``m``, and what is 0 or ``c`` is ``c`` times a truth value."""

from __future__ import annotations

import math
from dataclasses import dataclass

from xbackend_fl.canonical.draft import Draft, Graph
from xbackend_fl.canonical.passes.edit import Edit


@dataclass(frozen=True)
class TwoValued:
    """A value that is one number where a truth value is false and another where it is true.

    Attributes:
        truth: The truth value.
        chain: Nodes that only move values, behind it, the last one first.
        false: The number where it is false.
        true: The number where it is true.
    """

    truth: str
    chain: tuple[Draft, ...]
    false: float
    true: float


def settle_truths(graph: Graph) -> tuple[Draft, ...]:
    """Sums and products of a truth value with numbers as one product, where one of the two numbers is zero."""
    edit = Edit(graph)
    for draft in graph.drafts:
        edit.keep(draft)
        found = two_valued(edit, draft.outputs[0]) if _with_number(draft) else None
        if found is None or (found.false != 0.0) == (found.true != 0.0):
            continue
        edit.drafts.pop()
        truth, size = found.truth, found.true
        if found.false:
            truth, size = edit.negated(draft, truth), found.false
        number = edit.make(draft, "Cast", [truth], edit.shape(truth), {"to": edit.dtype(draft.outputs[0])})
        if size != 1.0:
            number = edit.make(draft, "Mul", [number], edit.shape(truth), {"constant": size})
        edit.keep(edit.renamed(draft, edit.moved(draft, number, found.chain)))
    return tuple(edit.drafts)


def _with_number(draft: Draft) -> bool:
    return draft.operator in {"Add", "Mul"} and "constant" in draft.attributes


def two_valued(edit: Edit, value: str) -> TwoValued | None:
    """How a value depends on one truth value alone; ``None`` if it does not."""
    chain: list[Draft] = []
    steps: list[tuple[str, float]] = []
    while True:
        value, moves = edit.behind_moves(value)
        chain += moves
        draft = edit.producer(value)
        if draft is None:
            return None
        if _with_number(draft):
            steps.append((draft.operator, float(str(draft.attributes["constant"]))))
        elif draft.operator != "Cast":
            return _chosen(edit, draft, chain, steps)
        elif edit.dtype(draft.inputs[0]) == "bool":
            return _result(draft.inputs[0], chain, steps, 0.0, 1.0)
        value = draft.inputs[0]


def _chosen(edit: Edit, draft: Draft, chain: list[Draft], steps: list[tuple[str, float]]) -> TwoValued | None:
    """A choice between two numbers."""
    if draft.operator == "Masked":
        number = _number(edit, draft.inputs[0])
        fill = float(str(draft.attributes["value"]))
        return None if number is None else _result(draft.inputs[1], chain, steps, number, fill)
    if draft.operator == "Where":
        true, false = (_number(edit, item) for item in draft.inputs[1:])
        return None if true is None or false is None else _result(draft.inputs[0], chain, steps, false, true)
    return None


def _result(
    truth: str, chain: list[Draft], steps: list[tuple[str, float]], false: float, true: float
) -> TwoValued:
    for operator, number in reversed(steps):
        false, true = (
            (false + number, true + number) if operator == "Add" else (false * number, true * number)
        )
    near = 1e-6 * max(abs(false), abs(true))
    ends = [0.0 if abs(end) <= near else end for end in (false, true)]
    return TwoValued(truth, tuple(chain), *ends)


def _number(edit: Edit, value: str) -> float | None:
    """The number that a constant is everywhere."""
    source, _ = edit.behind_moves(value)
    draft = edit.producer(source)
    numbers = draft.attributes["value"] if draft is not None and draft.operator == "Constant" else ()
    assert isinstance(numbers, tuple)
    different = set(numbers)
    number = float(different.pop()) if len(different) == 1 else math.nan
    return None if math.isnan(number) else number
