"""Training that leaves the numbers: each backend says so of its own real steps, before anybody merges what came of them."""

from __future__ import annotations

from pathlib import Path
from textwrap import dedent

import numpy as np
import pytest

from xbackend_fl import load_course
from xbackend_fl.errors import Diverged
from xbackend_fl.participant import Worker

FILES = {
    "torch_net.py": """
        from torch import nn

        def build():
            return nn.Sequential(nn.Linear(4, 8), nn.Linear(8, 1))
        """,
    "keras_net.py": """
        import keras

        def build():
            dense = keras.layers.Dense
            return keras.Sequential([keras.Input((4,)), dense(8), dense(1)])
        """,
    "data.py": """
        import numpy as np

        def load():
            x = np.random.default_rng(0).standard_normal((64, 4)).astype(np.float32)
            return {split: (x, x[:, :1] * 2) for split in ("train", "validation", "test")}
        """,
    "course.yaml": """
        name: apart
        rounds: 1
        models: {torch: torch_net.py:build, tensorflow: keras_net.py:build}
        input: ["1,4"]
        data: {source: data.py:load}
        participants:
          - {name: osaka, backend: torch}
          - {name: lyon, backend: tensorflow}
        training: {optimizer: {name: sgd, lr: 0.1}, batch_size: 8, loss: mean_squared_error}
        """,
}
NAMES = {"torch": "osaka", "tensorflow": "lyon"}


@pytest.fixture(scope="module")
def room(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("apart")
    for name, text in FILES.items():
        (folder / name).write_text(dedent(text))
    return folder


@pytest.mark.parametrize("backend", NAMES)
@pytest.mark.parametrize(
    ("lr", "steps", "loss"), [(1e10, 2, "inf"), (1e10, 4, "nan"), (1e36, 4, "nan")], ids=str
)
def test_a_loss_that_is_no_number_is_said(room: Path, backend: str, lr: float, steps: int, loss: str) -> None:
    settings = [f"training.optimizer.lr={lr:e}", f"training.steps={steps}"]
    worker = Worker(load_course(room / "course.yaml", settings), backend, 1)
    start = worker.initial()
    with pytest.raises(Diverged) as caught:
        worker.train_alone(1, start, NAMES[backend], {}, {})
    assert caught.value.message == f"the training loss is {loss}"
    # Nobody after this one inherits it.
    assert all(np.isfinite(array).all() for array in start.values())


@pytest.mark.parametrize("backend", NAMES)
def test_weights_that_one_step_makes_infinite_are_refused_by_name(room: Path, backend: str) -> None:
    """The loss of the only step is that before it, and finite."""
    settings = ["training.optimizer.lr=3e38", "training.steps=1"]
    worker = Worker(load_course(room / "course.yaml", settings), backend, 1)
    with pytest.raises(Diverged, match=r"parameter '.*' holds NaN or infinity after training"):
        worker.train_alone(1, worker.initial(), NAMES[backend], {}, {})
