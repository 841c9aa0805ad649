"""Weights in half precision move bit for bit: every pattern, by every container that has the dtype."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import keras
import ml_dtypes
import numpy as np
import onnx
import pytest
import torch
from keras import layers as K
from torch import nn

import xbfl_onnx
import xbfl_tensorflow
import xbfl_torch
from xbackend_fl import weights
from xbackend_fl.convert import Side, convert, open_pair, open_side, selected
from xbackend_fl.errors import FileError, RefusedInput, SchemaError

EXAMPLE = (np.random.default_rng(0).standard_normal((1, 256)).astype(np.float32),)
PATTERNS = np.arange(1 << 16, dtype=np.uint16).reshape(256, 256)
DTYPES: Mapping[str, Any] = {"bfloat16": ml_dtypes.bfloat16, "float16": np.float16}
HALVES = pytest.mark.parametrize("dtype", DTYPES)


def torch_net(dtype: str) -> nn.Module:
    return nn.Sequential(nn.Linear(256, 256, bias=False), nn.Tanh(), nn.Linear(256, 3)).to(
        getattr(torch, dtype)
    )


def keras_net(dtype: str) -> keras.Model:
    layers = [K.Dense(256, use_bias=False, activation="tanh", dtype=dtype), K.Dense(3, dtype=dtype)]
    return keras.Sequential([keras.Input((256,)), *layers])


def file_of(folder: Path, dtype: str, patterns: np.ndarray[Any, Any] = PATTERNS) -> weights.Archive:
    """A file of the PyTorch model, its first weight every pattern of 16 bits."""
    arrays = {n: np.zeros(t.shape, DTYPES[dtype]) for n, t in torch_net(dtype).state_dict().items()}
    weights.save(folder / "net.pt", arrays | {"0.weight": patterns.view(DTYPES[dtype])})
    return weights.open_weights(folder / "net.pt")


def blind(side: Side) -> Side:
    """A side that does not compute: what is no number has no output."""
    return Side(side.binding, side.schema)


def there_and_back(
    source: weights.Archive, middle: Path, sides: tuple[Side, Side], named: str | None = None
) -> None:
    first, second = sides
    convert(source, middle, named, reader=first, writer=second)
    back = middle.with_name(f"{middle.name}.back.pt")
    convert(weights.open_weights(middle, named), back, reader=second, writer=first)
    again = weights.open_weights(back)
    for name in source:
        assert again[name].dtype == source[name].dtype
        assert again[name].tobytes() == source[name].tobytes(), name


@HALVES
def test_every_pattern_between_files(dtype: str, tmp_path: Path) -> None:
    """By a binding alone; canonical files have the dtype too, and are read as float32 of the same numbers."""
    source = file_of(tmp_path, dtype)
    side = open_side(xbfl_torch.adapter, torch_net(dtype), EXAMPLE)
    for suffix in (".safetensors", ".xbf", *([".npz", ".h5"] if dtype == "float16" else [])):
        there_and_back(source, tmp_path / f"native{suffix}", (blind(side), blind(side)))
    convert(source, tmp_path / "canonical.safetensors", reader=blind(side))
    canonical = weights.open_weights(tmp_path / "canonical.safetensors")
    np.testing.assert_array_equal(canonical["0.weight"].view(np.uint16), PATTERNS)
    convert(canonical, tmp_path / "again.pt", writer=blind(side))
    np.testing.assert_array_equal(
        weights.open_weights(tmp_path / "again.pt")["0.weight"].view(np.uint16), PATTERNS
    )
    loaded = weights.load_weights(tmp_path / "canonical.safetensors")
    assert {array.dtype for array in loaded.values()} == {np.dtype(np.float32)}


@pytest.mark.slow
@HALVES
def test_every_pattern_between_frameworks(dtype: str, tmp_path: Path) -> None:
    source = file_of(tmp_path, dtype)
    ours, theirs = open_pair(
        (xbfl_torch.adapter, torch_net(dtype)), (xbfl_tensorflow.adapter, keras_net(dtype)), EXAMPLE
    )
    for number, (suffix, named) in enumerate(
        [(".keras", None), (".weights.h5", None), (".safetensors", None), ("", "checkpoint"), (".xbf", None)]
    ):
        there_and_back(source, tmp_path / f"net{number}{suffix}", (ours, theirs), named)
    written = keras_net(dtype)
    # Keras itself reads what was written. It cannot be asked about what is no number: it may give that other bits.
    written.load_weights(tmp_path / "net1.weights.h5")
    read = np.asarray(written.layers[0].kernel.value).T
    numbers = ~np.isnan(PATTERNS.view(DTYPES[dtype]).astype(np.float32))
    np.testing.assert_array_equal(read.view(np.uint16)[numbers], PATTERNS[numbers])


@pytest.mark.slow
@HALVES
def test_onnx_holds_the_same_numbers_in_float32(dtype: str, tmp_path: Path) -> None:
    drawn = np.random.default_rng(0).standard_normal((256, 256)).astype(DTYPES[dtype])
    source = file_of(tmp_path, dtype, drawn.view(np.uint16))
    side = open_side(xbfl_torch.adapter, torch_net(dtype), EXAMPLE)
    report = convert(source, tmp_path / "net.onnx", reader=side, example=EXAMPLE)
    assert f"weights of {dtype} are float32 in the ONNX file" in report.notes[-1]
    assert report.outputs[0].relative < 1e-5
    convert(weights.open_weights(tmp_path / "net.onnx"), tmp_path / "back.pt", writer=side, example=EXAMPLE)
    assert weights.open_weights(tmp_path / "back.pt")["0.weight"].tobytes() == drawn.tobytes()


def test_digits_are_never_lost_in_silence(tmp_path: Path) -> None:
    """Between precisions: wider is exact, narrower needs a word."""
    wide = open_side(xbfl_torch.adapter, torch_net("float32"), EXAMPLE)
    half = open_side(xbfl_torch.adapter, torch_net("bfloat16"), EXAMPLE)
    assert wide.schema is not None
    assert half.schema is not None
    assert wide.schema.fingerprint == half.schema.fingerprint
    fine = {n: t.numpy() for n, t in torch_net("float32").state_dict().items()}
    weights.save(tmp_path / "fine.pt", fine)
    source = weights.open_weights(tmp_path / "fine.pt")
    for reader, writer in ((wide, half), (half, half), (None, half)):
        with pytest.raises(SchemaError, match=r"more digits|the model has bfloat16") as caught:
            convert(source, tmp_path / "x.pt", reader=reader, writer=writer)
        assert "--dtype bfloat16" in str(caught.value.hint)
    rounded = selected(source, dtype="bfloat16")
    convert(rounded, tmp_path / "half.pt", reader=wide, writer=half, rounding=True)
    made = weights.open_weights(tmp_path / "half.pt")
    for name, array in fine.items():
        theirs = torch.from_numpy(array).bfloat16().view(torch.int16).numpy()
        np.testing.assert_array_equal(made[name].view(np.int16), theirs)
    convert(made, tmp_path / "wide.pt", reader=half, writer=wide)
    for name, array in weights.open_weights(tmp_path / "wide.pt").items():
        np.testing.assert_array_equal(array, made[name].astype(np.float32))
    assert not (tmp_path / "x.pt").exists()


@pytest.mark.slow
def test_a_sum_needs_more_digits(tmp_path: Path) -> None:
    """Two recurrent biases are one canonical bias: their sum is refused, or rounded on demand."""
    series = (np.zeros((1, 3, 4), np.float32),)

    class Net(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.r = nn.LSTM(4, 5, batch_first=True)

        def forward(self, x: torch.Tensor) -> torch.Tensor:
            made: torch.Tensor = self.r(x)[0]
            return made

    side = open_side(xbfl_torch.adapter, Net().bfloat16(), series)
    assert side.trainer is not None
    source = weights.open_weights(side.trainer.save(tmp_path / "net"))
    with pytest.raises(SchemaError, match="have more digits") as caught:
        convert(source, tmp_path / "x.safetensors", reader=side, writer=side)
    assert "recurrent biases" in str(caught.value.hint)
    convert(source, tmp_path / "x.safetensors", reader=side, writer=side, rounding=True)
    made = weights.open_weights(tmp_path / "x.safetensors")
    total = (torch.from_numpy(source[f"r.bias_{k}_l0"].astype(np.float32)) for k in ("ih", "hh"))
    expected = sum(total, torch.zeros(20)).bfloat16().view(torch.int16).numpy()
    np.testing.assert_array_equal(made["r.bias_ih_l0"].view(np.int16), expected)


@pytest.mark.slow
def test_keras_forgets_the_dtype_in_its_oldest_format(tmp_path: Path) -> None:
    side = open_side(xbfl_tensorflow.adapter, keras_net("bfloat16"), EXAMPLE)
    assert side.trainer is not None
    with pytest.raises(RefusedInput, match="without a word that they are bfloat16"):
        side.trainer.save(tmp_path / "net", "hdf5")
    with pytest.raises(FileError, match="npz cannot hold"):
        convert(weights.open_weights(side.trainer.save(tmp_path / "net")), tmp_path / "x.npz", reader=side)


def half_graph(dtype: str, *, casts: bool) -> onnx.ModelProto:
    """The PyTorch model as a graph in half precision; its weights may be cast first, and the rest be float32."""
    element = onnx.TensorProto.BFLOAT16 if dtype == "bfloat16" else onnx.TensorProto.FLOAT16
    shapes = {"w": (256, 256), "v": (3, 256), "b": (3,)}
    held = [
        onnx.helper.make_tensor(n, element, s, bytes(2 * int(np.prod(s))), raw=True)
        for n, s in shapes.items()
    ]
    used = {name: f"{name}.wide" if casts else name for name in shapes}
    wide = onnx.TensorProto.FLOAT
    nodes = [onnx.helper.make_node("Cast", [n], [w], to=wide) for n, w in used.items() if casts]
    nodes += [
        onnx.helper.make_node("Gemm", ["x", used["w"]], ["h"], transB=1),
        onnx.helper.make_node("Tanh", ["h"], ["t"]),
        onnx.helper.make_node("Gemm", ["t", used["v"], used["b"]], ["y"], transB=1),
    ]
    ends = [
        onnx.helper.make_tensor_value_info(name, wide if casts else element, ["N", size])
        for name, size in (("x", 256), ("y", 3))
    ]
    graph = onnx.helper.make_graph(nodes, "net", ends[:1], ends[1:], held)
    return onnx.helper.make_model(graph, opset_imports=[onnx.helper.make_opsetid("", 18)], ir_version=9)


@pytest.mark.slow
@pytest.mark.parametrize("casts", [False, True])
@HALVES
def test_a_graph_in_half_precision(dtype: str, tmp_path: Path, *, casts: bool) -> None:
    """ONNX Runtime computes with it in float32; new weights lie in the file with their bits."""
    onnx_side, torch_side = open_pair(
        (xbfl_onnx.adapter, half_graph(dtype, casts=casts)), (xbfl_torch.adapter, torch_net(dtype)), EXAMPLE
    )
    drawn = np.random.default_rng(0).standard_normal((256, 256)).astype(DTYPES[dtype])
    source = file_of(tmp_path, dtype, drawn.view(np.uint16))
    there_and_back(source, tmp_path / "net.onnx", (torch_side, onnx_side))
    made = onnx.load(tmp_path / "net.onnx")
    assert {item.data_type for item in made.graph.initializer} == {
        onnx.TensorProto.BFLOAT16 if dtype == "bfloat16" else onnx.TensorProto.FLOAT16
    }
    onnx.checker.check_model(made)
