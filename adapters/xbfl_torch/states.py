"""The last states that a recurrent layer returns: rows of all its layers and directions."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TypeAlias

from xbackend_fl.canonical import GraphBuilder, Value

Row: TypeAlias = tuple[Value, int]
"""The last state of one layer, ``[N, directions · hidden]``, and a direction of it."""


@dataclass(frozen=True)
class State:
    """``h_n`` or ``c_n`` of a recurrent layer: what each row of its first axis is."""

    rows: tuple[Row, ...]
    hidden: int


def state_row(builder: GraphBuilder, states: State, index: int) -> Value:
    """One row, ``[N, hidden]``."""
    final, direction = states.rows[index]
    start = direction * states.hidden
    return builder.slice(f"{final.name}.state", final, 1, start, start + states.hidden)


def state_data(builder: GraphBuilder, states: State) -> Value:
    """All rows as data, natively ``[rows, N, hidden]``; the directions of one layer stay together."""
    found, place = [], 0
    while place < len(states.rows):
        count = states.rows[place][0].shape[1] // states.hidden
        state = whole_state(states.rows[place : place + count], states.hidden)
        taken = 1 if state is None else count
        state = state or state_row(builder, states, place)
        split = builder.reshape(f"{state.name}.rows", state, (state.shape[0], taken, states.hidden))
        found.append(builder.transpose(split, (1, 0, 2)))
        place += taken
    return builder.concat("states", found, 0)


def whole_state(rows: Sequence[Row | None], hidden: int) -> Value | None:
    """The last state of a layer of which all directions stand in a row."""
    if not rows or rows[0] is None:
        return None
    state = rows[0][0]
    every = [(state, direction) for direction in range(state.shape[1] // hidden)]
    return state if list(rows) == every else None
