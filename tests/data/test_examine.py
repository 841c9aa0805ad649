"""Every value is looked at, in whatever block it lies; what a dtype holds is what the standard library packs."""

from __future__ import annotations

import struct
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra import numpy as arrays

from xbackend_fl.data import column, digest, errors_once, not_finite, not_held, out_of_range
from xbackend_fl.data.examine import extreme_values
from xbackend_fl.errors import ConfigError

pytestmark = pytest.mark.quick


@pytest.fixture(autouse=True)
def small_blocks(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(column, "_BLOCK_BYTES", 64)


def _float32_holds(value: float) -> bool:
    try:
        return bool(struct.unpack("f", struct.pack("f", value))[0] == value)
    except OverflowError:
        return False


@given(arrays.arrays(np.float64, (30, 2), elements=st.floats(allow_nan=False, allow_infinity=False)))
@settings(max_examples=50, deadline=None)
def test_doubles_that_float32_cannot_hold_are_counted(array: np.ndarray) -> None:
    lost = [(index, value) for index, value in np.ndenumerate(array) if not _float32_holds(float(value))]
    found = not_held(array, np.dtype(np.float32))
    if not lost:
        assert found is None
        return
    (row, column), value = lost[0]
    assert found is not None
    assert found.startswith(f"{len(lost)} of 60 values, as {value} at row {row}, column {column}")


@given(st.lists(st.integers(-(1 << 40), 1 << 40), min_size=1, max_size=40))
@settings(max_examples=50, deadline=None)
def test_whole_numbers_that_float32_cannot_hold_are_counted(values: list[int]) -> None:
    lost = [value for value in values if not _float32_holds(value)]
    found = not_held(np.array(values), np.dtype(np.float32))
    assert (found is None) == (not lost)
    assert found is None or found.startswith(f"{len(lost)} of ")


@pytest.mark.parametrize(
    ("array", "dtype", "held"),
    [
        (np.array([0.0, -3.0, 2.0**62]), np.int64, True),
        (np.array([0.5]), np.int64, False),
        (np.array([2.0**70]), np.int64, False),
        (np.array([1 << 63], np.uint64), np.int64, False),
        (np.array([300]), np.uint8, False),
        (np.array([-1], np.int8), np.uint8, False),
        (np.array([255], np.int64), np.uint8, True),
        (np.array([True]), np.float32, True),
        (np.array([1 << 24, 1 << 25]), np.float32, True),
        (np.array([(1 << 24) + 1]), np.float32, False),
        (np.array([70000.0], np.float32), np.float16, False),
        # Told by itself, with a cure of its own.
        (np.array([np.nan, np.inf]), np.float32, True),
    ],
)
def test_what_a_dtype_holds(array: np.ndarray, dtype: Any, *, held: bool) -> None:
    assert (not_held(array, np.dtype(dtype)) is None) == held


@given(arrays.arrays(np.float32, (40, 3), elements=st.sampled_from([0.0, 1.0, np.nan, np.inf, -np.inf])))
@settings(max_examples=50, deadline=None)
def test_what_is_not_finite_is_counted(array: np.ndarray) -> None:
    bad = ~np.isfinite(array)
    found = not_finite(array)
    if not bad.any():
        assert found is None
        return
    row, column = np.argwhere(bad)[0]
    assert found is not None
    assert f"at row {row}, column {column} ({bad.sum()} value" in found
    assert f"in {bad.any(1).sum()} row" in found
    assert ("NaN" in found) == bool(np.isnan(array).any())


@given(arrays.arrays(np.int64, st.tuples(st.integers(1, 40), st.integers(1, 3)), elements=st.integers(-9, 9)))
@settings(max_examples=50, deadline=None)
def test_extreme_integers_are_those_of_each_column(array: np.ndarray) -> None:
    rows = extreme_values(array)
    assert array[rows].min(0).tolist() == array.min(0).tolist()
    assert array[rows].max(0).tolist() == array.max(0).tolist()
    wide = np.tile(array, (1, 33))
    assert extreme_values(wide)
    assert len(extreme_values(wide)) <= 2
    assert wide[extreme_values(wide)].max() == wide.max()


def test_ranges_and_places() -> None:
    array = np.zeros((50, 2, 2), np.int64)
    array[41, 1, 0] = 7
    assert out_of_range(array, 0, 7) is None
    assert out_of_range(array, 0, 6) == "7 at row 41, position [1, 0]"
    assert out_of_range(np.array([3, -1]), 0, 6) == "-1 at row 1"


def test_a_digest_tells_shapes_dtypes_and_orders_apart() -> None:
    array = np.arange(600.0).reshape(200, 3)
    others = [array[::-1], array.astype(np.float32), array.reshape(300, 2), array + 1e-9]
    assert len({digest([other]) for other in (array, *others)}) == 5
    assert digest([array]) == digest([array.copy(order="F")])
    assert digest([np.zeros((100, 3))]) != digest([np.zeros((200, 3))])


def test_one_mistake_at_several_places_is_told_once() -> None:
    places = ["a.py:load: train", "a.py:load: test", "participant 'x': b.py:load"]
    errors = [
        (place, ConfigError(f"{place}: NaN at row {row} ({row + 1} values)", hint="fill"))
        for row, place in enumerate(places)
    ]
    other = ConfigError("a.py:load: test: no examples")
    found = list(errors_once([*errors, (places[1], other)]))
    assert [error.message for error in found] == [
        "a.py:load: train: NaN at row 0 (1 values) (likewise: test, participant 'x': b.py:load)",
        "a.py:load: test: no examples",
    ]
    assert found[0].hint == "fill"


@pytest.mark.parametrize("value", [2**53 + 1, -(2**53) - 1, 2**62 + 1])
def test_a_whole_number_that_a_double_rounds_is_held_by_no_float(value: int) -> None:
    assert not_held(np.array([1, value]), np.dtype(np.float32)) is not None
    assert not_held(np.array([1, 2**24 + 1]), np.dtype(np.float32)) is not None
    assert not_held(np.array([1, 2**53]), np.dtype(np.float32)) is None
