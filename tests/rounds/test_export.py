"""The trained model as ONNX: by this process or, of a large model, by another one."""

from __future__ import annotations

from importlib import import_module
from pathlib import Path

import numpy as np
import pytest
import torch
from torch import nn

import xbackend_fl as xb
from xbackend_fl.errors import RunFailed
from xbackend_fl.rounds import RunFolder

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
