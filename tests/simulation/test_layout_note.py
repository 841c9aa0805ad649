"""Targets whose order of axes their shape does not show are said, once for every backend whose own order is another."""

from __future__ import annotations

from pathlib import Path

import pytest

from xbackend_fl import load_course
from xbackend_fl.events import Event, ModelBound
from xbackend_fl.simulation import run_course

NET = """\
from torch import nn

class Turned(nn.Module):
    def __init__(self, features):
        super().__init__()
        self.out = nn.Linear(3, features)

    def forward(self, x):
        return self.out(x).transpose(1, 2)

def square():
    return Turned(4)

def oblong():
    return Turned(5)
"""
DATA = """\
import numpy as np

def load(features=4):
    rng = np.random.default_rng(0)
    part = lambda n: tuple(rng.standard_normal((n, 4, k)).astype("float32") for k in (3, features))
    return {"train": part(16), "validation": part(8), "test": part(8)}

def oblong():
    return load(5)
"""
COURSE = """\
name: turned
rounds: 1
models: {torch: "net.py:square"}
input: ["1,4,3"]
data: {source: data.py:load}
training: {loss: mean_squared_error}
participants: {torch: 2}
"""


@pytest.mark.parametrize(("shape", "said"), [("square", 1), ("oblong", 0)])
def test_a_square_output_that_is_turned(shape: str, said: int, tmp_path: Path) -> None:
    for name, text in (("net.py", NET), ("data.py", DATA), ("course.yaml", COURSE)):
        (tmp_path / name).write_text(text)
    events: list[Event] = []
    settings = [f"models={{torch: 'net.py:{shape}'}}"]
    settings += ["data.source=data.py:oblong"] if shape == "oblong" else []
    run_course(
        load_course(tmp_path / "course.yaml", settings),
        tmp_path / "run",
        observer=events.append,
        in_process=True,
    )
    (bound,) = (event for event in events if isinstance(event, ModelBound))
    assert len([note for note in bound.notes if "read in ONNX layout" in note]) == said
