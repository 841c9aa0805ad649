"""Shares and batches: complete, disjoint, repeatable, independent of order."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
import scipy.stats
from hypothesis import given, settings
from hypothesis import strategies as st

from xbackend_fl.data import PARTITIONS, Pool, batches, cohort, generator, seed_of
from xbackend_fl.errors import ConfigError

pytestmark = pytest.mark.quick

NAMES = [f"p{index}" for index in range(7)]
TARGETS = np.random.default_rng(0).integers(0, 10, 900)


def shards(
    kind: str, names: list[str], seed: int, count: int = 900, **settings: Any
) -> dict[str, np.ndarray]:
    return PARTITIONS[kind](**settings).shards(Pool(count, TARGETS[:count]), names, seed)


@pytest.mark.parametrize(
    ("kind", "settings"),
    {
        "iid": {},
        "dirichlet": {"alpha": 0.3, "min_examples": 5},
        "quantity_dirichlet": {"alpha": 0.3, "min_examples": 5},
    }.items(),
)
def test_every_example_belongs_to_one_participant(kind: str, settings: dict[str, Any]) -> None:
    parts = shards(kind, NAMES, 3, **settings)
    assert sorted(np.concatenate(list(parts.values())).tolist()) == list(range(900))
    assert min(map(len, parts.values())) >= 5
    again = shards(kind, NAMES[::-1], 3, **settings)
    for name in NAMES:
        np.testing.assert_array_equal(parts[name], again[name])


def test_dirichlet_skews_labels_and_others_do_not() -> None:
    def skew(parts: dict[str, np.ndarray]) -> float:
        shares = [np.bincount(TARGETS[part], minlength=10) / len(part) for part in parts.values()]
        return float(np.mean([share.max() for share in shares]))

    assert skew(shards("dirichlet", NAMES, 0, alpha=0.1, min_examples=5)) > 0.4
    assert skew(shards("iid", NAMES, 0)) < 0.2
    assert skew(shards("quantity_dirichlet", NAMES, 0, alpha=1.0, min_examples=60)) < 0.2


@pytest.mark.parametrize("alpha", [0.5, 2.0])
def test_sizes_are_distributed_as_scipy_draws_them(alpha: float) -> None:
    """Of a draw from Dirichlet(alpha) every one has the marginal Beta(alpha, (n - 1) * alpha)."""
    names, count = NAMES[:4], 100_000
    rule = PARTITIONS["quantity_dirichlet"](alpha=alpha)
    drawn = [rule.shards(Pool(count), names, seed) for seed in range(300)]
    for name in (names[0], names[-1]):
        sizes = [len(parts[name]) / count for parts in drawn]
        assert scipy.stats.kstest(sizes, scipy.stats.beta(alpha, 3 * alpha).cdf).pvalue > 0.01


def test_too_many_participants_are_refused() -> None:
    many = [str(i) for i in range(200)]
    for kind in ("dirichlet", "quantity_dirichlet"):
        with pytest.raises(ConfigError, match="has 0 examples, expected at least 1"):
            shards(kind, many, 0, count=20, alpha=0.1)
    with pytest.raises(ConfigError, match="has no examples"):
        shards("iid", NAMES, 0, count=3)


@given(st.integers(1, 60), st.integers(1, 20), st.integers(1, 3))
@settings(max_examples=50)
def test_an_epoch_is_every_example_once(num_examples: int, size: int, epochs: int) -> None:
    drawn = list(batches(num_examples, size, epochs, None, 0, "batches", 1, "a"))
    counts = np.bincount(np.concatenate(drawn), minlength=num_examples)
    assert (counts == epochs).all()
    assert max(map(len, drawn)) <= size
    again = list(batches(num_examples, size, epochs, None, 0, "batches", 1, "a"))
    assert all(np.array_equal(a, b) for a, b in zip(drawn, again, strict=True))


def test_steps_replace_epochs() -> None:
    assert len(list(batches(10, 4, 1, 7, 0))) == 7
    assert len(list(batches(10, 4, 5, 2, 0))) == 2


def test_keys_matter() -> None:
    draws = {generator(*key).integers(1 << 60) for key in [(0,), (1,), (0, "a"), (0, "b"), (0, 1), ("0", 11)]}
    assert len(draws) == 6
    assert seed_of(1, "x") != seed_of(2, "x")
    assert 0 <= seed_of(1) < 2**31


def test_cohorts() -> None:
    assert cohort(NAMES, 99, 0) == NAMES
    one, two = cohort(NAMES, 3, 0, 1), cohort(list(reversed(NAMES)), 3, 0, 1)
    assert one == two
    assert len(set(one)) == 3
    assert len({tuple(cohort(NAMES, 3, 0, number)) for number in range(20)}) > 5
