"""Orders of features are found from columns that agree, whatever their number."""

from __future__ import annotations

import numpy as np
import pytest

from xbackend_fl.canonical.layout import Blocks, Native, Reorder, forward
from xbackend_fl.mapping.align.feature_order import feature_distance, ordered
from xbackend_fl.mapping.probe.sketch import columns

pytestmark = pytest.mark.quick

RNG = np.random.default_rng(5)


@pytest.mark.parametrize("order", ["same", "image", "patches", "any", "halves"])
@pytest.mark.parametrize("still", [0, 7])
def test_the_order_is_found(order: str, still: int) -> None:
    """``still`` features are never active and have equal columns: any order of them is right."""
    expected = RNG.standard_normal((5, 72))
    expected[:, RNG.permutation(72)[:still]] = 0.0
    places = {
        "same": np.arange(72),
        "image": np.arange(72).reshape(8, 9).T.reshape(-1),
        "patches": np.arange(72).reshape(2, 4, 9).transpose(2, 0, 1).reshape(-1),
        "halves": np.arange(72).reshape(2, 3, 2, 6).transpose(2, 1, 3, 0).reshape(-1),
        "any": RNG.permutation(72),
    }[order]
    received = expected[:, places] * (1 + 1e-6 * RNG.standard_normal((5, 72)))
    if order == "any" and still:
        received = received[:, :72]
    distance, found = feature_distance(columns(expected, 1), received.astype(np.float32), 1)
    if order == "any" and still:
        # Equal columns leave no single order, and lengths explain none.
        assert distance > 0.1
        return
    assert distance < 1e-3
    layout = ordered(Native("w", (5, 72)), 1, found)
    assert isinstance(layout, {"same": Native, "any": Blocks}.get(order, Reorder))
    np.testing.assert_allclose(forward(layout, {"w": received}), expected, atol=1e-4)


def test_other_features_have_no_order() -> None:
    one, two = RNG.standard_normal((2, 5, 72))
    distance, found = feature_distance(columns(one, 1), two.astype(np.float32), 1)
    assert distance > 0.5
    assert found is None
