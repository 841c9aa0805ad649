"""A small course, and its participants' examples as files of their own."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest

from xbackend_fl import Course
from xbackend_fl.participant import CourseData


@pytest.fixture
def small() -> list[str]:
    """Settings of a course of two rounds whose sums have no rounding."""
    return ["rounds=2", "training.steps=4", "federate.precision=exact"]


@pytest.fixture
def files_of(tmp_path: Path) -> Callable[[Course], Path]:
    """Write every participant's examples as it would have them; the folder."""

    def write(course: Course) -> Path:
        splits = CourseData(course, course.reference).splits()
        folder = tmp_path / "data"
        folder.mkdir()
        parts = {f"{n}_x": getattr(splits, n).inputs[0] for n in ("validation", "test")}
        parts |= {f"{n}_y": getattr(splits, n).targets for n in ("validation", "test")}
        for backend in course.backends:
            for name, share in CourseData(course, backend).parts(splits).items():
                own = share.gather(np.arange(len(share)))
                np.savez(folder / f"{name}.npz", train_x=own.inputs[0], train_y=own.targets, **parts)
        return folder

    return write
