"""Partitioners, and data that lie in files."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from xbackend_fl import weights
from xbackend_fl.data import PARTITIONS, Dataset, Pool, load_npz
from xbackend_fl.errors import ConfigError

pytestmark = pytest.mark.quick

NAMES = [f"p{index}" for index in range(7)]
TARGETS = np.random.default_rng(0).integers(0, 10, 900)
PATHOLOGICAL = PARTITIONS["pathological"](classes=2)


def whole(parts: dict[str, np.ndarray], count: int) -> None:
    assert sorted(np.concatenate(list(parts.values())).tolist()) == list(range(count))
    assert min(map(len, parts.values())) >= 1


def test_pathological_gives_few_classes() -> None:
    parts = PATHOLOGICAL.shards(Pool(900, TARGETS), NAMES, 0)
    whole(parts, 900)
    assert max(len(np.unique(TARGETS[part])) for part in parts.values()) <= 4
    again = PATHOLOGICAL.shards(Pool(900, TARGETS), NAMES[::-1], 0)
    assert all(np.array_equal(parts[name], again[name]) for name in NAMES)
    with pytest.raises(ConfigError, match="has no examples"):
        PATHOLOGICAL.shards(Pool(5, TARGETS[:5]), NAMES, 0)


@given(st.integers(7, 500), st.floats(0, 3), st.integers(0, 99))
@settings(max_examples=60)
def test_quantity_is_complete_and_nobody_is_empty(count: int, sigma: float, seed: int) -> None:
    whole(PARTITIONS["quantity"](sigma=sigma).shards(Pool(count), NAMES, seed), count)


def test_quantity_skews_sizes() -> None:
    def spread(sigma: float) -> float:
        sizes = [
            len(part) for part in PARTITIONS["quantity"](sigma=sigma).shards(Pool(9000), NAMES, 1).values()
        ]
        return max(sizes) / min(sizes)

    assert spread(0) < 1.01
    assert spread(1.5) > 5
    with pytest.raises(ConfigError, match="cannot share"):
        PARTITIONS["quantity"](sigma=1).shards(Pool(3), NAMES, 0)


def test_owners_keep_what_is_theirs() -> None:
    owners = np.array(["x", "z", "x", "y", "y", "x", "w"])
    parts = PARTITIONS["by_id"]().shards(Pool(7, owners=owners), ["b", "a"], 0)
    whole(parts, 7)
    assert {str(o) for o in owners[parts["a"]]} == {"w", "y"}
    assert {str(o) for o in owners[parts["b"]]} == {"x", "z"}
    with pytest.raises(ConfigError, match="4 owners for 5 participants"):
        PARTITIONS["by_id"]().shards(Pool(7, owners=owners), list("abcde"), 0)
    with pytest.raises(ConfigError, match="do not say whose"):
        PARTITIONS["by_id"]().shards(Pool(7), ["a"], 0)


def test_parts_share_the_arrays() -> None:
    data = Dataset((np.arange(20).reshape(10, 2),), np.arange(10))
    part = data.subset(np.array([7, 3, 5]))
    inner = part.subset(np.array([2, 0]))
    assert inner.inputs[0] is data.inputs[0]
    assert inner.labels.tolist() == [5, 7]
    taken = inner.gather(np.array([1]))
    assert taken.inputs[0].tolist() == [[14, 15]]
    assert len(inner) == 2


def test_npz_files(tmp_path: Path) -> None:
    arrays = {
        f"{name}_{key}": value
        for name in ("train", "validation", "test")
        for key, value in (("x", np.ones((4, 3), np.float32)), ("y", np.arange(4)))
    }
    weights.save(tmp_path / "data.npz", arrays | {"owners": np.array([0, 0, 1, 1])})
    splits = load_npz(tmp_path / "data.npz")
    assert len(splits.train) == 4
    assert splits.owners is not None
    weights.save(tmp_path / "two.npz", {**arrays, "train_x0": np.zeros((4, 1)), "train_x1": np.zeros((4, 2))})
    weights.save(tmp_path / "short.npz", {n: a for n, a in arrays.items() if n != "test_y"})
    with pytest.raises(ConfigError, match="no test_x or no test_y"):
        load_npz(tmp_path / "short.npz")
    weights.save(tmp_path / "uneven.npz", arrays | {"owners": np.array([0])})
    with pytest.raises(ConfigError, match="owners has 1 entries for 4"):
        load_npz(tmp_path / "uneven.npz")
