"""Engines are built on the processor, follow other weights, and are refused where they cannot."""

from __future__ import annotations

import ctypes
import json
import shutil
import time
from pathlib import Path

import numpy as np
import onnx
import pytest
from onnx import TensorProto, helper
from torch import nn

import xbackend_fl
from tests.conftest import Figure
from tests.networks.catalogue import NETWORKS
from tests.networks.network import Network
from xbackend_fl.canonical import Schema
from xbackend_fl.canonical.onnx_export import to_bytes, to_onnx
from xbackend_fl.errors import ConfigError, FileError, RefusedInput, SchemaError, UnsupportedError
from xbackend_fl.mapping.probe.draw import draw_weights
from xbackend_fl.places import PLACE
from xbackend_fl.tensorrt import Engine, Sizes, build, build_engine, refit_engine
from xbackend_fl.tensorrt.record import new_engine

pytest.importorskip("tensorrt_rtx_bindings", reason="the extra tensorrt is not installed")

SERVED = {(8, 0), (8, 6), (8, 9), (12, 0), (12, 1)}


def served() -> bool:
    """Whether this machine has a card that TensorRT-RTX serves."""
    try:
        driver = ctypes.CDLL("libcuda.so.1")
    except OSError:
        return False
    major, minor = ctypes.c_int(), ctypes.c_int()
    if driver.cuInit(0) or driver.cuDeviceGetAttribute(ctypes.byref(major), 75, 0):
        return False
    driver.cuDeviceGetAttribute(ctypes.byref(minor), 76, 0)
    return (major.value, minor.value) in SERVED or major.value > 12


on_a_card = pytest.mark.skipif(not served(), reason="not run here: no card that TensorRT-RTX serves")


@pytest.fixture(scope="module")
def schema() -> Schema:
    model = nn.Sequential(nn.Conv1d(3, 4, 3), nn.BatchNorm1d(4), nn.ReLU(), nn.Flatten(), nn.Linear(24, 2))
    return xbackend_fl.describe(model, (np.zeros((1, 3, 8), np.float32),))


def written(schema: Schema, path: Path, seed: int) -> Path:
    path.write_bytes(to_bytes(to_onnx(schema, draw_weights(schema, seed))))
    return path


@pytest.fixture(scope="module")
def built(schema: Schema, tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("engine")
    build_engine(written(schema, folder / "model.onnx", 0), folder / "net.engine", {})
    return folder


@pytest.fixture
def engine(built: Path, tmp_path: Path) -> Path:
    for name in ("net.engine", "net.engine.graph", "net.engine.sha256"):
        shutil.copy(built / name, tmp_path / name)
    return tmp_path / "net.engine"


def test_an_engine_follows_other_weights(schema: Schema, engine: Path, tmp_path: Path) -> None:
    before, graph = engine.read_bytes(), engine.with_name("net.engine.graph").read_bytes()
    refit_engine(engine, schema.fingerprint, draw_weights(schema, 1))
    written(schema, tmp_path / "model.onnx", 1)
    build_engine(tmp_path, tmp_path / "other.engine", {})
    assert engine.read_bytes() != before
    # What TensorRT builds of a file with these weights.
    assert engine.read_bytes() == (tmp_path / "other.engine").read_bytes()
    assert engine.with_name("net.engine.graph").read_bytes() == graph
    assert sorted(path.name for path in tmp_path.glob(".*")) == []


@pytest.mark.parametrize("name", ["", ".", "..", "/"])
def test_a_folder_is_no_engine(built: Path, name: str) -> None:
    with pytest.raises(FileError, match="exists"):
        build_engine(built / "model.onnx", Path(name), {})
    with pytest.raises(FileError, match="no such file"):
        refit_engine(Path(name), "f" * 64, {})


def test_the_graph_beside_an_engine_holds_no_weight(built: Path) -> None:
    graph = onnx.load_model_from_string((built / "net.engine.graph").read_bytes()).graph
    assert graph.initializer
    assert not any(item.raw_data for item in graph.initializer)


def test_weights_of_another_schema_are_refused(schema: Schema, engine: Path) -> None:
    before = engine.read_bytes()
    with pytest.raises(SchemaError, match=f"is of schema {schema.fingerprint[:12]}, the weights are of ffff"):
        refit_engine(engine, "f" * 64, draw_weights(schema, 1))
    with pytest.raises(SchemaError, match="do not say of which schema they are"):
        refit_engine(engine, None, draw_weights(schema, 1))
    one = {**draw_weights(schema, 1), "4.weight": np.zeros((2, 3), np.float32)}
    with pytest.raises(SchemaError, match=r"needs '4.weight' of shape \[2, 24\]"):
        refit_engine(engine, schema.fingerprint, one)
    assert engine.read_bytes() == before


def test_an_engine_of_another_version_is_refused(engine: Path) -> None:
    beside = engine.with_name("net.engine.graph")
    model = onnx.load_model_from_string(beside.read_bytes())
    held = {item.key: item.value for item in model.metadata_props}
    about = json.loads(held["engine"]) | {"version": "1.0"}
    helper.set_model_props(model, held | {"engine": json.dumps(about)})
    new_engine(engine, engine.read_bytes(), model.SerializeToString())
    with pytest.raises(FileError, match=r"was built by TensorRT 1\.0, and 1"):
        Engine.load(engine)
    new_engine(engine, engine.read_bytes(), b"none")
    with pytest.raises(FileError, match="is no graph of an engine"):
        Engine.load(engine)
    beside.unlink()
    with pytest.raises(FileError, match="no such file"):
        Engine.load(engine)


def test_an_operator_that_the_parser_lacks_is_named_with_its_layer() -> None:
    ports = [
        helper.make_tensor_value_info(name, TensorProto.FLOAT, shape)
        for name, shape in (("x", [2, 3, 3]), ("y", [2]))
    ]
    node = helper.make_node("Det", ["x"], ["y"], name="blocks.0/Det_1")
    node.metadata_props.add(key=PLACE, value="net.py:7")
    model = helper.make_model(helper.make_graph([node], "g", ports[:1], ports[1:]), ir_version=10)
    with pytest.raises(UnsupportedError, match=r"has no Det as 'blocks\.0' needs it \(at net\.py:7\)"):
        build(model, {})


def test_a_free_axis_without_sizes_is_refused() -> None:
    schema = xbackend_fl.describe(nn.Linear(3, 6), (np.zeros((1, 4, 3), np.float32),))
    model = to_onnx(schema, draw_weights(schema, 0), sequence_axes=[(0, 1)])
    name = model.graph.input[0].name
    with pytest.raises(ConfigError, match=f"axis '{name}_1' of input '{name}' is free"):
        build(model, {})
    assert build(model, {f"{name}_1": Sizes.from_text("1:4:32")})
    with pytest.raises(ConfigError, match="no input has a free axis 'length'") as caught:
        build(model, {"length": Sizes.from_text("1:4:32")})
    assert f"batch or {name}_1" in str(caught.value.hint)
    with pytest.raises(ConfigError, match="are no sizes"):
        Sizes.from_text("4:1:32")


def test_an_operator_that_the_parser_refuses_here_is_said_with_its_reason() -> None:
    ports = [helper.make_tensor_value_info(name, TensorProto.FLOAT, [2, 3]) for name in ("x", "y")]
    nodes = [
        helper.make_node("Cast", ["x"], ["bytes"], name="blocks.0/Cast_0", to=TensorProto.UINT8),
        helper.make_node("Cast", ["bytes"], ["y"], name="blocks.0/Cast_1", to=TensorProto.FLOAT),
    ]
    model = helper.make_model(helper.make_graph(nodes, "g", ports[:1], ports[1:]), ir_version=10)
    with pytest.raises(UnsupportedError, match=r"no Cast as 'blocks\.0' needs it: .*UINT8"):
        build(model, {})


def test_a_refittable_engine_takes_a_card_and_says_so_in_one_line(
    schema: Schema, capfd: pytest.CaptureFixture[str]
) -> None:
    if served():
        pytest.skip("this machine has one")
    with pytest.raises(
        RefusedInput, match="cannot build a refittable engine on this machine's card"
    ) as caught:
        build(to_onnx(schema, draw_weights(schema, 0)), {}, refittable=True)
    assert len(caught.value.message.splitlines()) == 1
    assert "8.0, 8.6, 8.9, 12.0" in str(caught.value.hint)
    assert capfd.readouterr() == ("", "")


@pytest.mark.parametrize(
    "network",
    [pytest.param(n, id=n.name, marks=() if n.name == "two towers" else pytest.mark.slow) for n in NETWORKS],
)
def test_every_network_is_parsed_and_built(network: Network) -> None:
    schema = xbackend_fl.describe(network.torch(), network.example())
    assert build(to_onnx(schema, draw_weights(schema, 0)), {})


@on_a_card
def test_refit_on_a_card(tmp_path: Path, figure: Figure) -> None:
    """What it computes is held against ONNX Runtime by the refit itself, which refuses otherwise."""
    network = next(network for network in NETWORKS if network.name == "ResNet-50")
    schema = xbackend_fl.describe(network.torch(), network.example())
    build_engine(written(schema, tmp_path / "model.onnx", 0), tmp_path / "net.engine", {}, refittable=True)
    engine, weights = Engine.load(tmp_path / "net.engine"), draw_weights(schema, 1)
    before = time.perf_counter()
    engine.write(weights)
    figure("ResNet-50 refitted and compared, s", f"{time.perf_counter() - before:.2f}")
