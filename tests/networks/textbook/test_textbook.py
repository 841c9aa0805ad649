"""Every pair is one function under its truth, every look-alike is not; the toolkit takes no part in this."""

from __future__ import annotations

from typing import Any

import pytest

from tests.networks.textbook.catalogue import PAIRS
from tests.networks.textbook.pair import Pair
from tests.networks.textbook.proof import proven

FIRST = {(pair.family, bool(pair.cause)): pair.name for pair in reversed(PAIRS)}
"""What every run of the suite takes: a pair and a look-alike of each family; all are some minutes."""


def pairs(*, same: bool) -> list[Any]:
    return [
        pytest.param(
            pair,
            id=f"{pair.family}: {pair.name}",
            marks=() if pair.name == FIRST[pair.family, bool(pair.cause)] else pytest.mark.slow,
        )
        for pair in PAIRS
        if same == (not pair.cause)
    ]


def test_names_are_different() -> None:
    names = [(pair.family, pair.name) for pair in PAIRS]
    assert len(set(names)) == len(names)


@pytest.mark.parametrize("pair", pairs(same=True))
def test_one_function(pair: Pair) -> None:
    assert proven(pair) <= 1e-4


@pytest.mark.parametrize("pair", pairs(same=False))
def test_another_function(pair: Pair) -> None:
    assert proven(pair) > 1e-3
