"""A small course without comparisons, in both frameworks, and the same in float64 NumPy."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from textwrap import dedent
from typing import Any

import numpy as np
from numpy.typing import NDArray

from xbackend_fl import Course, load_course
from xbackend_fl.data import batches

Array = NDArray[np.float64]
NAMES = ("ada", "ben", "cem", "dora", "eli")
FILES = {
    "torch_net.py": """\
        import torch
        from torch import nn
        class Net(nn.Module):
            def __init__(self, norm=False):
                super().__init__()
                self.hidden, self.out = nn.Linear(4, 6), nn.Linear(6, 2)
                self.norm = nn.BatchNorm1d(6) if norm else nn.Identity()
            def forward(self, x):
                return self.out(torch.tanh(self.norm(self.hidden(x))))
        def normed():
            return Net(norm=True)
    """,
    "keras_net.py": """\
        import keras
        from keras import layers
        def build(norm=False):
            between = [layers.BatchNormalization(epsilon=1e-5, name="norm")] if norm else []
            return keras.Sequential([keras.Input((4,)), layers.Dense(6, name="hidden"), *between,
                                     layers.Activation("tanh"), layers.Dense(2, name="out")])
        def normed():
            return build(norm=True)
    """,
    "data.py": """\
        import numpy as np
        def load():
            draw = np.random.default_rng(5)
            true = draw.standard_normal((4, 2))
            def some(count):
                x = draw.standard_normal((count, 4)).astype(np.float32)
                return x, np.tanh(x @ true).astype(np.float32)
            return {"train": some(80), "validation": some(24), "test": some(24)}
    """,
}


def course_of(
    folder: Path, backends: Sequence[str], *settings: str, norm: bool = False, rounds: int = 20
) -> Course:
    """A course of five participants, whose backends take turns."""
    folder.mkdir(parents=True, exist_ok=True)
    for name, text in FILES.items():
        (folder / name).write_text(dedent(text))
    what = "normed" if norm else None
    models = {
        "torch": f"torch_net.py:{what or 'Net'}",
        "tensorflow": f"keras_net.py:{what or 'build'}",
    }
    listed = [
        f"{{name: {name}, backend: {backends[place % len(backends)]}}}" for place, name in enumerate(NAMES)
    ]
    chosen = ", ".join(f"{name}: '{models[name]}'" for name in models if name in backends)
    (folder / "course.yaml").write_text(
        f"name: smooth\nseed: 3\nrounds: {rounds}\nmodels: {{{chosen}}}\ninput: ['1,4']\n"
        f"data: {{source: 'data.py:load'}}\nparticipants: [{', '.join(listed)}]\n"
        "training: {loss: mean_squared_error, optimizer: {name: sgd, lr: 0.1}, batch_size: 8, epochs: 2}\n"
        "federate: {cohort: 3}\nkeep_checkpoints: 1000\n"
    )
    return load_course(folder / "course.yaml", settings)


class Model:
    """The network in float64: ``tanh(x W1' + b1) W2' + b2`` and the mean of squares over all values."""

    names = ("hidden.weight", "hidden.bias", "out.weight", "out.bias")

    @staticmethod
    def gradient(w: dict[str, Array], x: Array, y: Array) -> dict[str, Array]:
        """Gradients of the loss of a batch."""
        hidden = np.tanh(x @ w["hidden.weight"].T + w["hidden.bias"])
        error = hidden @ w["out.weight"].T + w["out.bias"] - y
        d_out = 2 * error / error.size
        d_hidden = (d_out @ w["out.weight"]) * (1 - hidden**2)
        return {
            "hidden.weight": d_hidden.T @ x,
            "hidden.bias": d_hidden.sum(axis=0),
            "out.weight": d_out.T @ hidden,
            "out.bias": d_out.sum(axis=0),
        }


def steps_of(course: Course, number: int, name: str, size: int) -> list[NDArray[np.intp]]:
    """The rows of every step that a participant makes in a round."""
    training = course.training
    key: tuple[Any, ...] = (course.seed, "batches", number, name)
    return list(batches(size, training.batch_size, training.epochs, training.steps, *key))
