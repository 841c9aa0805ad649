"""A course of two forms of one function, with operations that ONNX Runtime cannot run."""

from __future__ import annotations

from pathlib import Path
from textwrap import dedent

import numpy as np
import onnxruntime
import pytest
import torch

from xbackend_fl.course import load_course
from xbackend_fl.events import Event, Noted
from xbackend_fl.locate import call
from xbackend_fl.simulation import run_course

FILES = {
    "torch_net.py": """
        import torch
        from torch import nn

        class Net(nn.Module):
            def __init__(self):
                super().__init__()
                self.inner, self.outer = nn.Linear(6, 8), nn.Linear(8, 3)
                self.norm, self.drop = nn.BatchNorm1d(8, eps=1e-3), nn.Dropout(0.1)

            def forward(self, x):
                y = torch.cumsum(self.norm(self.inner(x)), 1)
                return self.outer(self.drop(torch.sort(y, 1).values))
        """,
    "keras_net.py": """
        import keras
        import numpy as np
        from keras import layers as K, ops

        def net():
            x = keras.Input((6,))
            y = K.BatchNormalization()(K.Dense(8)(x))
            y = ops.matmul(y, np.triu(np.ones((8, 8), "float32")))
            return keras.Model(x, K.Dense(3)(K.Dropout(0.1)(ops.sort(y, -1))))
        """,
    "data.py": """
        import numpy as np

        def splits():
            def make(seed, rows):
                x = np.random.default_rng(seed).standard_normal((rows, 6)).astype("float32")
                return x, (x[:, 0] > 0).astype("int64") + (x[:, 1] > 0)
            return {"train": make(0, 160), "validation": make(1, 40), "test": make(2, 80)}
        """,
    "course.yaml": """
        name: forms
        rounds: 3
        models: {models}
        input: ["1,6"]
        data: {source: "data.py:splits"}
        participants: {torch: 2, tensorflow: 2}
        training: {loss: cross_entropy, batch_size: 16, epochs: 2, optimizer: {name: adam, lr: 0.02}}
        """,
}


@pytest.mark.parametrize(
    "models",
    [
        "{torch: 'torch_net.py:Net', tensorflow: 'keras_net.py:net'}",
        pytest.param("{tensorflow: 'keras_net.py:net', torch: 'torch_net.py:Net'}", marks=pytest.mark.slow),
    ],
    ids=["torch first", "tensorflow first"],
)
def test_a_course_of_two_forms(models: str, tmp_path: Path) -> None:
    for name, text in FILES.items():
        (tmp_path / name).write_text(dedent(text).replace("{models}", models))
    course = load_course(tmp_path / "course.yaml")
    events: list[Event] = []
    run = run_course(course, tmp_path / "run", observer=events.append, in_process=True)
    assert run.result is not None
    assert run.result.onnx_error < 1e-4
    notes = " ".join(event.note for event in events if isinstance(event, Noted))
    assert (
        "model.onnx comes from a framework's own exporter, since 'sort'" in notes or "{tensorflow" in models
    )
    summary = (run.path / "summary.md").read_text()
    assert "`model.onnx`" in summary
    model = call("torch_net.py:Net", tmp_path).eval()
    model.load_state_dict(torch.load(run.path / "model.pt", weights_only=True))
    inputs, targets = call("data.py:splits", tmp_path)["test"]
    with torch.no_grad():
        outputs = model(torch.from_numpy(inputs)).numpy()
    session = onnxruntime.InferenceSession(str(run.path / "model.onnx"), providers=["CPUExecutionProvider"])
    (answered,) = session.run(None, {session.get_inputs()[0].name: inputs})
    np.testing.assert_allclose(answered, outputs, rtol=1e-4, atol=1e-5)
    assert run.result.test_accuracy == pytest.approx(np.mean(outputs.argmax(1) == targets), abs=1e-6)
    assert run.result.test_accuracy > 0.4


def test_a_course_goes_on_without_a_graph_that_nobody_can_write(tmp_path: Path) -> None:
    texts = FILES | {
        "torch_net.py": FILES["torch_net.py"]
        .replace("torch.cumsum", "torch.cummax")
        .replace(", 1)\n", ", 1).values\n", 1)
    }
    for name, text in texts.items():
        kept = dedent(text).replace("{models}", "{torch: 'torch_net.py:Net'}")
        (tmp_path / name).write_text(kept.replace("{torch: 2, tensorflow: 2}", "{torch: 2}"))
    events: list[Event] = []
    run = run_course(
        load_course(tmp_path / "course.yaml"), tmp_path / "run", observer=events.append, in_process=True
    )
    assert run.result is not None
    assert not (run.path / "model.onnx").exists()
    notes = " ".join(event.note for event in events if isinstance(event, Noted))
    assert "no model.onnx is written: 'cummax', 'sort' have no canonical form" in notes
    assert "No ONNX function found" in notes
    assert "* all backends agree" in (run.path / "summary.md").read_text()
