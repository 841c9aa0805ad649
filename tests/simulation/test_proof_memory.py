"""What proofs hold is freed before the first round."""

from __future__ import annotations

import gc
import weakref
from contextlib import closing
from typing import Any

import pytest

from tests.simulation.conftest import Make
from xbackend_fl.mapping.probe.draw import draw_weights
from xbackend_fl.simulation import SimulationEngine


def test_no_draw_outlives_the_proofs(small: Make, monkeypatch: pytest.MonkeyPatch) -> None:
    """They are several models of memory, which training needs."""
    alive: list[weakref.ReferenceType[object]] = []

    def watched(*given: Any, **named: Any) -> dict[str, Any]:
        arrays = draw_weights(*given, **named)
        alive.extend(map(weakref.ref, arrays.values()))
        return arrays

    monkeypatch.setattr("xbackend_fl.mapping.probe.drawn.draw_weights", watched)
    with closing(SimulationEngine(small("participants={torch: 4}"), in_process=True)) as engine:
        engine.prepare(lambda _: None)
        gc.collect()
        assert alive
        assert not any(array() is not None for array in alive)
