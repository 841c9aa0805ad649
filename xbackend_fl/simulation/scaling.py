"""A course of any size on made-up data, for :mod:`~xbackend_fl.simulation.sweep`: participants, cohort, model and rounds."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np

from xbackend_fl.simulation.sweep import ROUNDS, Sweep

INPUTS, CLASSES = 64, 10
EXAMPLES_EACH = 10
_PEOPLE = 100_000
_BUILDERS = ("dense_1m", "dense_10m", "dense_100m", "dense_300m")

COURSE = """\
name: scaling
rounds: 10
models: {{{backend}: "xbfl_{backend}.samples:dense_1m"}}
input: ["1,{inputs}"]
data: {{source: "npz:{data}", partition: {{kind: iid}}}}
participants: {{{backend}: 1000}}
training: {{optimizer: {{name: sgd, lr: 0.01}}, batch_size: {each}, steps: 1}}
federate: {{cohort: 10, workers: 1}}
"""


def write_scaling_course(folder: Path, backend: str) -> Path:
    """Write the course and its data: 1,000 participants by default, 10 of them a round with a step each, 1 million values.

    Args:
        folder: Receives both; the data have 256 MB.
        backend: Trains; its adapter has the networks as ``samples``.

    Returns:
        The course file.
    """
    random = np.random.default_rng(0)
    arrays: dict[str, Any] = {}
    for split, count in (("train", _PEOPLE * EXAMPLES_EACH), ("validation", 100), ("test", 100)):
        arrays[f"{split}_x"] = random.standard_normal((count, INPUTS), np.float32)
        arrays[f"{split}_y"] = random.integers(0, CLASSES, count)
    np.savez(folder / "data.npz", **arrays)
    file = folder / "course.yaml"
    text = COURSE.format(backend=backend, inputs=INPUTS, data=folder / "data.npz", each=EXAMPLES_EACH)
    file.write_text(text, encoding="utf-8")
    return file


def scaling_sweeps(backend: str) -> tuple[Sweep, ...]:
    """What grows in the course: participants, those of a round, the model's values, and rounds."""
    return (
        Sweep(f"participants.{backend}", ("100", "1000", "10000", "100000")),
        Sweep("federate.cohort", ("10", "100", "1000")),
        Sweep(f"models.{backend}", tuple(f"xbfl_{backend}.samples:{name}" for name in _BUILDERS)),
        Sweep(ROUNDS, ("20", "200", "1000")),
    )
