"""Buffers that a framework never saves come from the model; the frameworks themselves are the judges."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import keras
import numpy as np
import onnxruntime
import pytest
import safetensors.torch
import torch
from torch import nn

import xbfl_tensorflow
import xbfl_torch
from xbackend_fl import weights
from xbackend_fl.convert import convert, open_pair, open_side
from xbackend_fl.errors import MismatchError

EXAMPLE = (np.zeros((1, 6, 4), np.float32),)


class Positions(nn.Module):
    """Sinusoids, as transformers add them."""

    def __init__(self, base: float = 100.0) -> None:
        super().__init__()
        angles = torch.arange(6.0)[:, None] / base ** (torch.arange(2.0) / 2)
        table = torch.cat([angles.sin(), angles.cos()], 1)
        self.register_buffer("table", table, persistent=False)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return x + self.table


class Net(nn.Module):
    """Nested, with a scale beside them that is saved."""

    def __init__(self, base: float = 100.0) -> None:
        super().__init__()
        self.inner = nn.Sequential(nn.Linear(4, 4), Positions(base))
        self.register_buffer("scale", torch.tensor([1.0, 2.0, 3.0]))
        self.register_buffer("shift", torch.tensor([0.5, -2.0, 3.0]), persistent=False)
        self.head = nn.Linear(4, 3)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return self.head(torch.tanh(self.inner(x))) * self.scale + self.shift


def _file(net: nn.Module, path: Path) -> weights.Archive:
    torch.save(net.state_dict(), path)
    return weights.open_weights(path)


def test_the_model_gives_what_its_file_never_holds(tmp_path: Path) -> None:
    torch.manual_seed(1)
    net, other = Net(), Net()
    with torch.no_grad():
        expected = net(x := torch.randn(3, 6, 4)).numpy()
    source = _file(net, tmp_path / "x.pt")
    reader = open_side(xbfl_torch.adapter, other, EXAMPLE)
    report = convert(source, tmp_path / "x.onnx", reader=reader, example=EXAMPLE)
    assert not report.notes
    session = onnxruntime.InferenceSession(str(tmp_path / "x.onnx"), providers=["CPUExecutionProvider"])
    (received,) = session.run(None, {session.get_inputs()[0].name: x.numpy()})
    np.testing.assert_allclose(received, expected, rtol=1e-5, atol=1e-5)
    convert(source, tmp_path / "x.safetensors", reader=reader)
    assert len(weights.open_weights(tmp_path / "x.safetensors")) == 5


@pytest.mark.parametrize("name", ["y.pt", "y.safetensors"])
def test_a_file_holds_what_the_framework_itself_would_save(name: str, tmp_path: Path) -> None:
    torch.manual_seed(1)
    net, again = Net(), Net()
    source = _file(net, tmp_path / "x.pt")
    reader, writer = open_pair((xbfl_torch.adapter, Net()), (xbfl_torch.adapter, Net()), EXAMPLE)
    path = tmp_path / name
    convert(source, path, reader=reader, writer=writer, example=EXAMPLE)
    state: Any = torch.load(path) if name.endswith(".pt") else safetensors.torch.load_file(path)
    again.load_state_dict(state)  # strict: no key more, none less
    x = torch.randn(3, 6, 4)
    assert torch.equal(net(x), again(x))


def test_tables_of_other_values_are_another_function() -> None:
    with pytest.raises(MismatchError, match="the numbers do not"):
        open_pair((xbfl_torch.adapter, Net(base=50.0)), (xbfl_torch.adapter, Net()), EXAMPLE)


class Shift(keras.layers.Layer):
    """A constant that the layer makes itself and keeps out of files, as Keras lets it."""

    def build(self, shape: Any) -> None:
        values = keras.initializers.Constant([3.0, -1.0])
        self.shift = self.add_weight(name="shift", shape=shape[-1:], trainable=False, initializer=values)

    def call(self, x: Any) -> Any:
        return x + self.shift

    def save_own_variables(self, store: Any) -> None:
        """Nothing."""

    def load_own_variables(self, store: Any) -> None:
        """Nothing."""


def test_a_variable_that_keras_does_not_save(tmp_path: Path) -> None:
    keras.utils.set_random_seed(3)
    example = (np.zeros((1, 4), np.float32),)
    layers = [keras.Input((4,)), keras.layers.Dense(2, name="dense"), Shift(name="shift")]
    model = keras.Sequential(layers)
    model.save_weights(tmp_path / "x.weights.h5")
    expected = np.asarray(model(np.ones((2, 4), np.float32)))
    side = open_side(xbfl_tensorflow.adapter, model, example)
    convert(
        weights.open_weights(tmp_path / "x.weights.h5"), tmp_path / "x.onnx", reader=side, example=example
    )
    session = onnxruntime.InferenceSession(str(tmp_path / "x.onnx"), providers=["CPUExecutionProvider"])
    (received,) = session.run(None, {session.get_inputs()[0].name: np.ones((2, 4), np.float32)})
    np.testing.assert_allclose(received, expected, rtol=1e-5, atol=1e-6)
