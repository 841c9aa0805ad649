"""The median of updates against NumPy, and what it resists."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from xbackend_fl import Weights
from xbackend_fl.aggregation import AGGREGATORS, MODEL, Start, Update
from xbackend_fl.aggregation.rules import median
from xbackend_fl.canonical import Kind
from xbackend_fl.errors import RunFailed, UpdateRefused

pytestmark = pytest.mark.quick

KINDS = {"w": Kind.TRAINABLE, "m": Kind.STATISTIC, "n": Kind.COUNTER, "f": Kind.FROZEN, "l": Kind.LOCAL}


def weights(draw: np.random.Generator) -> Weights:
    arrays = {name: draw.standard_normal((7, 5)).astype(np.float32) for name in KINDS}
    return Weights(arrays | {"n": np.array(draw.integers(1, 100))}, "s", KINDS)


@pytest.mark.parametrize("count", [3, 4, 7])
def test_it_is_numpys(count: int, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(median, "_BLOCK", 4 * count)  # blocks that do not divide the numbers
    draw = np.random.default_rng(3)
    base, updates = weights(draw), [weights(draw) for _ in range(count)]
    rule = AGGREGATORS["median"](name="median")
    ours, theirs = (rule.make(Start(base, folder=tmp_path / side)) for side in ("ours", "theirs"))
    for place, update in enumerate(updates):
        (ours if place % 2 else theirs).add(Update.from_weights(update, 10**place))
    ours.absorb(theirs.partial)
    merged = ours.result()
    assert (merged.count, ours.num_examples) == (count, sum(10**place for place in range(count)))
    for name in ("w", "m"):
        expected = np.median(np.stack([update[name] for update in updates]), axis=0)
        np.testing.assert_array_equal(merged.model[name], expected)
    assert merged.model["n"] == max(update["n"] for update in updates)
    for name in ("f", "l"):
        np.testing.assert_array_equal(merged.model[name], base[name])
    assert not [*tmp_path.iterdir()]


def test_what_one_of_three_says_is_within_the_others(tmp_path: Path) -> None:
    draw = np.random.default_rng(4)
    base, honest = weights(draw), [weights(draw) for _ in range(2)]
    found = AGGREGATORS["median"](name="median").make(Start(base, folder=tmp_path))
    for update in (*honest, base.like({**base, "w": np.full((7, 5), 1e9, np.float32)})):
        found.add(Update.from_weights(update, 1_000_000))
    result = found.result().model["w"]
    np.testing.assert_array_equal(result, np.maximum(honest[0]["w"], honest[1]["w"]))


def test_too_few_updates_and_bad_ones_are_refused(tmp_path: Path) -> None:
    draw = np.random.default_rng(5)
    base = weights(draw)
    found = AGGREGATORS["median"](name="median").make(Start(base, folder=tmp_path))
    for _ in range(2):
        found.add(Update.from_weights(weights(draw), 1))
    bad = base.like({**base, "w": np.full((7, 5), np.nan, np.float32)})
    with pytest.raises(UpdateRefused, match="NaN"):
        found.add(Update.from_weights(bad, 1))
    with pytest.raises(UpdateRefused, match="weights alone"):
        found.add(Update({MODEL: base, "control": base}, 1))
    with pytest.raises(RunFailed, match="the median of 2 updates"):
        found.result()
