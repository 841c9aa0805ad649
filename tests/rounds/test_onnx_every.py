"""Every round that is kept is to be had as an ONNX file, the same bytes whoever writes it."""

from __future__ import annotations

import os
from pathlib import Path

import numpy as np
import onnx
import onnxruntime
import pytest
import torch
from typer.testing import CliRunner

from tests.command import xbfl
from tests.participant import models
from tests.rounds.test_resume import COURSE, LOADERS, write_data
from xbackend_fl import Course, load_course, run_course
from xbackend_fl.cli.main import app
from xbackend_fl.errors import ConfigError, FileError, RefusedInput
from xbackend_fl.rounds import RunFolder
from xbackend_fl.simulation import resume_run
from xbackend_fl.weights import load_weights, open_weights

OPAQUE = """
import torch
from torch import nn

class Volume(nn.Module):
    def __init__(self):
        super().__init__()
        self.dense, self.out = nn.Linear(8, 9), nn.Linear(1, 3)

    def forward(self, x):
        return self.out(torch.linalg.det(self.dense(x).reshape(-1, 3, 3))[:, None])

def build():
    return Volume()
"""


@pytest.fixture(scope="module")
def course(tmp_path_factory: pytest.TempPathFactory) -> Course:
    room = tmp_path_factory.mktemp("course")
    (room / "loaders.py").write_text(LOADERS)
    (room / "course.yaml").write_text(COURSE)
    write_data(room)
    return load_course(room / "course.yaml", ["onnx_every=2", "keep_checkpoints=4"])


@pytest.fixture(scope="module")
def run(course: Course) -> RunFolder:
    run_course(course, course.base / "run", in_process=True)
    return RunFolder(course.base / "run")


def convert(*arguments: object) -> str:
    done = CliRunner().invoke(app, ["convert", *map(str, arguments)])
    if isinstance(done.exception, RefusedInput):
        raise done.exception
    assert done.exit_code == 0, (done.output, done.exception)
    return done.output


def test_every_other_round_is_a_file(course: Course, run: RunFolder) -> None:
    assert [path.name for path in sorted(run.onnx_rounds.iterdir())] == [
        "round-00002.onnx",
        "round-00004.onnx",
    ]
    assert run.onnx_of(4).read_bytes() == run.onnx.read_bytes()
    model = onnx.load(run.onnx_of(2))
    onnx.checker.check_model(model, full_check=True)
    weights = run.checkpoint(2).weights
    about = {"course": course.name, "run": "run", "round": "2", "fingerprint": weights.fingerprint}
    assert {item.key: item.value for item in model.metadata_props} == about
    held = {item.name: onnx.numpy_helper.to_array(item) for item in model.graph.initializer}
    assert held.keys() == weights.keys()
    assert all(np.array_equal(held[name], weights[name]) for name in weights)


def test_a_round_that_is_kept_is_written_later_with_the_same_bytes(run: RunFolder, tmp_path: Path) -> None:
    for number in (1, 2, 3, 4):
        told = convert(run.path, tmp_path / f"{number}.onnx", "--round", number)
        assert "every canonical bit read again" in told
    assert (tmp_path / "2.onnx").read_bytes() == run.onnx_of(2).read_bytes()
    convert(run.path, tmp_path / "last.onnx")
    assert (
        (tmp_path / "last.onnx").read_bytes() == (tmp_path / "4.onnx").read_bytes() == run.onnx.read_bytes()
    )
    command = ("convert", run.path, tmp_path / "other.onnx", "--round", 2)
    done = xbfl(*command, cwd=tmp_path, env={**os.environ, "PYTHONHASHSEED": "123"})
    assert done.returncode == 0, done.stderr
    assert (tmp_path / "other.onnx").read_bytes() == run.onnx_of(2).read_bytes()


def test_the_file_of_a_round_computes_what_its_model_does(run: RunFolder, tmp_path: Path) -> None:
    convert(
        run.path,
        tmp_path / "net.pt",
        "--round",
        2,
        "--dest-model",
        f"torch:{models.__file__}:build",
        "--input",
        "1,8",
    )
    model = models.build()
    model.load_state_dict(torch.load(tmp_path / "net.pt", weights_only=True))
    x = np.random.default_rng(0).standard_normal((5, 8)).astype(np.float32)
    session = onnxruntime.InferenceSession(run.onnx_of(2))
    (found,) = session.run(None, {session.get_inputs()[0].name: x})
    np.testing.assert_allclose(found, model.eval()(torch.from_numpy(x)).detach().numpy(), atol=1e-6)


def test_a_round_without_a_checkpoint_is_read_from_its_file(course: Course, tmp_path: Path) -> None:
    asked = load_course(course.base / "course.yaml", ["onnx_every=3", "keep_checkpoints=1", "opset=20"])
    run_course(asked, tmp_path / "run", in_process=True)
    folder = RunFolder(tmp_path / "run")
    assert (folder.kept, folder.exported) == ([4], [3])
    convert(folder.path, tmp_path / "3.safetensors", "--round", 3)
    assert load_weights(tmp_path / "3.safetensors").digest != load_weights(folder.last).digest
    convert(folder.path, tmp_path / "3.onnx", "--round", 3)
    assert (tmp_path / "3.onnx").read_bytes() == folder.onnx_of(3).read_bytes()
    convert(folder.path, tmp_path / "19.onnx", "--round", 3, "--opset", 19)
    assert onnx.load(tmp_path / "19.onnx").opset_import[0].version == 19
    with pytest.raises(FileError, match=r"keeps no weights of round 2; it has 3, 4") as caught:
        convert(folder.path, tmp_path / "2.onnx", "--round", 2)
    assert "onnx_every" in str(caught.value.hint)


def test_the_best_weights_become_a_graph_by_their_schema(run: RunFolder, tmp_path: Path) -> None:
    convert(run.best, tmp_path / "best.onnx", "--schema", run.schema)
    held, best = open_weights(tmp_path / "best.onnx"), load_weights(run.best)
    assert held.metadata["fingerprint"] == best.fingerprint
    assert all(np.array_equal(held[name], best[name]) for name in best)


def test_a_run_that_goes_on_has_the_files_of_one_that_was_never_interrupted(
    course: Course, run: RunFolder, tmp_path: Path
) -> None:
    rounds = iter([False, False, False, True])
    run_course(course, tmp_path / "run", should_stop=lambda: next(rounds), in_process=True)
    folder = RunFolder(tmp_path / "run")
    # As a process leaves it that is killed before its checkpoint.
    folder.onnx_of(4).write_bytes(b"half")
    folder.onnx_of(8).write_bytes(b"of a round that never was")
    resume_run(folder.path, in_process=True)
    assert folder.exported == [2, 4]
    assert [folder.onnx_of(n).read_bytes() == run.onnx_of(n).read_bytes() for n in (2, 4)] == [True, True]


def test_a_round_that_is_undone_has_no_file(run: RunFolder, tmp_path: Path) -> None:
    folder = RunFolder(tmp_path)
    folder.onnx_rounds.mkdir()
    folder.onnx_of(3).write_bytes(run.onnx_of(2).read_bytes())
    folder.drop_checkpoint(3)
    assert folder.exported == []


def test_a_model_without_a_graph_is_refused_before_training(course: Course, tmp_path: Path) -> None:
    (course.base / "volume.py").write_text(OPAQUE)
    asked = load_course(course.base / "course.yaml", ["onnx_every=2", "models={torch: volume.py:build}"])
    with pytest.raises(ConfigError, match="`onnx_every`: no ONNX file of a round can be written"):
        run_course(asked, tmp_path / "run", in_process=True)
    assert not (tmp_path / "run").exists()
