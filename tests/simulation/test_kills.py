"""A simulation that is killed at any point goes on to the same bits; ``python -m tests.simulation.kills`` is the long form."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest

from tests.conftest import Figure


@pytest.mark.parametrize(
    "course",
    ["controls", *(pytest.param(name, marks=pytest.mark.slow) for name in ("streams", "everything"))],
)
def test_kills_change_nothing(root: Path, figure: Figure, course: str, *, thorough: bool) -> None:
    """With streams, schedules over rounds and steps, plateau, early stopping, frozen parameters, a transform, and what participants keep."""
    command = [sys.executable, "-m", "tests.simulation.kills", "50" if thorough else "2", "1", course]
    done = subprocess.run(command, cwd=root, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr[-3000:]
    figure(f"kills of a simulation, {course}", done.stdout.strip())
