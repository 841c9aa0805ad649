"""Updates that are given away merge as others do, in their own memory."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
import pytest

from xbackend_fl import OnlineMean, Weights
from xbackend_fl.aggregation import MODEL, MeanAggregator, Update, kernels
from xbackend_fl.canonical import Kind
from xbackend_fl.errors import UpdateRefused

pytest.importorskip("numba", reason="needs Numba")
pytestmark = pytest.mark.quick

Array = np.ndarray[Any, Any]
KINDS = {
    "w": Kind.TRAINABLE,
    "m": Kind.STATISTIC,
    "v": Kind.STATISTIC,
    "n": Kind.COUNTER,
    "f": Kind.FROZEN,
    "odd": Kind.TRAINABLE,
    "none": Kind.TRAINABLE,
}
VARIANCES = frozenset({"v"})


@pytest.fixture(autouse=True)
def many(monkeypatch: pytest.MonkeyPatch) -> None:
    """Every model has many values, and is added in parts by several threads."""
    monkeypatch.setattr("xbackend_fl.aggregation.online.MANY", 0)
    monkeypatch.setattr(kernels, "_THREADS", 3)
    monkeypatch.setattr(kernels, "_PART", 5000)


def weights(seed: int) -> Weights:
    generator = np.random.default_rng(seed)
    arrays: dict[str, Array] = {
        "w": generator.standard_normal((300, 57), np.float32)
        * np.float32(10.0 ** generator.integers(-30, 9)),
        "m": generator.standard_normal(11, np.float32),
        "v": generator.random(9, np.float32),
        "n": np.array(generator.integers(0, 100), np.int64),
        "f": generator.standard_normal(3, np.float32),
        "odd": generator.standard_normal((41, 31), np.float32).T,
        "none": np.zeros((0, 3), np.float32),
    }
    return Weights(arrays, "schema", KINDS)


def state(mean: OnlineMean) -> dict[str, bytes]:
    return {name: array.tobytes() for name, array in mean.sums.arrays.items()}


@pytest.mark.parametrize("uniform", [True, False])
def test_the_bits_are_those_of_updates_that_are_kept(*, uniform: bool) -> None:
    given, kept = (OnlineMean(weights(99), variances=VARIANCES, uniform=uniform) for _ in range(2))
    base = weights(99)
    for seed in range(6):
        update = weights(seed)
        given.add(update, 7 * seed + 1, given=True)
        kept.add(weights(seed), 7 * seed + 1)
        assert state(given) == state(kept)
        # It is done where it is said to be done; the first update brings the sums.
        assert np.shares_memory(given.sums.arrays["w"], update["w"]) == (seed > 0)
    assert given.result().digest == kept.result().digest
    assert (given.total, given.count) == (kept.total, kept.count)
    assert base.digest == weights(99).digest


WRONG = [np.nan, np.inf, -np.inf, 2.0**71, -(2.0**72)]


@pytest.mark.parametrize(
    ("name", "bad"), [("v", -0.5), *((name, bad) for name in ("w", "m", "odd", "v") for bad in WRONG)]
)
def test_a_refused_update_leaves_every_bit_and_says_the_same(name: str, bad: float) -> None:
    base = weights(0)
    given, kept = (OnlineMean(base, variances=VARIANCES) for _ in range(2))
    for seed in (1, 2):
        given.add(weights(seed), 3, given=True)
        kept.add(weights(seed), 3)
    before, reasons = state(given), []
    for mean, way in ((given, {"given": True}), (kept, {})):
        broken = weights(3)
        broken[name][(-1,) * broken[name].ndim] = bad
        with pytest.raises(UpdateRefused) as caught:
            mean.add(broken, 5, **way)
        reasons.append((type(caught.value), caught.value.message, caught.value.hint))
    assert reasons[0] == reasons[1]
    assert state(given) == before
    assert (given.count, given.total) == (2, 6)
    given.add(weights(4), 5, given=True)
    kept.add(weights(4), 5)
    assert state(given) == state(kept)


def the_bases(base: Weights, update: dict[str, Array]) -> None:
    update["w"] = base["w"]


def one_memory_twice(base: Weights, update: dict[str, Array]) -> None:
    del base
    memory = np.ascontiguousarray(update["w"].reshape(-1))
    update["m"], update["w"] = memory[5:16], memory.reshape(300, 57)


def read_only(base: Weights, update: dict[str, Array]) -> None:
    del base
    update["w"].flags.writeable = False


def another_dtype(base: Weights, update: dict[str, Array]) -> None:
    del base
    update["w"] = update["w"].astype(np.float64)


@pytest.mark.parametrize("change", [the_bases, one_memory_twice, read_only, another_dtype])
def test_memory_that_is_no_place_for_sums(change: Callable[[Weights, dict[str, Array]], None]) -> None:
    base = weights(99)
    given, kept = OnlineMean(base, variances=VARIANCES), OnlineMean(weights(99), variances=VARIANCES)
    for seed in range(3):
        update, same = dict(weights(seed)), dict(weights(seed))
        change(base, update)
        change(base, same)
        given.add(base.like(update), seed + 1, given=True)
        kept.add(base.like({name: array.copy() for name, array in same.items()}), seed + 1)
        assert state(given) == state(kept)
    assert base.digest == weights(99).digest


def test_sums_that_came_from_elsewhere_stay_theirs() -> None:
    base, other = weights(0), OnlineMean(weights(0), variances=VARIANCES)
    other.add(weights(1), 3)
    before = state(other)
    given, kept = OnlineMean(base, variances=VARIANCES), OnlineMean(base, variances=VARIANCES)
    for mean, way in ((given, {"given": True}), (kept, {})):
        mean.add(weights(5), 1)
        mean.absorb(other.sums)
        mean.add(weights(2), 4, **way)
    fresh = OnlineMean(base, variances=VARIANCES)
    fresh._many = True
    fresh.absorb(other.sums)
    fresh.add(weights(2), 4, given=True)
    assert state(given) == state(kept)
    assert state(other) == before


def test_without_numba_it_is_added_as_any_other(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(kernels, "_compiled", lambda: None)
    given, kept = OnlineMean(weights(99)), OnlineMean(weights(99))
    for seed in range(3):
        update = weights(seed)
        given.add(update, seed + 1, given=True)
        kept.add(weights(seed), seed + 1)
        assert update.digest == weights(seed).digest
    assert state(given) == state(kept)


def test_an_aggregator_takes_what_is_given_unless_a_vector_may_be_made_of_it() -> None:
    base = weights(0)
    plain = MeanAggregator(base)
    beside = MeanAggregator(base, {"control": Weights({"w": base["w"]}, "s")})
    for mean, taken in ((plain, True), (beside, False)):
        for seed in (1, 2):
            update = weights(seed)
            vectors = {MODEL: update} | ({} if taken else {"control": Weights({"w": update["w"]}, "s")})
            mean.add(Update(vectors, 3, given=True))
        sums = mean.partial.sums[MODEL].arrays["w"]
        assert np.shares_memory(sums, update["w"]) == taken
