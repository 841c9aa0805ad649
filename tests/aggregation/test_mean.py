"""A mean of several vectors: all of an update, or none; and how often each counts."""

from __future__ import annotations

import numpy as np
import pytest

from xbackend_fl import Weights
from xbackend_fl.aggregation import MODEL, MeanAggregator, Update
from xbackend_fl.canonical import Kind
from xbackend_fl.errors import UpdateRefused

pytestmark = pytest.mark.quick

KINDS = {"w": Kind.TRAINABLE, "m": Kind.STATISTIC, "n": Kind.LOCAL}


def update(value: float, num_examples: int, control: float = 0.0) -> Update:
    arrays = {name: np.full(3, value, np.float32) for name in KINDS}
    vector = Weights({"w": np.full(3, control, np.float32)}, "s")
    return Update({MODEL: Weights(arrays, "s", KINDS), "control": vector}, num_examples)


@pytest.mark.parametrize("precision", ["float32", "float64", "exact"])
def test_uniform_counts_updates_and_statistics_count_examples(precision: str) -> None:
    base = update(0.0, 1)
    mean = MeanAggregator(base.model, {"control": base.vectors["control"]}, "uniform", precision)  # type: ignore[arg-type]
    other = MeanAggregator(base.model, {"control": base.vectors["control"]}, "uniform", precision)  # type: ignore[arg-type]
    mean.add(update(1.0, 30, control=2.0))
    other.add(update(4.0, 10, control=8.0))
    mean.absorb(other.partial)
    merged = mean.result()
    assert (merged.count, mean.num_examples) == (2, 40)
    np.testing.assert_array_equal(merged.model["w"], np.full(3, 2.5))
    np.testing.assert_array_equal(merged.model["m"], np.full(3, 1.75))
    # Nobody's own parameters are in the mean.
    np.testing.assert_array_equal(merged.model["n"], np.zeros(3))
    np.testing.assert_array_equal(merged.vectors["control"]["w"], np.full(3, 5.0))


@pytest.mark.parametrize(
    ("bad", "words"),
    [
        (update(1.0, 3, control=np.nan), "NaN"),
        (update(np.nan, 3), "NaN"),
        (Update.from_weights(update(1.0, 3).model, 3), "vectors"),
        (update(1.0, 0), "positive integer"),
    ],
    ids=["vector", "weights", "missing", "no examples"],
)
def test_an_update_is_merged_as_a_whole_or_not_at_all(bad: Update, words: str) -> None:
    base = update(0.0, 1)
    mean = MeanAggregator(base.model, {"control": base.vectors["control"]})
    mean.add(update(1.0, 30, control=2.0))
    with pytest.raises(UpdateRefused, match=words):
        mean.add(bad)
    merged = mean.result()
    assert (merged.count, mean.num_examples) == (1, 30)
    np.testing.assert_array_equal(merged.model["w"], np.ones(3))
    np.testing.assert_array_equal(merged.vectors["control"]["w"], np.full(3, 2.0))


def test_what_a_local_parameter_holds_is_nobodys_business() -> None:
    base = update(0.0, 1)
    mean = MeanAggregator(base.model)
    found = dict(update(1.0, 3).model) | {"n": np.full(3, np.nan, np.float32)}
    mean.add(Update.from_weights(base.model.like(found), 3))
    np.testing.assert_array_equal(mean.result().model["n"], np.zeros(3))
