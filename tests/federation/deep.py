"""A deep plain net that PyTorch really trains, and silos one of which sends weights from which nobody can."""

from __future__ import annotations

from pathlib import Path

from xbackend_fl.course import Course, load_course
from xbackend_fl.federation import Silo

MODEL = """\
import torch


def build():
    torch.manual_seed(7)
    layers = []
    for _ in range({layers}):
        layers += [torch.nn.Linear(8, 8), torch.nn.ReLU()]
        torch.nn.init.kaiming_normal_(layers[-2].weight)
    return torch.nn.Sequential(*layers, torch.nn.Linear(8, 3))
"""

DATA = """\
import numpy as np


def load():
    draw = np.random.default_rng(3)

    def part(count):
        x = draw.standard_normal((count, 8)).astype("float32")
        return x, x[:, :3].argmax(axis=1).astype("int64")

    return {"train": part(96), "validation": part(24), "test": part(24)}
"""

COURSE = """\
name: deep
seed: 5
rounds: {rounds}
models: {{torch: "model.py:build"}}
input: ["1,8"]
data: {{source: "data.py:load"}}
participants: {{torch: {silos}}}
training: {{optimizer: {{name: sgd, lr: 0.001}}, batch_size: 8, steps: 3}}
federate: {{{federate}precision: exact, server: {{{server}}}}}
"""


def deep_course(
    folder: Path,
    *,
    rounds: int = 3,
    silos: int = 4,
    layers: int = 30,
    server: str = "name: fedavg",
    federate: str = "",
    more: str = "deployment: {quorum: 2, round_timeout_s: 60}\n",
) -> Course:
    """A course of silos with a deep net."""
    folder.mkdir(parents=True, exist_ok=True)
    (folder / "model.py").write_text(MODEL.format(layers=layers), encoding="utf-8")
    (folder / "data.py").write_text(DATA, encoding="utf-8")
    text = COURSE.format(rounds=rounds, silos=silos, server=server, federate=federate)
    (folder / "course.yaml").write_text(text + more, encoding="utf-8")
    return load_course(folder / "course.yaml")


def open_silos(course: Course, out: Path) -> list[Silo]:
    """All of a course, in this process."""
    return [Silo.from_course(course, p.name, out=out / p.name) for p in course.participants]
