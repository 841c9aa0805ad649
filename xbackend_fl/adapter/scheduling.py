"""Work shared out before it begins, by its size."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TypeVar

T = TypeVar("T")

STEP = 10
"""What a step in lockstep costs however many take it, as much as the parts of so many participants. On an H200 8 to 12 for three networks, 21 for an LSTM."""


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
    return _longest_first(sizes, teams, 0, len(sizes))


def balance_lockstep(steps: Mapping[T, int], teams: int) -> list[list[T]]:
    """Share participants out whose teams train in lockstep, so that all teams are done at about the same time.

    The time of a team is :func:`lockstep_time`: a long participant makes all steps of its team cost their fixed part, so long ones belong together. The best
    of three shares: that of :func:`balance`; the longest first, each to the team that would be done first; and teams filled one after the other, the longest
    first, up to the least time that is found to be enough for all (Coffman, Garey and Johnson 1978, MULTIFIT). It depends on the numbers of steps alone.

    Args:
        steps: Participants, and how many steps each takes; among equal ones the earlier is first.
        teams: Number of teams.

    Returns:
        The participants of every team, :func:`largest_share` of them at most.
    """
    largest = largest_share(len(steps), teams)

    def time(shares: list[list[T]]) -> int:
        return max((lockstep_time([steps[name] for name in share]) for share in shares), default=0)

    best = min((_longest_first(steps, teams, fixed, largest) for fixed in (0, STEP)), key=time)
    low, high = 0, time(best)
    while low < high:
        limit = (low + high) // 2
        found = _filled(steps, teams, limit, largest)
        if found is None:
            low = limit + 1
        else:
            best, high = found, limit
    return best


def largest_share(count: int, teams: int) -> int:
    """How many of ``count`` participants a team that trains in lockstep gets at most: half as many again as if all had as many."""
    return min(count, -(-3 * count // (2 * teams)))


def lockstep_time(steps: Sequence[int]) -> int:
    """The time of participants in lockstep, in parts of a participant in a step: each step costs :data:`STEP`, and one for everybody who is still at it."""
    return STEP * max(steps, default=0) + sum(steps)


def _longest_first(sizes: Mapping[T, int], teams: int, fixed: int, largest: int) -> list[list[T]]:
    """The longest first, each to the team that would be done first; the first of a team costs ``fixed`` times its size more."""
    shares: list[list[T]] = [[] for _ in range(teams)]
    loads = [0] * teams
    for name in sorted(sizes, key=lambda n: -sizes[n]):
        more = [
            load + (0 if share else fixed * sizes[name]) for load, share in zip(loads, shares, strict=True)
        ]
        index = min((i for i in range(teams) if len(shares[i]) < largest), key=lambda i: more[i])
        shares[index].append(name)
        loads[index] = more[index] + sizes[name]
    return shares


def _filled(steps: Mapping[T, int], teams: int, limit: int, largest: int) -> list[list[T]] | None:
    """Every participant to the first team that is done with it in ``limit``; ``None`` if there is none for somebody."""
    shares: list[list[T]] = [[] for _ in range(teams)]
    loads = [0] * teams
    for name in sorted(steps, key=lambda n: -steps[n]):
        for index, share in enumerate(shares):
            time = loads[index] + steps[name] * (1 if share else STEP + 1)
            if time <= limit and len(share) < largest:
                share.append(name)
                loads[index] = time
                break
        else:
            return None
    return shares
