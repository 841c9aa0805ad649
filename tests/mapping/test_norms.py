"""A gradient of a net whose weights are small can be too large for a sum of squares in float32."""

from __future__ import annotations

import numpy as np
import pytest

from xbackend_fl.mapping.probe.norms import norm_of

pytestmark = pytest.mark.quick


@pytest.mark.parametrize("size", [1.0, 1e-30, 1e25])
def test_a_length_is_that_of_float64(size: float) -> None:
    array = np.random.default_rng(0).standard_normal((30, 7)).astype(np.float32) * np.float32(size)
    assert norm_of(array) == pytest.approx(float(np.linalg.norm(array.astype(np.float64))), rel=1e-5, abs=0.0)


@pytest.mark.parametrize("value", [np.nan, np.inf])
def test_what_is_no_number_stays_so(value: float) -> None:
    assert not np.isfinite(norm_of(np.array([1.0, value], np.float32)))
