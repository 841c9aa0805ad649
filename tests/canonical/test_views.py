"""A view of a layout is what NumPy makes of the array, or is refused."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from tests.canonical.test_layout import _natives, layouts
from xbackend_fl.canonical import views
from xbackend_fl.canonical.layout import Blocks, Layout, Native, Reshape, Transpose, forward
from xbackend_fl.errors import UnsupportedError

pytestmark = pytest.mark.quick


@pytest.mark.slow
@given(layouts(), st.data())
@settings(max_examples=300)
def test_part_is_a_slice_or_refused(layout: Layout, data: Any) -> None:
    axis = data.draw(st.integers(0, len(layout.shape) - 1))
    start = data.draw(st.integers(0, layout.shape[axis] - 1))
    stop = data.draw(st.integers(start + 1, layout.shape[axis]))
    natives = _natives(layout, np.random.default_rng(0))
    try:
        cut = views.slice_axis(layout, axis, start, stop)
    except UnsupportedError:
        return
    expected = np.take(forward(layout, natives), range(start, stop), axis=axis)
    assert cut.shape == expected.shape
    np.testing.assert_array_equal(forward(cut, natives), expected)


@given(layouts(), st.data())
@settings(max_examples=100)
def test_transposes_and_reshapes_compose(layout: Layout, data: Any) -> None:
    natives = _natives(layout, np.random.default_rng(0))
    perm = data.draw(st.permutations(range(len(layout.shape))))
    twice = views.transposed(views.transposed(layout, perm), perm)
    np.testing.assert_array_equal(
        forward(twice, natives), forward(layout, natives).transpose(perm).transpose(perm)
    )
    flat = views.reshaped(views.reshaped(layout, (-1 * -int(np.prod(layout.shape)),)), layout.shape)
    assert flat.shape == layout.shape


def test_the_parts_that_models_take() -> None:
    fused = Native("in_proj", (12, 4))
    assert views.slice_axis(fused, 0, 4, 8) == Native("in_proj", (12, 4), ((0, 4, 8),))
    heads = Transpose(Reshape(Native("kernel", (4, 3, 2)), (4, 6)), (1, 0))
    head = views.slice_axis(heads, 0, 2, 4)
    natives = {"kernel": np.arange(24.0).reshape(4, 3, 2)}
    np.testing.assert_array_equal(forward(head, natives), forward(heads, natives)[2:4])
    expert = views.index(Native("experts", (5, 4, 3)), 0, -1)
    assert expert.shape == (4, 3)
    assert not views.whole(expert)
    assert views.whole(heads)
    gate = views.slice_axis(Blocks(Native("w", (8, 2)), 0, (0, 3, 1, 2)), 0, 2, 4)
    assert gate == Native("w", (8, 2), ((0, 6, 8),))
    with pytest.raises(UnsupportedError, match="cuts through"):
        views.slice_axis(heads, 0, 1, 3)
