"""Recurrent layers of all frameworks: either direction or both, with states that go in and come out."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace

import numpy as np

from xbackend_fl.canonical.draft import is_zero
from xbackend_fl.canonical.graph import picking
from xbackend_fl.canonical.graph.builder import GraphBuilder
from xbackend_fl.canonical.graph.operands import Operand, as_value, expand
from xbackend_fl.canonical.layout import Layout, Reorder, Stack
from xbackend_fl.canonical.node import AttributeValue
from xbackend_fl.canonical.value import Value


@dataclass(frozen=True)
class Ran:
    """What a recurrent layer makes.

    Attributes:
        sequence: ``[N, T, directions · hidden]``.
        states: The last hidden state, and the memory of an LSTM: ``[N, directions · hidden]`` each.
    """

    sequence: Value
    states: tuple[Value, ...]


def recurrent(
    builder: GraphBuilder,
    operator: str,
    name: str,
    value: Value,
    directions: Sequence[Mapping[str, Layout]],
    *,
    initial: Sequence[Operand] = (),
    backwards: bool = False,
    origin: str | None = None,
    **attributes: AttributeValue,
) -> Ran:
    """One recurrent layer.

    One direction over a series that was turned round is the other direction, and what it makes is turned round.

    Args:
        builder: Receives the nodes.
        operator: LSTM, GRU or RNN.
        name: Wanted name.
        value: Natively ``[N, T, F]``.
        directions: Role to layout for each direction.
        initial: First hidden state, and first memory of an LSTM, natively ``[N, directions · hidden]``; zeros if left out.
        backwards: Whether the only direction goes from the end to the start; the sequence keeps the order of time.
        origin: Native module, where its name is not ``name``.
        **attributes: Further attributes of the operator.
    """
    turned = None
    if len(directions) == 1:
        turned = _turned_round(builder, value)
        value, backwards = turned or value, backwards != (turned is not None)
    if value.order:
        # Features that every time step flattened: the weights take up their order.
        directions = [{**part, "weight": Reorder(part["weight"], 1, value.order)} for part in directions]
        value = replace(value, order=None)
    value = builder.arrange(value, (0, 1, 2))
    hidden = directions[0]["recurrent_weight"].shape[1]
    batch, steps = value.shape[:2]
    shapes = [
        (batch, steps, len(directions) * hidden),
        *[(batch, len(directions) * hidden)] * _states(operator),
    ]
    attributes["hidden_size"] = hidden
    attributes["direction"] = (
        "bidirectional" if len(directions) == 2 else "reverse" if backwards else "forward"
    )
    begun = (
        []
        if all(_begins_at_zero(builder, item) for item in initial)
        else _begun(builder, name, initial, shapes[1])
    )
    sequence, *states = builder.add(
        operator,
        name,
        [value, *begun],
        shapes,
        layouts={role: Stack(tuple(part[role] for part in directions)) for role in directions[0]},
        attributes=attributes,
        origin=origin,
    )
    made = Value(sequence, shapes[0], (0, 1, 2))
    ends = tuple(Value(state, shapes[1], (0, 1)) for state in states)
    return Ran(made if turned is None else turn_round(builder, made), ends)


def turn_round(builder: GraphBuilder, value: Value) -> Value:
    """A series natively ``[N, T, F]`` from its end to its start; turned round twice it is what it was."""
    found = _turned_round(builder, value)
    return found or as_value(builder, picking.flip(builder, f"{value.name}.flip", value, [1]))


def _states(operator: str) -> int:
    return 2 if operator == "LSTM" else 1


def _turned_round(builder: GraphBuilder, value: Value) -> Value | None:
    """What was turned round to make a series; ``None`` if nothing was."""
    draft = builder.recorder.producer(value.name)
    if draft is None or draft.operator != "Flip":
        return None
    axis = draft.attributes["axis"]
    assert isinstance(axis, int)
    if axis % len(value.shape) != value.perm[1] or value.order is not None:
        return None
    return replace(value, name=draft.inputs[0])


def _begun(
    builder: GraphBuilder, name: str, initial: Sequence[Operand], shape: tuple[int, ...]
) -> list[Value]:
    """First states as data, as often as there are examples."""
    found = []
    for item in initial:
        alike = isinstance(item, np.ndarray) and bool((item == item[:1]).all())
        value = as_value(builder, item[:1] if isinstance(item, np.ndarray) and alike else item)
        found.append(builder.plain(expand(builder, name, value, shape)))
    return found


def _begins_at_zero(builder: GraphBuilder, operand: Operand) -> bool:
    if isinstance(operand, np.ndarray):
        return not operand.any()
    return isinstance(operand, Value) and is_zero(operand.name, builder.recorder.producer)
