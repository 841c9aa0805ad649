"""Declared sequence axes of a new ONNX graph are free, by ONNX Runtime at other lengths; PyTorch and Keras are the judges."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import keras
import numpy as np
import onnx
import onnxruntime
import pytest
import safetensors.torch
import torch
from torch import nn

import xbfl_tensorflow
import xbfl_torch
from xbackend_fl import weights
from xbackend_fl.convert import convert, open_side
from xbackend_fl.errors import RefusedInput
from xbackend_fl.weights.onnx_writing import Writing

LENGTH = 12


class Recurrent(nn.Module):
    """An LSTM whose states go through ``read``."""

    def __init__(self, read: Callable[[torch.Tensor], torch.Tensor]) -> None:
        super().__init__()
        self.cell, self.out, self.read = nn.LSTM(8, 5, batch_first=True), nn.Linear(5, 3), read

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return self.out(self.read(self.cell(x)[0]))


class Transformer(nn.Module):
    """Tokens, and a mask of them."""

    def __init__(self) -> None:
        super().__init__()
        self.embed, self.out = nn.Embedding(7, 8), nn.Linear(8, 3)
        self.layer = nn.TransformerEncoderLayer(8, 2, 16, dropout=0.0, batch_first=True)

    def forward(self, ids: torch.Tensor, mask: torch.Tensor) -> torch.Tensor:
        return self.out(self.layer(self.embed(ids))) * mask[:, :, None]


def _series(axis: int) -> tuple[np.ndarray[Any, Any], ...]:
    return (np.zeros((1, LENGTH, 8) if axis == 1 else (1, 8, LENGTH), np.float32),)


TOKENS = (np.zeros((1, LENGTH), np.int64), np.ones((1, LENGTH), np.float32))
FREE: dict[str, tuple[Callable[[], nn.Module], Any, list[tuple[int, int]]]] = {
    "LSTM": (lambda: Recurrent(lambda states: states), _series(1), [(0, 1)]),
    "last state": (lambda: Recurrent(lambda states: states[:, -1]), _series(1), [(0, 1)]),
    "one row per step": (lambda: Recurrent(lambda states: states.reshape(-1, 5)), _series(1), [(0, 1)]),
    "1-d CNN": (
        lambda: nn.Sequential(nn.Conv1d(8, 6, 3, padding=1), nn.ReLU(), nn.MaxPool1d(2), nn.Conv1d(6, 4, 1)),
        _series(2),
        [(0, 2)],
    ),
    "transformer": (Transformer, TOKENS, [(0, 1), (1, 1)]),
}
FIXED: dict[str, tuple[Callable[[], nn.Module], Any, list[tuple[int, int]], str]] = {
    "a step by number": (
        lambda: Recurrent(lambda states: states[:, LENGTH - 1]),
        _series(1),
        [(0, 1)],
        "a value of the graph fixes the length",
    ),
    "a division by the length": (
        lambda: Recurrent(lambda states: states.sum(1) / states.shape[1]),
        _series(1),
        [(0, 1)],
        "a value of the graph fixes the length",
    ),
    "a cut at the length": (
        lambda: Recurrent(lambda states: states[:, :LENGTH]),
        _series(1),
        [(0, 1)],
        r"the shape \[4, 12, 3\], and its graph with \[4, 13, 3\]",
    ),
    "a dense layer over all steps": (
        lambda: nn.Sequential(nn.MaxPool1d(2), nn.Flatten(), nn.Linear(8 * LENGTH // 2, 3)),
        _series(2),
        [(0, 2)],
        "the model takes no other length",
    ),
    "one of two masks": (Transformer, TOKENS, [(0, 1)], "the model takes no other length"),
    "features": (lambda: Recurrent(lambda states: states), _series(1), [(0, 2)], "takes no other length"),
    "no such axis": (lambda: Recurrent(lambda states: states), _series(1), [(0, 3)], "input 0 has 3 axes"),
}


def _convert(folder: Path, model: nn.Module, example: Any, axes: list[tuple[int, int]]) -> Path:
    safetensors.torch.save_file(model.state_dict(), folder / "net.safetensors")
    side = open_side(xbfl_torch.adapter, model, example)
    source, destination = weights.open_weights(folder / "net.safetensors"), folder / "net.onnx"
    convert(source, destination, reader=side, example=example, writing=Writing(axes))
    return destination


def _drawn(array: np.ndarray[Any, Any], axis: int | None, length: int) -> np.ndarray[Any, Any]:
    shape = [2 if i == 0 else length if i == axis else n for i, n in enumerate(array.shape)]
    generator = np.random.default_rng(length)
    drawn = generator.integers(0, 7, shape) if array.dtype.kind == "i" else generator.standard_normal(shape)
    return drawn.astype(array.dtype)


@pytest.mark.parametrize("name", FREE)
def test_other_lengths_run_in_onnx_runtime(name: str, tmp_path: Path) -> None:
    build, example, axes = FREE[name]
    model = build().eval()
    path = _convert(tmp_path, model, example, axes)
    proto = onnx.load(path)
    onnx.checker.check_model(proto, full_check=True)
    session = onnxruntime.InferenceSession(path)
    declared = [
        [d.dim_value or d.dim_param for d in i.type.tensor_type.shape.dim] for i in proto.graph.output
    ]
    for length in (4, LENGTH, 30):
        inputs = [_drawn(a, dict(axes).get(i), length) for i, a in enumerate(example)]
        answers = session.run(None, {i.name: a for i, a in zip(session.get_inputs(), inputs, strict=True)})
        with torch.no_grad():
            expected = model(*map(torch.from_numpy, inputs)).numpy()
        np.testing.assert_allclose(answers[0], expected, rtol=1e-4, atol=1e-5)
        assert all(isinstance(d, str) or d == n for d, n in zip(declared[0], expected.shape, strict=True))
    fixed = {(i, a) for i, array in enumerate(example) for a in range(1, array.ndim)} - set(axes)
    for index, item in enumerate(proto.graph.input):
        sizes = [d.dim_value for d in item.type.tensor_type.shape.dim]
        assert [bool(n) for n in sizes[1:]] == [(index, a) in fixed for a in range(1, len(sizes))]


@pytest.mark.parametrize("name", FIXED)
def test_a_length_that_the_graph_fixes_is_refused(name: str, tmp_path: Path) -> None:
    build, example, axes, reason = FIXED[name]
    with pytest.raises(RefusedInput, match=reason):
        _convert(tmp_path, build(), example, axes)
    assert not (tmp_path / "net.onnx").exists()


def test_a_keras_model_of_one_length_is_refused_and_the_cure_works(tmp_path: Path) -> None:
    def build(length: int | None) -> keras.Model:
        given = keras.Input((length, 8))
        return keras.Model(given, keras.layers.Dense(3)(keras.layers.Conv1D(4, 3, padding="same")(given)))

    for length in (LENGTH, None):
        model = build(length)
        model.save_weights(tmp_path / "net.weights.h5")
        side = open_side(xbfl_tensorflow.adapter, model, _series(2))
        source = weights.open_weights(tmp_path / "net.weights.h5")
        if length:
            with pytest.raises(RefusedInput, match=r"takes no other length.*\(None, 12, 8\)") as caught:
                convert(
                    source, tmp_path / "no.onnx", reader=side, example=_series(2), writing=Writing([(0, 2)])
                )
            assert "Input(shape=(None, 8))" in str(caught.value.hint)
        else:
            convert(source, tmp_path / "net.onnx", reader=side, example=_series(2), writing=Writing([(0, 2)]))
    data = _drawn(_series(2)[0], 2, 20)
    session = onnxruntime.InferenceSession(tmp_path / "net.onnx")
    (answer,) = session.run(None, {session.get_inputs()[0].name: data})
    expected = np.asarray(model(data.transpose(0, 2, 1)))
    matching = answer if answer.shape == expected.shape else answer.transpose(0, 2, 1)
    np.testing.assert_allclose(matching, expected, rtol=1e-4, atol=1e-5)


def test_only_a_new_graph_has_sequence_axes(tmp_path: Path) -> None:
    safetensors.torch.save_file({"a": torch.zeros(2)}, tmp_path / "a.safetensors")
    with pytest.raises(RefusedInput, match="only a new ONNX graph"):
        convert(
            weights.open_weights(tmp_path / "a.safetensors"), tmp_path / "a.npz", writing=Writing([(0, 1)])
        )
