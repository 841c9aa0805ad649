"""Work shared out before it begins, by its size."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TypeVar

T = TypeVar("T")


def balance(sizes: Mapping[T, int], teams: int) -> list[list[T]]:
    """Share participants out: the largest first, each to the team with the least to do (Graham 1969).

    The time of a participant is proportional to its size, for one model and batch size. Measured times would differ from run
    to run, and with them the order of the sums and their last bits.

    Args:
        sizes: Participants, and what each has to do; among equal ones the earlier is first.
        teams: Number of teams, such as workers or replicas on a GPU.

    Returns:
        The participants of every team.
    """
    shares: list[list[T]] = [[] for _ in range(teams)]
    loads = [0] * teams
    for name in sorted(sizes, key=lambda n: -sizes[n]):
        index = loads.index(min(loads))
        shares[index].append(name)
        loads[index] += sizes[name]
    return shares
