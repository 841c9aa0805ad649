"""A course declares which axes of its model.onnx are of any length."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import onnxruntime
import pytest

from xbackend_fl import load_course
from xbackend_fl.errors import ConfigError, RefusedInput
from xbackend_fl.simulation import run_course

NET = """\
from torch import nn

class Mean(nn.Module):
    def __init__(self, fixed):
        super().__init__()
        self.cell, self.out, self.fixed = nn.GRU(3, 4, batch_first=True), nn.Linear(4, 2), fixed

    def forward(self, x):
        states = self.cell(x)[0]
        return self.out(states.sum(1) / x.shape[1] if self.fixed else states.mean(1))

def build():
    return Mean(False)

def fixed():
    return Mean(True)
"""
DATA = """\
import numpy as np

def load():
    rng = np.random.default_rng(0)
    part = lambda n: (rng.standard_normal((n, 6, 3)).astype("float32"), rng.integers(0, 2, n))
    return {"train": part(16), "validation": part(8), "test": part(8)}
"""
COURSE = """\
name: series
rounds: 1
models: {torch: "net.py:build"}
input: ["1,6,3"]
sequence_axes: ["0.1"]
data: {source: data.py:load}
participants: {torch: 2}
"""


@pytest.fixture
def course(tmp_path: Path) -> Path:
    for name, text in (("net.py", NET), ("data.py", DATA), ("course.yaml", COURSE)):
        (tmp_path / name).write_text(text)
    return tmp_path / "course.yaml"


def test_the_trained_model_takes_other_lengths(course: Path, tmp_path: Path) -> None:
    run_course(load_course(course), tmp_path / "run", in_process=True)
    session = onnxruntime.InferenceSession(tmp_path / "run" / "model.onnx")
    (given,) = session.get_inputs()
    assert given.shape[1] == f"{given.name}_1"
    series = np.random.default_rng(1).standard_normal((5, 6, 3)).astype(np.float32)
    twice = session.run(None, {given.name: np.repeat(series, 2, axis=1)})[0]
    assert twice.shape == (5, 2)
    assert np.isfinite(twice).all()


def test_a_model_that_fixes_the_length_is_refused_before_training(course: Path, tmp_path: Path) -> None:
    with pytest.raises(RefusedInput, match="fixes the length of a declared sequence axis"):
        run_course(load_course(course, ["models={torch: 'net.py:fixed'}"]), tmp_path / "run", in_process=True)


@pytest.mark.parametrize(
    ("axis", "reason"),
    [
        ("time", "is not INPUT.AXIS"),
        ("'1.1'", "there is no input 1"),
        ("'0.0'", "axis 0 is the batch"),
        ("'0.3'", "input 0 has 3 axes"),
        ("0.1", "should be a text"),
    ],
)
def test_what_is_no_axis_is_a_mistake_with_a_place(course: Path, axis: str, reason: str) -> None:
    course.write_text(COURSE.replace('"0.1"', axis))
    with pytest.raises(ConfigError, match=reason) as caught:
        load_course(course)
    assert "course.yaml:5" in str(caught.value)
