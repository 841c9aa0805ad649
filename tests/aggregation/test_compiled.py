"""Loops that Numba compiles have the bits of NumPy's, which is the oracle here, and nobody needs Numba."""

from __future__ import annotations

import re
from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from xbackend_fl import OnlineMean, Weights
from xbackend_fl.aggregation import Precision, kernels
from xbackend_fl.canonical import Kind
from xbackend_fl.errors import UpdateRefused

pytest.importorskip("numba", reason="needs Numba")
pytestmark = pytest.mark.quick

Array = np.ndarray[Any, Any]

ODD = [0.0, -0.0, 1e-45, -1e-45, 1e-38, 2.0**-33, -(2.0**-33), 1.5 * 2.0**-32, 2.0**18, -(2.0**29), 3.4e38]


@pytest.fixture(params=["compiled", "without Numba"])
def many(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> None:
    """Every model has many values; once as it is, and once where Numba is missing."""
    monkeypatch.setattr("xbackend_fl.aggregation.online.MANY", 0)
    if request.param != "compiled":
        monkeypatch.setattr(kernels, "_compiled", lambda: None)


def drawn(seed: int, size: int, dtype: Any, largest: float) -> Array:
    """Values of all magnitudes, some of them odd, none larger than ``largest``."""
    generator = np.random.default_rng(seed)
    values = generator.standard_normal(size) * np.exp(generator.uniform(-90, 40, size))
    places = generator.integers(0, max(1, size), min(size, 20))
    values[places] = generator.choice(ODD, places.size)
    return np.clip(values, -largest, largest).astype(dtype)


def bits(array: Array) -> bytes:
    return array.tobytes()


@given(
    seed=st.integers(0, 2**32),
    size=st.integers(1, 5000),
    sums=st.sampled_from([np.float32, np.float64]),
    dtype=st.sampled_from([np.float32, np.float64]),
    scale=st.sampled_from([1, 2, 3, 1000, 2**24 + 1, 2**40 + 1]),
    count=st.integers(1, 3),
    with_base=st.booleans(),
)
@settings(max_examples=60, deadline=None)
def test_scaled_additions_have_numpys_bits(
    seed: int, size: int, sums: Any, dtype: Any, scale: int, count: int, *, with_base: bool
) -> None:
    base = drawn(seed + 9, size, dtype, 1e12) if with_base else None
    values = [drawn(seed + k, size, dtype, 1e12) for k in range(count)]
    start = drawn(seed + 7, size, sums, 1e20)
    expected, found = start.copy(), start.copy()
    for value in values:
        change = value.astype(sums) if base is None else value.astype(sums) - base.astype(sums)
        expected += sums(scale) * change
    if base is None and sums is dtype:  # that is left to BLAS, with Numba too
        kernels.add_scaled(expected := start.copy(), values, [scale] * count)
    kernels.add_scaled(found, values, [scale] * count, base, many=True)
    assert bits(found) == bits(expected)


ALLOWED = [(1, 2.0**29), (7, 2.0**20), (1000, 2.0**18), (1000, 131.0), (2**20, 0.2), (2**40, 2.0**-12)]


@given(
    seed=st.integers(0, 2**32),
    size=st.integers(1, 5000),
    dtype=st.sampled_from([np.float32, np.float64]),
    allowed=st.sampled_from(ALLOWED),
    with_base=st.booleans(),
)
@settings(max_examples=60, deadline=None)
def test_fixed_point_is_that_of_integers(
    seed: int, size: int, dtype: Any, allowed: tuple[int, float], *, with_base: bool
) -> None:
    """As Python's own integers and their rounding of halves to even have it."""
    scale, largest = allowed
    value = drawn(seed, size, dtype, largest)
    base = drawn(seed + 1, size, dtype, largest) if with_base else None
    start = np.random.default_rng(seed).integers(-(2**60), 2**60, size)
    found = start.copy()
    kernels.add_fixed(found, [value], [scale], base, many=True)

    def units(array: Array) -> list[int]:
        return [round(float(one) * 2.0**32) for one in array]

    origins = [0] * size if base is None else units(base)
    changes = zip(start.tolist(), units(value), origins, strict=True)
    # What float64 holds of a difference, as without Numba.
    assert found.tolist() == [s + int(float(a) - float(b)) * scale for s, a, b in changes]


@given(st.integers(0, 2**32), st.integers(0, 5000), st.sampled_from([np.float32, np.float64]), st.data())
@settings(max_examples=60, deadline=None)
def test_the_largest_magnitude_is_numpys(seed: int, size: int, dtype: Any, data: st.DataObject) -> None:
    array = drawn(seed, size, dtype, float(np.finfo(dtype).max))
    if size and data.draw(st.booleans()):
        array[data.draw(st.integers(0, size - 1))] = data.draw(
            st.sampled_from([np.nan, -np.nan, np.inf, -np.inf])
        )
    expected = float(np.max(np.abs(array), initial=0.0))
    np.testing.assert_equal(kernels.reach(array, many=True), expected)
    for limit in (expected, float(np.nextafter(expected, 0.0)), 1e30):
        assert kernels.is_within(array, limit, many=True) == (expected <= limit)


def turned(array: Array) -> Array:
    return np.asfortranarray(array)


def unaligned(array: Array) -> Array:
    memory = np.empty(array.nbytes + 1, np.uint8)
    found = memory[1:].view(array.dtype).reshape(array.shape)
    found[...] = array
    return found


def read_only(array: Array) -> Array:
    array = array.copy()
    array.flags.writeable = False
    return array


def every_second(array: Array) -> Array:
    return np.repeat(array, 2, axis=-1)[..., ::2]


def swapped(array: Array) -> Array:
    return array.astype(array.dtype.newbyteorder())


def half(array: Array) -> Array:
    return array.astype(np.float16)


@pytest.mark.parametrize("kind", [turned, unaligned, read_only, every_second, swapped, half])
@pytest.mark.parametrize("precision", ["float32", "float64", "exact"])
@pytest.mark.parametrize("with_base", [True, False])
@pytest.mark.usefixtures("many")
def test_arrays_of_any_kind(kind: Callable[[Array], Array], precision: Precision, *, with_base: bool) -> None:
    """What is no plain array is added as it always was."""

    def weights(seed: int) -> Weights:
        values = kind(np.random.default_rng(seed).standard_normal((31, 17)).astype(np.float32))
        return Weights({"w": values}, "s")

    base, parts = weights(9) if with_base else None, [(weights(seed), 3 * seed + 1) for seed in range(4)]
    mean = OnlineMean(base, precision)
    mean.add(*parts[0])
    mean.add_all(parts[1:])
    plain = OnlineMean(base, precision)
    plain._many = False
    total = np.zeros(31 * 17, {"float32": "f", "float64": "d", "exact": "q"}[precision])
    add: Any = kernels.add_fixed if precision == "exact" else kernels.add_scaled
    for part, n in parts:
        origin = None if base is None else base["w"].reshape(-1)
        add(total, [np.ascontiguousarray(part["w"]).reshape(-1)], [n], origin)
    assert bits(mean.sums.arrays["w"]) == bits(total)


@pytest.mark.parametrize("precision", ["float32", "float64", "exact"])
@pytest.mark.parametrize("bad", [np.nan, np.inf, 3e38])
@pytest.mark.usefixtures("many")
def test_a_refused_update_leaves_every_bit(precision: Precision, bad: float) -> None:
    """Also where it is the last value of the last array of several updates; the reason is the same with and without Numba."""
    kinds = {"w": Kind.TRAINABLE, "v": Kind.STATISTIC}

    def weights(seed: int) -> Weights:
        generator = np.random.default_rng(seed)
        arrays = {"w": generator.standard_normal((50, 41), np.float32), "v": generator.random(7, np.float32)}
        return Weights(arrays, "s", kinds)

    mean = OnlineMean(weights(0), precision, frozenset({"v"}))
    mean.add(weights(1), 3)
    before = {name: bits(array) for name, array in mean.sums.arrays.items()}
    broken, negative = weights(2), weights(3)
    broken["v"][6], negative["v"][6] = bad, -1
    reasons = {np.nan: "NaN or infinity", np.inf: "NaN or infinity", 3e38: "larger than|too large"}
    for refused, reason in ((broken, reasons[bad]), (negative, "no variance is negative")):
        with pytest.raises(UpdateRefused, match=rf"'v' holds .*({reason})|'v' holds ({reason})"):
            mean.add_all([(weights(4), 5), (refused, 1)])
        assert {name: bits(array) for name, array in mean.sums.arrays.items()} == before
        assert (mean.count, mean.total) == (1, 3)


@pytest.mark.parametrize("threads", [1, 3])
def test_threads_and_parts_leave_the_bits_as_they_are(monkeypatch: pytest.MonkeyPatch, threads: int) -> None:
    values = [drawn(seed, 20_001, np.float32, 1e12) for seed in range(3)]
    base, whole = drawn(9, 20_001, np.float32, 1e12), np.zeros(20_001, np.float32)
    kernels.add_scaled(whole, values, [1, 5, 9], base, many=True)
    monkeypatch.setattr(kernels, "_THREADS", threads)
    monkeypatch.setattr(kernels, "_PART", 5000)
    monkeypatch.setattr(kernels, "_SEVERAL", 700)
    parts = np.zeros(20_001, np.float32)
    kernels.add_scaled(parts, values, [1, 5, 9], base, many=True)
    assert bits(parts) == bits(whole)
    assert kernels.reach(values[0], many=True) == np.abs(values[0]).max()


def test_no_multiplication_is_fused_with_an_addition() -> None:
    from xbackend_fl.aggregation import compiled

    for sums in "fd":
        loop = compiled._dispatcher(compiled._add_scaled, cache=False)
        loop.compile(compiled._signature(sums, "f", "f"))
        (code,) = loop.inspect_asm().values()
        assert "mulps" in code or "mulpd" in code or "fmul" in code
        assert not re.search(r"\bv?f(n?m(add|sub)|ml[as])", code)
