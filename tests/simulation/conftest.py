"""A course small enough to run many times."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest

from tests.small_models import PAIR
from xbackend_fl import Course, load_course

Make = Callable[..., Course]


@pytest.fixture
def small(digits: Path) -> Make:
    """The digits course with small models, two rounds and four steps per participant, plus settings."""
    return lambda *settings: load_course(
        digits / "course.yaml", [PAIR, "rounds=2", "training.steps=4", "training.dropout=false", *settings]
    )
