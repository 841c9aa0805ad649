"""Every pair of packages is one function under its truth, every look-alike is not; the toolkit takes no part in this."""

from __future__ import annotations

from typing import Any

import pytest

from tests.networks.packages.catalogue import FAMILIES, PAIRS
from tests.networks.packages.sources import missing
from tests.networks.textbook.pair import Pair
from tests.networks.textbook.proof import proven

pytestmark = [
    pytest.mark.skipif(bool(missing()), reason=missing() or "installed"),
    pytest.mark.filterwarnings("ignore"),  # the packages' own
]
IN_EACH_RUN = {id(family.PAIRS[0]) for family in FAMILIES}


def parameters(*, same: bool) -> list[Any]:
    return [
        pytest.param(pair, id=pair.name, marks=() if id(pair) in IN_EACH_RUN else pytest.mark.slow)
        for pair in PAIRS
        if same == (not pair.cause)
    ]


def test_names_are_different() -> None:
    assert len({pair.name for pair in PAIRS}) == len(PAIRS)


@pytest.mark.parametrize("pair", parameters(same=True))
def test_one_function(pair: Pair) -> None:
    assert proven(pair) <= 1e-4


@pytest.mark.parametrize("pair", parameters(same=False))
def test_another_function(pair: Pair) -> None:
    assert proven(pair) > 1e-4
