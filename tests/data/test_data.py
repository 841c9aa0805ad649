"""Shares and batches: complete, disjoint, repeatable, independent of order."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from xbackend_fl.data import batches, cohort, dirichlet, generator, iid, seed_of
from xbackend_fl.errors import ConfigError

pytestmark = pytest.mark.quick

NAMES = [f"p{index}" for index in range(7)]
TARGETS = np.random.default_rng(0).integers(0, 10, 900)


@pytest.mark.parametrize("kind", ["iid", "dirichlet"])
def test_every_example_belongs_to_one_participant(kind: str) -> None:
    parts = iid(900, NAMES, 3) if kind == "iid" else dirichlet(TARGETS, NAMES, 0.3, 5, 3)
    assert sorted(np.concatenate(list(parts.values())).tolist()) == list(range(900))
    assert min(map(len, parts.values())) >= 5
    turned = list(reversed(NAMES))
    again = iid(900, turned, 3) if kind == "iid" else dirichlet(TARGETS, turned, 0.3, 5, 3)
    for name in NAMES:
        np.testing.assert_array_equal(parts[name], again[name])


def test_dirichlet_skews_labels_and_iid_does_not() -> None:
    def skew(parts: dict[str, np.ndarray]) -> float:
        shares = [np.bincount(TARGETS[part], minlength=10) / len(part) for part in parts.values()]
        return float(np.mean([share.max() for share in shares]))

    assert skew(dirichlet(TARGETS, NAMES, 0.1, 5, 0)) > 0.4
    assert skew(iid(900, NAMES, 0)) < 0.2


def test_too_many_participants_are_refused() -> None:
    with pytest.raises(ConfigError, match="has 0 examples, expected at least 1"):
        dirichlet(TARGETS[:20], [str(i) for i in range(200)], 0.1, 1, 0)
    with pytest.raises(ConfigError, match="has no examples"):
        iid(3, NAMES, 0)


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
