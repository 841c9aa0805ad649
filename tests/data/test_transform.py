"""A transform draws what NumPy's generator of its key draws; what is read ahead comes in order, and no further than it should."""

from __future__ import annotations

import threading
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest

from xbackend_fl.data import ahead, generator
from xbackend_fl.data.dataset import Examples
from xbackend_fl.data.transform import Transform
from xbackend_fl.errors import ConfigError

pytestmark = pytest.mark.quick

FILE = Path(__file__).parents[1] / "participant" / "transforms.py"
INPUTS = np.arange(40, dtype=np.float32).reshape(5, 8)


def transform(name: str, *inputs: np.ndarray) -> Examples:
    found = Transform("data.transform", f"{FILE}:{name}", Path(), 7)
    return found(Examples(tuple(array.copy() for array in inputs or (INPUTS,)), np.arange(5)), 3, "osaka", 2)


def test_random_numbers_are_those_of_the_key() -> None:
    noise = generator(7, "transform", 3, "osaka", 2).normal(0, 0.3, (5, 8))
    assert np.array_equal(transform("noisy").inputs[0], (INPUTS + noise).astype(np.float32))


def test_several_inputs_and_targets() -> None:
    found = transform("twice", INPUTS, INPUTS)
    assert [array.max() for array in found.inputs] == [78, 39]
    assert found.targets.tolist() == [4, 3, 2, 1, 0]


@pytest.mark.parametrize(
    ("name", "message"),
    [
        ("longer", r"returned inputs of float32 \[5, 16\], expected float32 \[5, 8\], or float32"),
        ("alone", r"returned ndarray, expected \(inputs, targets\)"),
        ("raises", r"raised KeyError \(.*transforms.py:\d+\): brightness"),
        ("missing", "no callable 'missing'"),
    ],
)
def test_what_is_no_transform_is_named(name: str, message: str) -> None:
    with pytest.raises(ConfigError, match=message):
        transform(name)


def test_what_is_read_ahead_is_in_order_and_bounded() -> None:
    made: list[int] = []
    third = threading.Event()

    def source() -> Iterator[int]:
        for number in range(50):
            made.append(number)
            if number == 2:
                third.set()
            yield number

    found = ahead(source())
    assert next(found) == 0
    assert third.wait(5), "others are made while one is used"
    assert len(made) <= 5
    assert [*found] == [*range(1, 50)]


def test_an_error_comes_where_its_item_would_and_the_thread_ends() -> None:
    def source() -> Iterator[int]:
        yield 1
        raise KeyError("second")

    found = ahead(source())
    assert next(found) == 1
    with pytest.raises(KeyError, match="second"):
        next(found)
    endless = ahead(iter(int, 1))
    next(endless)
    endless.close()
    assert not [thread for thread in threading.enumerate() if thread.name.startswith("xbfl-data")]
