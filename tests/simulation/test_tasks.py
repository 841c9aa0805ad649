"""Courses of every kind of task: what the screen, the files and Python say is scikit-learn's figure of the trained model."""

from __future__ import annotations

from pathlib import Path
from textwrap import dedent
from typing import Any

import numpy as np
import pytest
import torch
from numpy.typing import NDArray
from sklearn.metrics import accuracy_score, mean_absolute_error, r2_score, root_mean_squared_error

from xbackend_fl.course import load_course
from xbackend_fl.events import Event
from xbackend_fl.locate import call
from xbackend_fl.report import LiveTable, describe
from xbackend_fl.simulation import run_course

Array = NDArray[Any]
NETS = {
    "torch_net.py": """
        from torch import nn

        def pixels():
            return nn.Conv2d(3, 4, 1)

        def labels():
            return nn.Linear(5, 6)

        def values():
            return nn.Linear(5, 3)

        class Tokens(nn.Module):
            def __init__(self):
                super().__init__()
                self.embed, self.head = nn.Embedding(8, 6), nn.Linear(6, 8)

            def forward(self, x):
                return self.head(self.embed(x))

        tokens = Tokens
        """,
    "keras_net.py": """
        import keras
        from keras import layers as K

        def pixels():
            return keras.Sequential([keras.Input((4, 4, 3)), K.Conv2D(4, 1)])

        def labels():
            return keras.Sequential([keras.Input((5,)), K.Dense(6)])

        def values():
            return keras.Sequential([keras.Input((5,)), K.Dense(3)])

        def tokens():
            return keras.Sequential([keras.Input((8,), dtype="int64"), K.Embedding(8, 6), K.Dense(8)])
        """,
    "data.py": """
        import numpy as np

        def three(make):
            return {name: make(np.random.default_rng(seed), rows) for seed, (name, rows) in enumerate(
                [("train", 80), ("validation", 30), ("test", 300)])}

        def pixels():
            def make(draw, rows):
                x = draw.standard_normal((rows, 3, 4, 4)).astype("float32")
                y = (x[:, 0] > 0) + 2 * (x[:, 1] > 0)
                y[:, 0, :2] = -100
                return x, y
            return three(make)

        def labels():
            def make(draw, rows):
                x = draw.standard_normal((rows, 5)).astype("float32")
                return x, (np.stack([x.sum(1), *x.T], 1) > 0.2).astype("int64")
            return three(make)

        def values():
            def make(draw, rows):
                x = draw.standard_normal((rows, 5)).astype("float32")
                return x, (x[:, :3] * 2 + x[:, 1:4] + 1000).astype("float32")
            return three(make)

        def tokens():
            def make(draw, rows):
                x = draw.integers(0, 8, (rows, 8))
                y = (3 * x + 1) % 8
                y[:, :2] = -100
                return x, y
            return three(make)
        """,
}
COURSE = """
    name: {task}
    rounds: 2
    models: {{torch: "torch_net.py:{task}", tensorflow: "keras_net.py:{task}"}}
    input: ["{shape}"]
    data: {{source: "data.py:{task}"}}
    participants: {{torch: 1, tensorflow: 1}}
    training: {{loss: {loss}, batch_size: 8, epochs: 2, optimizer: {{name: adam, lr: 0.02}}}}
    """


def of_classes(scores: Array, targets: Array) -> dict[str, float]:
    counted = targets != -100
    return {"accuracy": accuracy_score(targets[counted], scores[counted].argmax(-1))}


def of_labels(scores: Array, targets: Array) -> dict[str, float]:
    return {"accuracy": accuracy_score(targets.ravel(), scores.ravel() > 0)}


def of_values(outputs: Array, targets: Array) -> dict[str, float]:
    return {
        "rmse": root_mean_squared_error(targets.ravel(), outputs.ravel()),
        "mae": mean_absolute_error(targets, outputs),
        "r2": r2_score(targets, outputs),
    }


TASKS: dict[str, tuple[str, str, Any]] = {
    "pixels": ("cross_entropy", "1,3,4,4", lambda y, t: of_classes(np.moveaxis(y, 1, -1), t)),
    "tokens": ("cross_entropy", "int64:1,8", of_classes),
    "labels": ("binary_cross_entropy", "1,5", of_labels),
    "values": ("mean_squared_error", "1,5", of_values),
}


@pytest.mark.one_in(2)
@pytest.mark.parametrize("task", TASKS)
def test_figures_of_a_course(task: str, tmp_path: Path) -> None:
    for name, text in NETS.items():
        (tmp_path / name).write_text(dedent(text))
    loss, shape, oracle = TASKS[task]
    (tmp_path / "course.yaml").write_text(dedent(COURSE.format(task=task, shape=shape, loss=loss)))
    events: list[Event] = []
    course = load_course(tmp_path / "course.yaml")
    run = run_course(course, tmp_path / "run", observer=events.append, in_process=True)
    assert run.result is not None
    model = call(f"torch_net.py:{task}", tmp_path)
    model.load_state_dict(torch.load(run.path / "model.pt", weights_only=True))
    inputs, targets = call(f"data.py:{task}", tmp_path)["test"]
    with torch.no_grad():
        expected = oracle(model(torch.from_numpy(inputs)).numpy(), targets)
    found = run.result.test_metrics
    assert found.keys() == {"loss", *expected}
    assert {name: found[name] for name in expected} == pytest.approx(expected, rel=1e-5)
    assert found["loss"] == run.result.test_loss
    chosen = "rmse" if task == "values" else "accuracy"
    assert run.result.metric == chosen
    better = min if chosen == "rmse" else max
    assert run.result.validation_metrics[chosen] == better(e.metrics[chosen] for e in run.history)
    table = LiveTable()
    for event in events:
        table.add(event)
    lines = [describe(event) for event in events]
    summary = (run.path / "summary.md").read_text()
    value = f"{found[chosen]:.2%}" if chosen == "accuracy" else f"{found[chosen]:.4f}"
    assert lines[-1].startswith(f"done: test {chosen} {value} after 2 rounds")
    assert f"* Test {chosen} of the last weights: **{value}**" in summary
    if task == "values":
        assert "accuracy" not in "\n".join([*lines, summary])
        assert (run.history[-1].accuracy, run.result.test_accuracy) == (None, None)
    else:
        assert run.history[-1].accuracy == run.history[-1].metrics["accuracy"]
        assert run.result.test_accuracy == found["accuracy"] <= 1
