"""Half precision and float32: every bit pattern there and back, and the rounding of PyTorch."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from xbackend_fl.canonical.dtypes import HALVES, check_fits, rounded, widened
from xbackend_fl.errors import RefusedInput

PATTERNS = np.arange(1 << 16, dtype=np.uint16)


@pytest.mark.parametrize("dtype", HALVES)
def test_every_pattern_comes_back(dtype: str) -> None:
    half = PATTERNS.view(HALVES[dtype])
    wide = widened(half)
    assert wide.dtype == np.float32
    np.testing.assert_array_equal(rounded(wide, dtype).view(np.uint16), PATTERNS)
    theirs = torch.from_numpy(PATTERNS.view(np.int16)).view(getattr(torch, dtype)).float().numpy()
    numbers = ~np.isnan(theirs)
    assert numbers.sum() == {"bfloat16": 65_282, "float16": 63_490}[dtype]
    np.testing.assert_array_equal(wide[numbers].view(np.uint32), theirs[numbers].view(np.uint32))
    assert np.isnan(wide[~numbers]).all()


@pytest.mark.parametrize("dtype", HALVES)
def test_rounding_is_that_of_pytorch(dtype: str) -> None:
    generator = np.random.default_rng(0)
    some = generator.integers(0, 1 << 32, 200_000, dtype=np.uint64).astype(np.uint32).view(np.float32)
    # Halfway between two neighbours, just above and just below; ties go to the even one.
    middle = widened(PATTERNS.view(HALVES[dtype])).view(np.uint32) | (
        1 << 15 if dtype == "bfloat16" else 1 << 12
    )
    for array in (
        some,
        *((middle + step).view(np.float32) for step in np.array([2**32 - 1, 0, 1], np.uint32)),
    ):
        theirs = torch.from_numpy(array).to(getattr(torch, dtype)).view(torch.int16).numpy().view(np.uint16)
        numbers = ~np.isnan(array)
        np.testing.assert_array_equal(rounded(array, dtype).view(np.uint16)[numbers], theirs[numbers])
        assert np.isnan(widened(rounded(array, dtype))[~numbers]).all()


def test_others_are_left_as_they_are() -> None:
    for array in (np.arange(3), np.ones(2, np.float32), np.array([True])):
        assert widened(array) is array
        assert rounded(array, "float32") is array
    assert rounded(np.arange(3), "bfloat16").dtype == np.int64


@pytest.mark.parametrize(
    ("dtype", "largest"), [("float16", 65504), ("bfloat16", 3.5e5), ("float16", np.inf), ("float16", np.nan)]
)
def test_a_master_that_fits_passes(dtype: str, largest: float) -> None:
    check_fits("kernel", dtype, np.array(largest, np.float32))


def test_a_master_that_would_become_infinite_is_refused() -> None:
    with pytest.raises(RefusedInput, match=r"'kernel' is float16, and its float32 master holds 3.5e\+05"):
        check_fits("kernel", "float16", np.array(3.5e5, np.float32))
