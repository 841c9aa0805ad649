"""Who steps when: participants with most steps first, so that those still at it are the first ones at every step."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import final

import numpy as np
from numpy.typing import NDArray

from xbackend_fl.adapter.cohort import ClientWork


@final
@dataclass(frozen=True)
class Schedule:
    """The steps of some participants, in lockstep.

    Attributes:
        order: Participants by their number in the cohort, most steps first.
        active: How many of them take each step.
        rows: Examples of every step, ``[steps, slots, batch]``; a short batch is filled up with its first example.
        counts: Examples of every step that count, ``[steps, slots]``; 0 where a participant is done.
        seeds: What each one's random choices come from, ``[slots]``.
    """

    order: tuple[int, ...]
    active: tuple[int, ...]
    rows: NDArray[np.int64]
    counts: NDArray[np.int64]
    seeds: NDArray[np.int64]


def by_steps(clients: Sequence[ClientWork]) -> list[int]:
    """Participants by their number, most steps first; those with as many as they come."""
    return sorted(range(len(clients)), key=lambda index: -len(clients[index].batches))


def schedule(clients: Sequence[ClientWork], order: Sequence[int], slots: int, batch: int) -> Schedule:
    """The steps of those in ``order``, in ``slots`` slots and batches of room for ``batch`` examples."""
    work = [clients[index].batches for index in order]
    numbers = np.array([len(batches) for batches in work], np.int64)
    lengths = np.array([len(rows) for batches in work for rows in batches], np.int64)
    steps = int(numbers.max(initial=0))
    rows = np.zeros((steps, slots, batch), np.int64)
    counts = np.zeros((steps, slots), np.int64)
    if len(lengths):
        slot, step = _places(numbers)
        every = np.concatenate([rows_ for batches in work for rows_ in batches])
        first = every[np.cumsum(lengths) - lengths]
        # A participant that is done goes on looking at an example of its own, which changes nothing.
        some = np.flatnonzero(numbers)
        rows[:, some] = first[(np.cumsum(numbers) - numbers)[some], None]
        rows[step, slot] = first[:, None]
        counts[step, slot] = lengths
        index, place = _places(lengths)
        rows[step[index], slot[index], place] = every
    active = tuple(int(number) for number in (counts > 0).sum(1))
    seeds = np.zeros(slots, np.int64)
    seeds[: len(order)] = [clients[index].seed for index in order]
    return Schedule(tuple(order), active, rows, counts, seeds)


def _places(lengths: NDArray[np.int64]) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
    """For every item of lists of these lengths, side by side: its list, and its place in that."""
    whose = np.repeat(np.arange(len(lengths)), lengths)
    return whose, np.arange(len(whose)) - (np.cumsum(lengths) - lengths)[whose]


def largest_batch(clients: Sequence[ClientWork]) -> int:
    """Examples of the largest batch."""
    return max((len(rows) for client in clients for rows in client.batches), default=0)


def rounded(count: int) -> int:
    """The number of participants that a step is made for: ``count`` or somewhat more, of few different numbers.

    At most a fifth of the work is for nobody. It depends on the count alone, so that a run repeats its bits.
    """
    if count <= 4:
        return count
    part = 1 << max((count - 1).bit_length() - 3, 0)
    return -(-count // part) * part
