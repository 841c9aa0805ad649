"""How much a wave has place for: for this cohort, and for those that may come."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import final

import numpy as np
from numpy.typing import NDArray

from xbackend_fl.adapter.cohort import ClientWork
from xbfl_torch.stacked.schedule import by_steps, largest_batch


@final
@dataclass(frozen=True)
class Room:
    """How much of everything a wave has place for.

    Attributes:
        slots: Participants.
        steps: Of each.
        batch: Examples of a step.
        rows: Examples of all steps of all participants.
        apart: Whether everybody begins with something of its own.
    """

    slots: int
    steps: int
    batch: int
    rows: int
    apart: bool = False

    def holds(self, other: Room) -> bool:
        """Whether there is place for as much as in another."""
        more = self.steps >= other.steps and self.rows >= other.rows
        return more and (self.slots, self.batch, self.apart) == (other.slots, other.batch, other.apart)


@final
@dataclass(frozen=True)
class Expected:
    """What cohorts may come, of participants that are not drawn yet.

    Attributes:
        steps: Of every participant that may come, ``[participants]``; empty if nobody knows.
        batch: Examples of the largest batch.
        count: Participants of a cohort, usually at most; 0 if nobody knows.
    """

    steps: NDArray[np.int64] = field(default_factory=lambda: np.zeros(0, np.int64))
    batch: int = 0
    count: int = 0

    @property
    def longest(self) -> int:
        """Most steps of a participant."""
        return int(self.steps.max(initial=0))

    def together(self, count: int) -> int:
        """Steps that ``count`` participants have together, of which few cohorts have more: three standard deviations above the mean."""
        if not len(self.steps):
            return 0
        usual = count * self.steps.mean() + 3 * math.sqrt(count) * self.steps.std()
        return int(min(usual, np.sort(self.steps)[::-1][:count].sum()))


def needed_room(
    clients: Sequence[ClientWork], slots: int, expected: Expected, *, shared: bool, apart: bool
) -> Room:
    """What these participants need, ``slots`` at a time.

    Args:
        clients: The participants.
        slots: How many at a time.
        expected: Whoever may come.
        shared: Whether there are weights that all of them share.
        apart: Whether everybody begins with something of its own.
    """
    numbers = [len(clients[index].batches) for index in by_steps(clients)]
    parts = [sum(numbers[begin : begin + slots]) for begin in range(0, len(numbers), slots)]
    batch = max(largest_batch(clients), expected.batch)
    rows = batch * max(parts, default=0) if shared else 0
    return Room(slots, max([expected.longest, *numbers], default=0), batch, rows, apart)


def with_margin(room: Room, expected: Expected) -> Room:
    """A room in which the cohorts to come fit too, or nearly all of them."""
    steps = (
        max(room.steps, expected.longest) if expected.longest else 1 << max(room.steps - 1, 0).bit_length()
    )
    rows = room.rows
    if rows:
        usual = expected.together(room.slots) * room.batch
        rows = _rounded_up(max(rows, usual) if usual else rows + rows // 8)
    return Room(room.slots, steps, room.batch, rows, room.apart)


def _rounded_up(rows: int) -> int:
    part = 1 << max(rows.bit_length() - 4, 0)
    return -(-rows // part) * part
