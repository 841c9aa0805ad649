"""A parameter that is one number has no axis, in every file and in both frameworks."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import keras
import numpy as np
import onnx
import pytest
import torch
from onnx import numpy_helper

import xbfl_tensorflow
import xbfl_torch
from tests.convert.every_format import CANONICAL
from xbackend_fl import weights
from xbackend_fl.canonical.onnx_session import OnnxSession
from xbackend_fl.convert import convert, open_side

DATA = np.random.Generator(np.random.Philox(0)).standard_normal((2, 4)).astype(np.float32)


class Scaled(torch.nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.dense = torch.nn.Linear(4, 3)
        self.logit_scale = torch.nn.Parameter(torch.tensor(0.7))

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return self.dense(x) * self.logit_scale.exp()


class Scale(keras.layers.Layer):
    def __init__(self) -> None:
        super().__init__(name="scale")
        self.logit_scale = self.add_weight(shape=(), initializer=keras.initializers.Constant(0.7), name="s")

    def call(self, x: Any) -> Any:
        return x * keras.ops.exp(self.logit_scale)


def built(framework: str) -> tuple[Any, Any, np.ndarray[Any, Any]]:
    """Adapter, model and the framework's own answer."""
    if framework == "torch":
        torch.manual_seed(0)
        net = Scaled().eval()
        with torch.no_grad():
            return xbfl_torch.adapter, net, net(torch.from_numpy(DATA)).numpy()
    keras.utils.set_random_seed(0)
    model = keras.Sequential([keras.Input((4,), name="x"), keras.layers.Dense(3, name="dense"), Scale()])
    return xbfl_tensorflow.adapter, model, np.asarray(model(DATA))


@pytest.mark.parametrize("framework", ["torch", "tensorflow"])
def test_a_single_number_has_no_axis_in_any_file(framework: str, tmp_path: Path) -> None:
    adapter, model, expected = built(framework)
    reader = open_side(adapter, model, (DATA,))
    assert reader.schema is not None
    assert reader.trainer is not None
    (name,) = [item.name for item in reader.schema.parameters if item.shape == ()]
    source = weights.open_weights(reader.trainer.save(tmp_path / "native"))
    for suffix in CANONICAL:
        path = tmp_path / f"net{suffix}"
        convert(source, path, reader=reader)
        held = weights.open_weights(path)[name]
        assert (held.shape, held.tobytes()) == ((), np.float32(0.7).tobytes()), suffix
    file = tmp_path / "net.onnx"
    tensor = next(item for item in onnx.load(file).graph.initializer if item.name == name)
    assert numpy_helper.to_array(tensor).shape == ()
    (found,) = OnnxSession(file).run({reader.schema.inputs[0].name: DATA})
    np.testing.assert_allclose(found, expected, rtol=1e-5, atol=1e-6)
