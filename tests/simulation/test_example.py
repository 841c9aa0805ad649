"""The example to be read computes what the command computes."""

from __future__ import annotations

from pathlib import Path

from tests.conftest import Figure
from xbackend_fl import load_course, run_course
from xbackend_fl.adapter import load
from xbackend_fl.locate import load_callable


def test_fedavg_by_hand_is_the_course(root: Path, digits: Path, tmp_path: Path, figure: Figure) -> None:
    course = load_course(digits / "course.yaml", ["rounds=2"])
    real = run_course(course, tmp_path / "run", in_process=True)
    fedavg = load_callable("fedavg_by_hand.py:fedavg", root / "examples")
    for backend in course.backends:
        load(backend).configure_process(1, course.seed)
    by_hand = fedavg(2, course.seed)
    apart = by_hand.relative_distance(real.weights)
    figure("by hand from the course after 2 rounds", f"{apart:.1e}")
    assert apart <= 1e-3
