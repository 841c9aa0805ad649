"""Mutants of what lies between layers: every one that is another function is refused, whatever form the two graphs have."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from torch import Tensor, nn

from tests.mutations.glue import exported, mutants, plain
from tests.mutations.verdict import EXACT, SILENT, Verdict, native_difference, verdicts
from tests.networks.textbook.catalogue import PAIRS
from tests.networks.textbook.pair import Pair, draws, floats
from tests.networks.textbook.truth import dense


class Mixed(nn.Module):
    """A little of everything between two layers."""

    def __init__(self) -> None:
        super().__init__()
        self.first, self.second = nn.Linear(4, 4), nn.Linear(4, 4)

    def forward(self, x: Tensor) -> Tensor:
        y = self.first(x).softmax(-1) * 0.5
        return self.second(torch.cat([y[:, 1:], y[:, :1]], 1) - x + 0 * y)


PLANTED = Pair("mixed", "planted", Mixed, lambda: None, draws(floats(3, 4)), dense("first", "one"))


@pytest.mark.slow
def test_mutants_are_drawn_by_seed_and_told_apart_by_float64() -> None:
    example = PLANTED.example(np.random.default_rng(0))
    graph = exported(Mixed(), example)
    found = list(mutants(graph, 1, 10, example))
    assert len({one.what for one in found}) == len(found) == 10
    assert [one.what for one in mutants(graph, 1, 2, example)] == [one.what for one in found[:2]]
    apart = {one.what: native_difference(plain(graph), one.model, PLANTED) for one in found}
    assert native_difference(plain(graph), plain(graph), PLANTED) == 0
    # Zeros that are added in another way are the same function; most changes are none.
    assert any(error <= EXACT for error in apart.values())
    assert sum(error > EXACT for error in apart.values()) > 4


def of(name: str) -> list[Verdict]:
    pair = next(pair for pair in PAIRS if pair.name == name)
    return list(verdicts(pair, 1, 3))


@pytest.mark.slow
@pytest.mark.parametrize("name", ["slopes of distance", "padding from ids", "pixel shuffle, depth to space"])
def test_no_mutant_is_bound_as_what_it_is_not(name: str) -> None:
    found = of(name)
    assert len(found) == 3
    assert all(one.state != SILENT for one in found), found
