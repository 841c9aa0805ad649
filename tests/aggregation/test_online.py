"""The running mean against float64 and exact rational arithmetic."""

from __future__ import annotations

import tracemalloc
from fractions import Fraction
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from xbackend_fl import OnlineMean, Weights
from xbackend_fl.aggregation import MODEL, Merged, Precision, kernels
from xbackend_fl.algorithms import SERVERS
from xbackend_fl.canonical import Kind
from xbackend_fl.errors import RunFailed, UpdateRefused

pytestmark = pytest.mark.quick

KINDS = {"w": Kind.TRAINABLE, "m": Kind.STATISTIC, "n": Kind.COUNTER, "f": Kind.FROZEN}


def weights(seed: int, scale: float = 1.0) -> Weights:
    generator = np.random.default_rng(seed)
    arrays: dict[str, np.ndarray[Any, Any]] = {
        "w": (scale * generator.standard_normal((300, 257))).astype(np.float32),
        "m": generator.standard_normal(11).astype(np.float32),
        "n": np.array(generator.integers(0, 100), np.int64),
        "f": generator.standard_normal(3).astype(np.float32),
    }
    return Weights(arrays, "schema", KINDS)


def oracle(parts: list[tuple[Weights, int]], name: str) -> np.ndarray[Any, Any]:
    total = sum(n for _, n in parts)
    return sum(w[name].astype(np.float64) * n for w, n in parts) / total


@pytest.mark.parametrize("precision", ["float32", "float64", "exact"])
@pytest.mark.parametrize("with_base", [True, False])
def test_weighted_mean(precision: Precision, *, with_base: bool) -> None:
    parts = [(weights(seed), 1 + 7 * seed) for seed in range(6)]
    base = weights(99) if with_base else None
    mean = OnlineMean(base, precision)
    for part, n in parts:
        mean.add(part, n)
    result = mean.result()
    for name in ("w", "m"):
        expected = oracle(parts, name)
        np.testing.assert_allclose(result[name], expected, rtol=0, atol=1e-6)
        assert result[name].dtype == np.float32
    assert result["n"] == max(int(w["n"]) for w, _ in parts)
    np.testing.assert_array_equal(result["f"], (base or parts[0][0])["f"])


class Elsewhere(np.ndarray[Any, Any]):
    """An array of another library, as those on a device are; what is made a plain one is of this class no more."""


def test_what_is_not_averaged_stays_where_it_lies() -> None:
    def moved(held: Weights) -> Weights:
        return held.like({name: array.view(Elsewhere) for name, array in held.items()})

    mean = OnlineMean()
    mean.add_all([(moved(weights(seed)), 1 + seed) for seed in range(4)])
    result = mean.result()
    assert (type(result["n"]), type(result["f"])) == (Elsewhere, Elsewhere)
    assert result["n"] == max(int(weights(seed)["n"]) for seed in range(4))


def test_float64_is_within_one_rounding_of_the_rational_mean() -> None:
    parts = [(weights(seed, 10.0), 3 * seed + 1) for seed in range(20)]
    mean = OnlineMean(precision="float64")
    for part, n in parts:
        mean.add(part, n)
    total = sum(n for _, n in parts)
    for index in [(0, 0), (1, 5), (299, 256)]:
        exact = sum(Fraction(float(w["w"][index])) * n for w, n in parts) / total
        assert mean.result()["w"][index] == np.float32(float(exact))


def test_exact_mode_has_one_bit_pattern_for_100_arrival_orders() -> None:
    parts = [(weights(seed, 3.0), 5 * seed + 1) for seed in range(8)]
    base = weights(50)
    generator = np.random.default_rng(0)
    digests = set()
    for _ in range(100):
        cut = int(generator.integers(0, len(parts)))
        halves = [OnlineMean(base, "exact"), OnlineMean(base, "exact")]
        for place, index in enumerate(generator.permutation(len(parts))):
            halves[place < cut].add(*parts[index])
        first, second = (halves[i] for i in generator.permutation(2))
        first.absorb(second.sums)
        digests.add(first.result().digest)
    assert len(digests) == 1


def test_float32_depends_on_the_order_so_the_exact_test_can_fail() -> None:
    parts = [(weights(seed, 3.0), 5 * seed + 1) for seed in range(8)]
    digests = set()
    for order in ([*range(8)], [*reversed(range(8))]):
        mean = OnlineMean()
        for index in order:
            mean.add(*parts[index])
        digests.add(mean.result().digest)
    assert len(digests) == 2


@given(st.lists(st.tuples(st.integers(0, 1000), st.integers(1, 500)), min_size=2, max_size=6), st.data())
@settings(max_examples=25)
def test_merging_parts_equals_adding_all(parts: list[tuple[int, int]], data: st.DataObject) -> None:
    cut = data.draw(st.integers(1, len(parts)))
    whole, left, right = (OnlineMean(precision="exact") for _ in range(3))
    for place, (seed, n) in enumerate(parts):
        whole.add(weights(seed), n)
        (left if place < cut else right).add(weights(seed), n)
    left.absorb(right.sums)
    assert left.result().digest == whole.result().digest
    assert left.total == whole.total == sum(n for _, n in parts)


def test_equal_updates_leave_the_base_untouched() -> None:
    base = weights(1)
    mean = OnlineMean(base)
    for n in (3, 1000, 7):
        mean.add(base, n)
    assert mean.result().digest == base.digest


@pytest.mark.parametrize("bad", [np.nan, np.inf, -np.inf])
@pytest.mark.parametrize("precision", ["float32", "exact"])
def test_not_finite_is_refused_before_the_mean_is_touched(bad: float, precision: Precision) -> None:
    mean = OnlineMean(precision=precision)
    mean.add(weights(0), 5)
    before = mean.result().digest
    broken = weights(1)
    broken["w"][299, 256] = bad
    with pytest.raises(UpdateRefused, match="'w' holds NaN or infinity"):
        mean.add(broken, 5)
    assert mean.result().digest == before
    assert mean.total == 5


@pytest.mark.parametrize("n", [0, -3, 1.5, True])
def test_wrong_weights_are_refused(n: Any) -> None:
    with pytest.raises(UpdateRefused, match="positive integer"):
        OnlineMean().add(weights(0), n)


def test_other_shapes_names_and_schemas_are_refused() -> None:
    mean = OnlineMean()
    mean.add(weights(0), 1)
    good = weights(1)
    for other in (
        Weights(dict(good), "another", KINDS),
        Weights({**good, "w": good["w"][:2]}, "schema", KINDS),
        Weights({"w": good["w"]}, "schema"),
    ):
        with pytest.raises(UpdateRefused):
            mean.add(other, 1)


def test_exact_refuses_what_would_overflow() -> None:
    with pytest.raises(UpdateRefused, match="too large for an exact sum"):
        OnlineMean(precision="exact").add(weights(0, 1e6), 10**6)


def test_no_updates_is_an_error() -> None:
    with pytest.raises(RunFailed, match="no updates"):
        OnlineMean().result()


def test_a_linear_change_of_layout_commutes_with_the_mean() -> None:
    base = weights(7)
    turned = base.like({name: array.T for name, array in base.items()})
    native, canonical = OnlineMean(base), OnlineMean(turned)
    for seed in range(4):
        update = weights(seed)
        native.add(update, seed + 1)
        canonical.add(turned.like({name: array.T for name, array in update.items()}), seed + 1)
    moved = OnlineMean(turned)
    moved.absorb(native.sums.mapped(lambda sums: {name: array.T for name, array in sums.items()}))
    assert moved.result().digest == canonical.result().digest


@pytest.mark.parametrize("precision", ["float32", "float64", "exact"])
@pytest.mark.parametrize("with_base", [True, False])
def test_several_at_once_have_the_bits_of_one_after_the_other(
    precision: Precision, *, with_base: bool
) -> None:
    # More values than BLAS adds in one strip.
    def large(seed: int) -> Weights:
        array = np.random.default_rng(seed).standard_normal(600_001).astype(np.float32)
        return Weights({"w": array}, "schema")

    base = large(99) if with_base else None
    parts = [(large(seed), 3 * seed + 1) for seed in range(5)]
    one, several = OnlineMean(base, precision), OnlineMean(base, precision)
    for part, n in parts:
        one.add(part, n)
    several.add_all(parts[:3])
    several.add_all([])
    several.add_all(parts[3:])
    assert several.result().digest == one.result().digest
    assert (several.total, several.count) == (one.total, one.count)


@pytest.mark.parametrize("precision", ["float32", "float64", "exact"])
def test_threads_leave_the_bits_as_they_are(monkeypatch: pytest.MonkeyPatch, precision: Precision) -> None:
    parts = [(weights(seed), 3 * seed + 1) for seed in range(3)]
    found = []
    for threads, part, block in ((1, 1 << 21, 1 << 18), (3, 5000, 700)):
        monkeypatch.setattr(kernels, "_THREADS", threads)
        monkeypatch.setattr(kernels, "_PART", part)
        monkeypatch.setattr(kernels, "BLOCK", block)
        mean = OnlineMean(weights(99), precision)
        mean.add_all(parts)
        found.append(mean.result().digest)
    assert found[0] == found[1]


@pytest.mark.parametrize("threads", [1, 3])
@pytest.mark.parametrize("dtype", [np.float16, np.float32, np.float64])
@pytest.mark.parametrize("size", [1, 4096, 20_001])
def test_the_largest_magnitude_is_numpys(
    monkeypatch: pytest.MonkeyPatch, size: int, dtype: Any, threads: int
) -> None:
    """Wherever it lies, and if squares are too large for the dtype."""
    monkeypatch.setattr(kernels, "_THREADS", threads)
    monkeypatch.setattr(kernels, "_PART", 6000)
    most = float(np.finfo(dtype).max)
    for place in {0, size // 2, size - 1}:
        array = np.random.default_rng(size).standard_normal(size).astype(dtype)
        for value in (9.0, -9.0, most, -most):
            array[place] = value
            expected = float(np.abs(array).max())
            assert kernels.reach(array) == expected
            assert kernels.is_within(array, expected)
            assert not kernels.is_within(array, float(np.nextafter(np.float64(expected), 0.0)))
        for value in (np.nan, np.inf, -np.inf):
            array[place] = value
            assert not np.isfinite(kernels.reach(array))
            assert not kernels.is_within(array, most)


def test_several_at_once_enter_together_or_not_at_all() -> None:
    mean = OnlineMean(weights(0), "exact")
    mean.add(weights(1), 2)
    before = mean.result().digest
    broken = weights(3).like({**weights(3), "m": np.full(11, np.nan, np.float32)})
    with pytest.raises(UpdateRefused, match="'m' holds NaN"):
        mean.add_all([(weights(2), 5), (broken, 1)])
    assert mean.result().digest == before
    assert (mean.total, mean.count) == (2, 1)


VALUE = st.one_of(
    st.floats(-100, 100, width=32),
    st.floats(allow_nan=True, allow_infinity=True, width=32),
    st.sampled_from([1e33, -3.4e38, 1e30, 1e19, 2.0**50, -(2.0**51), 1e15, 1e-42, -0.0]),
)


@given(
    st.lists(st.tuples(VALUE, VALUE, st.sampled_from([1, 10_000_000, 2**40])), min_size=1, max_size=8),
    st.sampled_from(["float32", "float64", "exact"]),
)
@settings(max_examples=60)
def test_what_is_accepted_leaves_mean_and_server_finite(
    parts: list[tuple[float, float, int]], precision: Precision
) -> None:
    """Whatever finite or not finite values come: whoever is accepted cannot make a sum, a mean, or any rule's state of three rounds infinite."""
    base = weights(1)
    mean, accepted, refused = OnlineMean(base, precision), [], []
    for trained, statistic, n in parts:
        update = weights(2)
        update["w"][0, :3], update["m"][0] = trained, statistic
        try:
            mean.add(update, n)
        except UpdateRefused as error:
            refused.append(error.message)
        else:
            accepted.append((update, n))
    assert all("NaN" in text or "larger than" in text or "too large" in text for text in refused)
    if not accepted:
        return
    result = mean.result()
    expected = oracle(accepted, "w")
    largest = max(float(np.abs(update["w"]).max()) for update, _ in accepted)
    np.testing.assert_allclose(result["w"], expected, rtol=0, atol=1e-5 * max(1.0, largest))
    for name in SERVERS:
        rule = SERVERS[name]()
        new, state = base, rule.init(base)
        for _ in range(3):
            new, state = rule.apply(new, Merged({MODEL: result}, 1), state)
        for array in (*new.values(), *state.values()):
            assert np.isfinite(array).all()


def test_honest_values_are_never_too_large() -> None:
    """Up to a thousand billion, which no trained model reaches, and examples up to the largest number that a course allows by default."""
    mean = OnlineMean(weights(0))
    for value in (1e3, 1e6, 1e12):
        update = weights(1).like({**weights(1), "w": np.full((300, 257), value, np.float32)})
        mean.add(update, 10_000_000)
    assert mean.count == 3


def test_partial_sums_that_are_too_large_together() -> None:
    """Two exact sums that fit one by one would wrap around."""
    half = [OnlineMean(weights(0), "exact") for _ in range(2)]
    for mean in half:
        mean.add(weights(0).like({**weights(0), "w": np.full((300, 257), 600.0, np.float32)}), 10**6)
    with pytest.raises(UpdateRefused, match="too large for an exact one"):
        half[0].absorb(half[1].sums)
    plain = OnlineMean(weights(0))
    plain.add(weights(1), 2**52)
    with pytest.raises(UpdateRefused, match="add up to more than"):
        plain.add(weights(1), 2**52 + 1)
    assert plain.total == 2**52


def test_a_counter_that_counts_too_far() -> None:
    with pytest.raises(UpdateRefused, match="'n' counts to 9223372036854775807"):
        OnlineMean().add(weights(0).like({**weights(0), "n": np.array(2**63 - 1)}), 1)


def test_a_counter_that_would_leave_the_others_no_room() -> None:
    """Everybody goes on from the largest count, and nobody may count beyond 2**53."""
    base = weights(0).like({**weights(0), "n": np.array(1000)})
    mean = OnlineMean(base)
    mean.add(base.like({**base, "n": np.array(1000 + 2**32)}), 1)
    with pytest.raises(
        UpdateRefused, match=rf"'n' counts to {2**53}, and can count to {1000 + 2**32} at most"
    ):
        mean.add(base.like({**base, "n": np.array(2**53)}), 1)
    assert mean.result()["n"] == 1000 + 2**32


@pytest.mark.parametrize("precision", ["float32", "float64", "exact"])
@pytest.mark.parametrize("count", [1, 2, 5])
def test_a_mean_of_sums_has_the_bits_of_their_sum(precision: Precision, count: int) -> None:
    """They are added up while the mean is written; NumPy adds them up first."""
    base = weights(99)
    partials = [OnlineMean(base, precision) for _ in range(count)]
    for seed, partial in enumerate(partials):
        partial.add(weights(seed), 3 * seed + 1)
    merged = OnlineMean(base, precision)
    for partial in partials:
        merged.absorb(partial.sums)
    total = sum(3 * seed + 1 for seed in range(count))
    unit = kernels.ONE if precision == "exact" else 1
    for name in ("w", "m"):
        sums = partials[0].sums.arrays[name]
        for partial in partials[1:]:
            sums = sums + partial.sums.arrays[name]
        divided = sums / (float(total) * unit) + base[name]
        np.testing.assert_array_equal(merged.result()[name], divided.astype(np.float32))
    assert isinstance(merged.result()["n"], np.ndarray)
    assert merged.result()["n"] == max(int(weights(seed)["n"]) for seed in range(count))
    np.testing.assert_array_equal(merged.result()["f"], base["f"])
    before = merged.result().digest
    assert {name: array.shape for name, array in merged.sums.arrays.items()}.keys() == base.keys()
    assert merged.result().digest == before, "added up since"
    for partial in partials:
        assert partial.result()["w"].shape == (300, 257), "only read"


def test_sums_that_are_absorbed_need_no_memory() -> None:
    """Nothing but the mean is written, however many there are."""
    base = Weights({"w": np.zeros(1 << 20, np.float32)}, "schema")
    partials = [OnlineMean(base) for _ in range(4)]
    for partial in partials:
        partial.add(base.like({"w": np.ones(1 << 20, np.float32)}), 1)
    tracemalloc.start()
    merged = OnlineMean(base)
    for partial in partials:
        merged.absorb(partial.sums)
    assert merged.result()["w"].max() == 1.0
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    # The mean, and blocks of as many threads as there are; a sum of sums would be twice that.
    assert peak < 1.9 * base["w"].nbytes
