"""A model with operations of its framework alone as ONNX: the framework's exporter writes it, ONNX Runtime runs it."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import keras
import numpy as np
import onnx
import onnxruntime
import pytest
import torch
from keras import layers as K
from keras import ops
from numpy.typing import NDArray
from onnx import numpy_helper
from torch import nn

from xbackend_fl import weights
from xbackend_fl.adapter import adapter_of
from xbackend_fl.canonical.onnx_opset import OPSET
from xbackend_fl.convert import convert, open_side
from xbackend_fl.convert.exporting import by_exporter
from xbackend_fl.errors import RefusedInput
from xbackend_fl.weights.onnx_writing import Writing

Array = NDArray[Any]


class TwoInputs(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.inner, self.norm = nn.Linear(6, 8), nn.BatchNorm1d(8, eps=1e-3)
        self.lstm, self.outer = nn.LSTM(8, 4, batch_first=True), nn.Linear(4, 3)

    def forward(self, x: torch.Tensor, *, weight: torch.Tensor) -> dict[str, torch.Tensor]:
        y = torch.sort(self.norm(self.inner(x)), 1).values
        z, _ = self.lstm(y[:, None].repeat(1, 5, 1))
        return {"each": self.outer(z), "last": self.outer(z[:, -1]) * weight}


def images() -> Any:
    """Grouped convolutions and the exact GELU, which tf2onnx alone does not write; channels last."""
    x = keras.Input((9, 9, 4), name="image")
    y = K.DepthwiseConv2D(3)(K.Conv2D(4, 3, groups=2, activation="gelu", name="first")(x))
    z = K.BatchNormalization()(K.Conv2DTranspose(3, 2)(y))
    return keras.Model(x, [ops.sort(z, -1), K.Dense(2)(K.Flatten()(ops.arctan2(z, 1.0 + z * z)))])


def _answers(file: Path, arrays: Sequence[Array]) -> list[Array]:
    session = onnxruntime.InferenceSession(str(file), providers=["CPUExecutionProvider"])
    names = [port.name for port in session.get_inputs()]
    return list(session.run(None, dict(zip(names, arrays, strict=True))))


def _normal(*shape: int) -> Array:
    return np.random.default_rng(len(shape)).standard_normal(shape).astype("float32")


def _converted(model: Any, example: Any, save: Callable[[Path], object], name: str, folder: Path) -> Path:
    for _, array in model.named_parameters() if isinstance(model, nn.Module) else ():
        nn.init.normal_(array, std=0.5)
    save(folder / name)
    side = open_side(adapter_of(model), model, example)
    arrays = list(example.values()) if isinstance(example, dict) else list(example)
    report = convert(weights.open_weights(folder / name), folder / "net.onnx", reader=side, example=arrays)
    (opset,) = (item.version for item in onnx.load(folder / "net.onnx").opset_import if not item.domain)
    assert f"the framework's own exporter, of opset {opset}" in " ".join(report.notes)
    assert all(output.relative < 1e-5 for output in report.outputs)
    # PyTorch's exporter writes the lines that a node comes from, with their files, into the graph.
    assert str(Path(__file__).parent).encode() not in (folder / "net.onnx").read_bytes()
    return folder / "net.onnx"


@pytest.mark.slow
def test_a_module_with_two_inputs_and_named_outputs(tmp_path: Path) -> None:
    model = TwoInputs().eval()
    example = {"x": _normal(1, 6), "weight": _normal(1, 1)}
    file = _converted(model, example, lambda path: torch.save(model.state_dict(), path), "net.pt", tmp_path)
    x, weight = _normal(7, 6), _normal(7, 1)
    with torch.no_grad():
        expected = model(torch.from_numpy(x), weight=torch.from_numpy(weight))
    received = _answers(file, [x, weight])
    np.testing.assert_allclose(received[0], expected["each"].numpy(), atol=1e-5)
    np.testing.assert_allclose(received[1], expected["last"].numpy(), atol=1e-5)
    held = {tensor.name: numpy_helper.to_array(tensor) for tensor in onnx.load(str(file)).graph.initializer}
    np.testing.assert_array_equal(held["norm.weight"], model.norm.weight.detach().numpy())
    np.testing.assert_array_equal(held["inner.weight"], model.inner.weight.detach().numpy())
    assert "lstm.weight" not in held
    layers = {node.name.rpartition("/")[0] for node in onnx.load(str(file)).graph.node if node.name}
    assert {"inner", "norm", "lstm", "outer", "forward"} <= layers


def test_keras_images_are_channels_first_in_the_file(tmp_path: Path) -> None:
    model = images()
    generator = np.random.default_rng(0)
    for variable in model.weights:
        variable.assign(generator.uniform(0.2, 0.8, variable.shape))
    file = _converted(model, (_normal(1, 4, 9, 9),), model.save_weights, "net.weights.h5", tmp_path)
    x = _normal(5, 4, 9, 9)
    image, features = (np.asarray(a) for a in model(x.transpose(0, 2, 3, 1), training=False))
    received = _answers(file, [x])
    np.testing.assert_allclose(received[0], image.transpose(0, 3, 1, 2), rtol=1e-5, atol=1e-5)
    np.testing.assert_allclose(received[1], features, rtol=1e-5, atol=1e-5)
    held = {tensor.name: numpy_helper.to_array(tensor) for tensor in onnx.load(str(file)).graph.initializer}
    kernel = np.asarray(model.layers[1].kernel)
    np.testing.assert_array_equal(held["first.weight"], kernel.transpose(3, 2, 0, 1))


class Unwritable(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.inner = nn.Linear(4, 4)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return torch.cummax(self.inner(x), 1).values


def test_nodes_say_which_line_of_the_user_s_file_they_are_of_and_not_where_that_lies(tmp_path: Path) -> None:
    model = TwoInputs()
    example = {"x": _normal(2, 6), "weight": _normal(2, 1)}
    file = _converted(model, example, lambda path: torch.save(model.state_dict(), path), "net.pt", tmp_path)
    source = Path(__file__)
    assert str(source.parent).encode() not in file.read_bytes()
    lines = source.read_text(encoding="utf-8").splitlines()
    said = {node.op_type: item.value for node in onnx.load(file).graph.node for item in node.metadata_props}
    name, _, number = said["TopK"].partition(":")
    assert name == source.name
    assert "torch.sort" in lines[int(number) - 1]


def test_what_an_exporter_cannot_write_is_refused_with_its_reason(tmp_path: Path) -> None:
    model = Unwritable()
    with pytest.raises(RefusedInput, match=r"PyTorch's exporter cannot write it: .*cummax"):
        _converted(
            model, (_normal(1, 4),), lambda path: torch.save(model.state_dict(), path), "net.pt", tmp_path
        )
    assert not (tmp_path / "net.onnx").exists()


@pytest.mark.parametrize("opset", [20, OPSET])
def test_an_opset_that_an_exporter_chooses_cannot_be_asked_for(tmp_path: Path, opset: int) -> None:
    """The usual one, too: the file would be of another."""
    model, example = Unwritable(), (_normal(1, 4),)
    weights.save(tmp_path / "net.npz", {"w": example[0]})
    side = open_side(adapter_of(model), model, example)
    source, writing = weights.open_weights(tmp_path / "net.npz"), Writing(opset=opset)
    said = r"^'cummax' has no canonical form, and the framework's own exporter .* chooses the opset"
    with pytest.raises(RefusedInput, match=said):
        by_exporter(tmp_path / "net.onnx", {}, side, example, writing)
    with pytest.raises(RefusedInput, match="only a new ONNX graph has an opset"):
        convert(source, tmp_path / "again.npz", writing=writing)
    assert [file.name for file in tmp_path.iterdir()] == ["net.npz"]
