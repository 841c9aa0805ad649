"""Every pair is one function under its truth, every look-alike is not; the toolkit takes no part in this."""

from __future__ import annotations

from typing import Any

import pytest

from tests.networks.textbook.catalogue import FAMILIES, PAIRS
from tests.networks.textbook.pair import Pair
from tests.networks.textbook.proof import proven


def sample() -> set[int]:
    """What every run of the suite takes: a pair of each family, a look-alike of each fourth; all are ten minutes."""
    pairs = [next(pair for pair in family.PAIRS if not pair.cause) for family in FAMILIES]
    alike = [next(pair for pair in family.PAIRS if pair.cause) for family in FAMILIES[::4]]
    return {id(pair) for pair in (*pairs, *alike)}


def parameters(*, same: bool) -> list[Any]:
    in_each_run = sample()
    return [
        pytest.param(
            pair,
            id=f"{pair.family}: {pair.name}",
            marks=() if id(pair) in in_each_run else pytest.mark.slow,
        )
        for pair in PAIRS
        if same == (not pair.cause)
    ]


def test_names_are_different() -> None:
    names = [(pair.family, pair.name) for pair in PAIRS]
    assert len(set(names)) == len(names)


@pytest.mark.one_in(4)
@pytest.mark.parametrize("pair", parameters(same=True))
def test_one_function(pair: Pair) -> None:
    assert proven(pair) <= 1e-4


@pytest.mark.parametrize("pair", parameters(same=False))
def test_another_function(pair: Pair) -> None:
    assert proven(pair) > 1e-3
