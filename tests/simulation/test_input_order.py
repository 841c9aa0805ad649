"""A course whose models take their inputs in other orders and forms ends as one whose models take them in one order."""

from __future__ import annotations

from pathlib import Path
from textwrap import dedent

import numpy as np
import pytest

from xbackend_fl.course import load_course
from xbackend_fl.data import Reading, load_splits
from xbackend_fl.errors import ConfigError
from xbackend_fl.simulation import run_course

FILES = {
    "torch_net.py": """
        import torch
        from torch import nn

        class Net(nn.Module):
            def __init__(self):
                super().__init__()
                self.first, self.second, self.head = nn.Linear(6, 8), nn.Linear(6, 8), nn.Linear(8, 3)

            def forward(self, user, item):
                return self.head(torch.tanh(self.first(user)) * self.second(item))

        class Other(Net):
            def forward(self, item, user):
                return super().forward(user, item)

        class Keyed(Net):
            def forward(self, batch):
                return super().forward(batch["user"], batch["item"])
        """,
    "keras_net.py": """
        import keras
        from keras import layers as K, ops

        def make(inputs):
            user, item = keras.Input((6,), name="user"), keras.Input((6,), name="item")
            both = ops.tanh(K.Dense(8)(user)) * K.Dense(8)(item)
            return keras.Model(inputs(user, item), K.Dense(3)(both))

        def listed():
            return make(lambda user, item: [user, item])

        def keyed():
            return make(lambda user, item: {"user": user, "item": item})
        """,
    "data.py": """
        import numpy as np

        def make(seed, rows):
            user, item = np.random.default_rng(seed).standard_normal((2, rows, 6)).astype("float32")
            return user, item, (user[:, 0] > 0).astype("int64") + (item[:, 1] > 0)

        SIZES = {"train": (0, 96), "validation": (1, 32), "test": (2, 32)}

        def listed():
            return {name: ((u, i), y) for name, (u, i, y) in ((n, make(*s)) for n, s in SIZES.items())}

        def named():
            return {n: ({"item": i, "user": u}, y) for n, (u, i, y) in ((n, make(*s)) for n, s in SIZES.items())}
        """,
    "course.yaml": """
        name: towers
        rounds: 2
        models: {torch: "torch_net.py:Net", tensorflow: "keras_net.py:listed"}
        input: ["user=1,6", "item=1,6"]
        data: {source: "data.py:named"}
        participants: {torch: 2, tensorflow: 2}
        training: {batch_size: 16, epochs: 1, optimizer: {name: sgd, lr: 0.1}}
        """,
}

TWO = (np.zeros((1, 1)), np.zeros((1, 1)))


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    for name, text in FILES.items():
        (tmp_path / name).write_text(dedent(text))
    return tmp_path


def weights(folder: Path, name: str, *settings: str) -> dict[str, np.ndarray]:
    run = run_course(load_course(folder / "course.yaml", settings), folder / name, in_process=True)
    assert run.result is not None
    assert run.result.onnx_error < 1e-5
    return dict(run.weights)


@pytest.mark.slow
def test_a_course_ends_with_the_same_bits_whatever_the_order_of_inputs(folder: Path) -> None:
    keras_keyed = "models.tensorflow=keras_net.py:keyed"
    plain = weights(folder, "plain", "data.source=data.py:listed", "input=['1,6', '1,6']")
    for name, *settings in (
        ("keyed", keras_keyed),
        ("other", "models.torch=torch_net.py:Other", keras_keyed),
        ("dict", "models.torch=torch_net.py:Keyed", keras_keyed),
    ):
        found = weights(folder, name, *settings)
        assert found.keys() == plain.keys()
        for key, array in plain.items():
            np.testing.assert_array_equal(array, found[key], err_msg=f"{name}: {key}")


def test_named_data_come_in_the_order_of_the_course(folder: Path) -> None:
    train = load_splits("data.py:named", Reading(folder, TWO, ("user", "item"))).train
    expected = load_splits("data.py:listed", Reading(folder, TWO)).train
    for one, two in zip(train.inputs, expected.inputs, strict=True):
        np.testing.assert_array_equal(one, two)
    with pytest.raises(
        ConfigError, match="a dict with the keys item, user; the course's `input` has the names a, b"
    ):
        load_splits("data.py:named", Reading(folder, TWO, ("a", "b")))


@pytest.mark.parametrize("shapes", ["['user=1,6', '1,6']", "['user=1,6', 'user=1,6']"])
def test_every_input_has_a_name_of_its_own_or_none_has(folder: Path, shapes: str) -> None:
    with pytest.raises(ConfigError, match="a name for each, or for none"):
        load_course(folder / "course.yaml", [f"input={shapes}"])
