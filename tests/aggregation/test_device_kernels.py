"""The mean on a GPU gives the processor's bits; runs where CuPy and a GPU are."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest

from xbackend_fl import OnlineMean, Weights
from xbackend_fl.aggregation import Precision
from xbackend_fl.canonical import Kind
from xbackend_fl.errors import UpdateRefused

cupy = pytest.importorskip("cupy", reason="needs CuPy and a GPU")

KINDS = {"w": Kind.TRAINABLE, "m": Kind.STATISTIC, "odd": Kind.TRAINABLE, "n": Kind.COUNTER, "f": Kind.FROZEN}


def weights(seed: int) -> Weights:
    generator = np.random.default_rng(seed)
    arrays: dict[str, np.ndarray[Any, Any]] = {
        "w": generator.standard_normal((300, 257), np.float32),
        "m": generator.standard_normal(11, np.float32),
        "odd": generator.standard_normal(1025, np.float32)[1:].astype(np.float32),
        "n": np.array(generator.integers(0, 100), np.int64),
        "f": generator.standard_normal(3, np.float32),
    }
    return Weights(arrays, "schema", KINDS)


def moved(held: Weights) -> Weights:
    return held.like({name: cupy.asarray(array) for name, array in held.items()})


@pytest.mark.parametrize("precision", ["float32", "float64", "exact"])
@pytest.mark.parametrize("with_base", [True, False])
@pytest.mark.parametrize("at_once", [1, 3, 7])
def test_same_bits_as_numpy(precision: Precision, at_once: int, *, with_base: bool) -> None:
    base = weights(99) if with_base else None
    here = OnlineMean(base, precision)
    there = OnlineMean(None if base is None else moved(base), precision)
    parts = [(weights(seed), 1 + 7 * seed) for seed in range(7)]
    for part, n in parts:
        here.add(part, n)
    for start in range(0, len(parts), at_once):
        there.add_all([(moved(part), n) for part, n in parts[start : start + at_once]])
    expected, result = here.result(), there.result()
    for name in expected:
        assert isinstance(result[name], cupy.ndarray)
        got = cupy.asnumpy(result[name])
        if precision == "exact" or base is not None or KINDS[name] in {Kind.COUNTER, Kind.FROZEN}:
            np.testing.assert_array_equal(got, expected[name])
        else:  # BLAS may fuse multiplication and addition
            np.testing.assert_allclose(got, expected[name], rtol=0, atol=1e-6)


@pytest.mark.parametrize("bad", [np.nan, np.inf, -np.inf])
@pytest.mark.parametrize("place", [0, 1, 77_099])
def test_what_is_not_finite_is_refused(bad: float, place: int) -> None:
    mean = OnlineMean(moved(weights(0)))
    mean.add(moved(weights(1)), 3)
    before = cupy.asnumpy(mean.result()["w"])
    broken = moved(weights(2))
    broken["w"].reshape(-1)[place] = bad
    with pytest.raises(UpdateRefused, match="NaN or infinity"):
        mean.add(broken, 3)
    np.testing.assert_array_equal(cupy.asnumpy(mean.result()["w"]), before)


@pytest.mark.parametrize("precision", ["float32", "float64"])
def test_a_refused_update_leaves_every_bit(precision: Precision) -> None:
    """Also where it is refused for its last array, among several, and with the next one added afterwards."""
    base, parts = moved(weights(0)), [moved(weights(seed)) for seed in range(1, 5)]
    mean, clean = (OnlineMean(base, precision, frozenset({"m"})) for _ in range(2))
    for part in parts:
        part["m"][:] = cupy.abs(part["m"])
    broken, negative = moved(weights(7)), moved(weights(8))
    broken["m"][:], broken["odd"][5] = 1, np.nan
    negative["m"][:], negative["m"][3] = 1, -1
    for part in parts:
        mean.add(part, 3)
        clean.add(part, 3)
        for refused in (broken, negative):
            with pytest.raises(
                UpdateRefused, match="'odd'" if refused is broken else "no variance is negative"
            ):
                mean.add_all([(parts[0], 2), (refused, 3)])
        for name, array in clean.sums.arrays.items():
            np.testing.assert_array_equal(cupy.asnumpy(mean.sums.arrays[name]), cupy.asnumpy(array))
    assert (mean.count, mean.total) == (4, 12)


def test_an_update_elsewhere_is_refused() -> None:
    mean = OnlineMean(moved(weights(0)))
    with pytest.raises(UpdateRefused, match="not on the same device"):
        mean.add(weights(1), 3)
