"""The trained model as ONNX: by this process or, of a large model, by another one."""

from __future__ import annotations

import os
import subprocess
import sys
from importlib import import_module
from pathlib import Path

import numpy as np
import onnx
import pytest
import torch
from torch import nn

import xbackend_fl as xb
from xbackend_fl.errors import RunFailed
from xbackend_fl.rounds import RunFolder
from xbackend_fl.weights.onnx_writing import Writing

export = import_module("xbackend_fl.rounds.export")


@pytest.fixture
def model() -> nn.Module:
    return nn.Sequential(nn.Conv1d(3, 4, 3), nn.ReLU(), nn.Flatten(), nn.Linear(24, 2)).eval()


@pytest.fixture
def folder(model: nn.Module, tmp_path: Path) -> RunFolder:
    example = (np.zeros((1, 3, 8), np.float32),)
    schema = xb.describe(model, example)
    found = RunFolder(tmp_path)
    found.schema.write_text(schema.to_json(), encoding="utf-8")
    xb.save_weights(found.last, xb.bind(model, schema, example).read())
    return found


@pytest.mark.parametrize("large", [0, 1 << 40])
def test_the_file_answers_as_the_model(
    model: nn.Module, folder: RunFolder, large: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(export, "_LARGE", large)
    inputs = np.random.default_rng(0).standard_normal((5, 3, 8)).astype(np.float32)
    (answer,) = export.export(folder, (inputs,))
    expected = model(torch.from_numpy(inputs)).detach().numpy()
    np.testing.assert_allclose(answer, expected, rtol=0, atol=1e-6)


def test_both_write_the_same_bytes(folder: RunFolder, monkeypatch: pytest.MonkeyPatch) -> None:
    inputs = (np.ones((2, 3, 8), np.float32),)
    (here,) = export.export(folder, inputs)
    written = folder.onnx.read_bytes()
    folder.onnx.unlink()
    monkeypatch.setattr(export, "_LARGE", 0)
    (there,) = export.export(folder, inputs)
    assert folder.onnx.read_bytes() == written
    assert there.tobytes() == here.tobytes()


@pytest.mark.parametrize("large", [0, 1 << 40])
def test_what_onnx_refuses_is_a_failed_run(
    folder: RunFolder, large: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Inputs of another width than the graph's."""
    monkeypatch.setattr(export, "_LARGE", large)
    with pytest.raises(
        RunFailed, match=r"(?s)model\.onnx could not be written and run: .*Got invalid dimensions"
    ):
        export.export(folder, (np.ones((2, 4, 8), np.float32),))


def test_another_process_with_other_hashes_writes_the_same_bytes(folder: RunFolder, tmp_path: Path) -> None:
    export.export(folder, (np.ones((2, 3, 8), np.float32),))
    program = (
        "import sys; from pathlib import Path; from xbackend_fl.canonical import Schema;"
        "from xbackend_fl.canonical.onnx_export import to_bytes, to_onnx; from xbackend_fl.weights import load_weights;"
        "a = [Path(x) for x in sys.argv[1:]]; schema = Schema.from_json(a[0].read_text());"
        "a[2].write_bytes(to_bytes(to_onnx(schema, load_weights(a[1]))))"
    )
    other = tmp_path / "other.onnx"
    subprocess.run(
        [sys.executable, "-c", program, folder.schema, folder.last, other],
        env={**os.environ, "PYTHONHASHSEED": "123"},
        check=True,
    )
    assert other.read_bytes() == folder.onnx.read_bytes()


def test_the_file_says_whose_it_is(folder: RunFolder) -> None:
    about = {"course": "scans", "run": "one", "round": "3"}
    export.export(folder, (np.ones((2, 3, 8), np.float32),), Writing(opset=19, metadata=about))
    model = onnx.load(folder.onnx)
    assert {item.key: item.value for item in model.metadata_props}.items() >= about.items()
    assert model.opset_import[0].version == 19
