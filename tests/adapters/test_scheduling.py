"""Shares of participants in lockstep: even by their time, against the best of all shares."""

from __future__ import annotations

import itertools

import pytest
from hypothesis import given
from hypothesis import strategies as st

from xbackend_fl.adapter import balance, balance_lockstep, largest_share
from xbackend_fl.adapter.scheduling import STEP

pytestmark = pytest.mark.quick


def time_of(shares: list[list[int]], steps: dict[int, int]) -> int:
    """Of the team that is done last: what every step costs, and everybody who is still at it, step by step."""
    return max(
        sum(
            STEP + sum(steps[name] > number for name in share)
            for number in range(max((steps[name] for name in share), default=0))
        )
        for share in shares
    )


@given(st.lists(st.integers(1, 40), max_size=60), st.integers(1, 8))
def test_shares_are_complete_and_as_large_as_they_may_be(numbers: list[int], teams: int) -> None:
    steps = dict(enumerate(numbers))
    shares = balance_lockstep(steps, teams)
    assert len(shares) == teams
    assert sorted(name for share in shares for name in share) == sorted(steps)
    assert max(map(len, shares)) <= largest_share(len(steps), teams)
    assert all(share == sorted(share, key=lambda name: -steps[name]) for share in shares)
    plain = balance(steps, teams)
    if max(map(len, plain)) <= largest_share(len(steps), teams):
        assert time_of(shares, steps) <= time_of(plain, steps)


@given(st.lists(st.integers(1, 40), min_size=1, max_size=7), st.integers(1, 3))
def test_shares_are_near_the_best(numbers: list[int], teams: int) -> None:
    """No bound is known for sums and a largest one together: of 500 drawn lists the worst was 0.3 % above the best of all shares."""
    steps = dict(enumerate(numbers))
    best = min(
        time_of([[name for name in steps if places[name] == team] for team in range(teams)], steps)
        for places in itertools.product(range(teams), repeat=len(steps))
        if max(map(places.count, range(teams))) <= largest_share(len(steps), teams)
    )
    assert time_of(balance_lockstep(steps, teams), steps) <= 1.05 * best


def test_long_participants_go_together() -> None:
    """A long one makes every step of its team cost what a step costs, so that the long ones share that."""
    steps = dict(enumerate([12] * 10 + [6] * 30))
    shares = balance_lockstep(steps, 2)
    assert [sorted({steps[name] for name in share}) for share in shares] == [[12], [6]]
    assert (time_of(shares, steps), time_of(balance(steps, 2), steps)) == (240, 270)
