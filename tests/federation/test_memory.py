"""A server needs three models and 100 MB, however many silos there are."""

from __future__ import annotations

from pathlib import Path

import pytest

from tests.conftest import Figure
from tests.speed.deployment import local

_MODEL = 4 * 651 * 10_000


@pytest.mark.slow
def test_three_models_and_the_same_for_more_silos(tmp_path: Path, figure: Figure) -> None:
    few, many = (local(tmp_path / f"{silos}", silos)["server MB"] for silos in (3, 12))
    figure("MB of a server with 3 and with 12 silos, 26 MB each", f"{few:.0f}, {many:.0f}")
    assert max(few, many) * 1e6 <= 3 * _MODEL + 100e6
    assert abs(many - few) <= 4
