"""A course begins with a file of its model and of nothing larger; what trainers keep beside a model is left out, and that is said."""

from __future__ import annotations

import re
import shlex
from collections.abc import Callable, Mapping
from contextlib import closing
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from typer.testing import CliRunner

from xbackend_fl import Course, load_course
from xbackend_fl.cli.main import app
from xbackend_fl.errors import SchemaError
from xbackend_fl.rounds import Prepared
from xbackend_fl.rounds.initial import initial_weights
from xbackend_fl.simulation import SimulationEngine

NET = """
import keras
import torch
from torch import nn

def build():
    torch.manual_seed(1)
    return nn.Sequential(nn.Linear(4, 8), nn.BatchNorm1d(8), nn.ReLU(), nn.Linear(8, 3))

def build_keras():
    keras.utils.set_random_seed(1)
    dense = keras.layers.Dense
    return keras.Sequential([keras.Input((4,)), dense(8, activation="relu"), keras.layers.Dropout(0.1), dense(3)])

class Tied(nn.Module):
    def __init__(self):
        super().__init__()
        self.words, self.out = nn.Embedding(5, 4), nn.Linear(4, 5, bias=False)
        self.out.weight = self.words.weight

    def forward(self, x):
        return self.out(torch.tanh(x))
"""
COURSE = """
name: begins
rounds: 1
models: {torch: net.py:build}
input: ["1,4"]
data: {source: data.py:load}
participants: {torch: 1}
training: {batch_size: 8}
"""
DATA = """
import numpy as np

def load():
    x = np.random.default_rng(0).standard_normal((24, 4)).astype(np.float32)
    return {split: (x, (x[:, 0] > 0).astype(np.int64)) for split in ("train", "validation", "test")}
"""
Begin = Callable[..., tuple[Mapping[str, Any], str]]


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    room = tmp_path_factory.mktemp("begins")
    for name, text in {"net.py": NET, "data.py": DATA, "course.yaml": COURSE}.items():
        (room / name).write_text(text)
    return room


@pytest.fixture(scope="module")
def begun(folder: Path) -> Begin:
    def begin(path: Path, *settings: str) -> tuple[Mapping[str, Any], str]:
        course: Course = load_course(folder / "course.yaml", [f"initial={path}", *settings])
        with closing(SimulationEngine(course, in_process=True)) as engine:
            prepared: Prepared = engine.prepare(lambda _: None)
            return initial_weights(course, engine, prepared.schema, prepared.initial)

    return begin


def net() -> torch.nn.Sequential:
    torch.manual_seed(7)
    return torch.nn.Sequential(
        torch.nn.Linear(4, 8), torch.nn.BatchNorm1d(8), torch.nn.ReLU(), torch.nn.Linear(8, 3)
    )


@pytest.mark.parametrize("prefix", ["", "module."])
def test_a_deeper_model_is_refused_by_what_it_has_more_and_the_cure_cures(
    begun: Begin, tmp_path: Path, prefix: str
) -> None:
    deeper = net().append(torch.nn.Linear(3, 3))
    path = tmp_path / "deep.pt"
    torch.save({prefix + name: value for name, value in deeper.state_dict().items()}, path)
    with pytest.raises(SchemaError) as caught:
        begun(path)
    named = f"holds '{prefix}4.weight', '{prefix}4.bias', for which this model has no place"
    assert named in caught.value.message
    assert caught.value.hint is not None
    command = re.search(r"xbfl (convert .*)", caught.value.hint)
    assert command is not None
    done = CliRunner().invoke(
        app, [word.replace("part.", f"{tmp_path}/part.") for word in shlex.split(command[1])]
    )
    assert done.exit_code == 0, done.output
    found, _ = begun(tmp_path / "part.safetensors")
    np.testing.assert_array_equal(found["0.weight"], deeper[0].weight.detach().numpy())


def test_one_tensor_more_is_refused(begun: Begin, tmp_path: Path) -> None:
    torch.save({**net().state_dict(), "more": torch.ones(3)}, tmp_path / "more.pt")
    with pytest.raises(SchemaError, match="holds 'more', for which this model has no place"):
        begun(tmp_path / "more.pt")


def test_a_file_with_the_model_twice_is_refused_and_the_cure_cures(begun: Begin, tmp_path: Path) -> None:
    path, part = tmp_path / "two.pt", tmp_path / "part.safetensors"
    torch.save({"model_state_dict": net().state_dict(), "ema_state_dict": net().state_dict()}, path)
    with pytest.raises(SchemaError, match="holds this model several times") as caught:
        begun(path)
    assert caught.value.hint is not None
    command = re.search(r"xbfl convert (.*) part.safetensors: .*(--only) '(.*)'", caught.value.hint)
    assert command is not None
    source, option, pattern = command.groups()
    done = CliRunner().invoke(app, ["convert", source, str(part), option, pattern])
    assert done.exit_code == 0, done.output
    found, _ = begun(part)
    np.testing.assert_array_equal(found["0.weight"], net()[0].weight.detach().numpy())


def test_what_a_trainer_keeps_beside_the_model_is_left_out_and_said(begun: Begin, tmp_path: Path) -> None:
    model = net()
    optimizer = torch.optim.Adam(model.parameters())
    model(torch.ones(2, 4)).sum().backward()
    optimizer.step()
    saved = {"epoch": 3, "model": model.state_dict(), "optimizer_state_dict": optimizer.state_dict()}
    torch.save(saved, tmp_path / "checkpoint.pt")
    found, said = begun(tmp_path / "checkpoint.pt")
    np.testing.assert_array_equal(found["3.weight"], model[3].weight.detach().numpy())
    assert "left out: 'model.1.num_batches_tracked', 'optimizer_state_dict.state.0.step'" in said
    # The model's own file holds nothing of anybody else's.
    torch.save(model.state_dict(), tmp_path / "plain.pt")
    assert "left out: '1.num_batches_tracked'" in begun(tmp_path / "plain.pt")[1]


def test_a_second_name_of_a_tensor_is_the_model_s_own(begun: Begin, tmp_path: Path) -> None:
    weight = torch.randn(5, 4)
    torch.save({"words.weight": weight, "out.weight": weight}, tmp_path / "tied.pt")
    found, _ = begun(tmp_path / "tied.pt", "models={torch: net.py:Tied}")
    (array,) = found.values()
    np.testing.assert_array_equal(np.sort(array.ravel()), np.sort(weight.numpy().ravel()))


@pytest.mark.parametrize("name", ["net.keras", "net.weights.h5"])
def test_a_compiled_model_of_keras_brings_its_optimizer(begun: Begin, tmp_path: Path, name: str) -> None:
    import keras

    dense = keras.layers.Dense

    def write(path: Path, *more: Any) -> None:
        layers = [dense(8, activation="relu"), keras.layers.Dropout(0.1), dense(3), *more]
        model = keras.Sequential([keras.Input((4,)), *layers])
        model.compile("adam", "mse")
        model.fit(np.ones((8, 4)), np.ones((8, 3)), verbose=0)
        model.save(path) if name.endswith(".keras") else model.save_weights(path)

    write(tmp_path / name)
    models = ("models={tensorflow: net.py:build_keras}", "participants={tensorflow: 1}")
    _, said = begun(tmp_path / name, *models)
    assert "left out: 'optimizer/vars/0'" in said
    write(tmp_path / f"deep-{name}", dense(3))
    with pytest.raises(SchemaError, match=r"holds .*dense_2.*, for which this model has no place"):
        begun(tmp_path / f"deep-{name}", *models)
