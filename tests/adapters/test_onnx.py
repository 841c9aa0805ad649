"""ONNX files as references: what the exporters of both frameworks write, mapped onto models."""

from __future__ import annotations

import warnings
from pathlib import Path
from typing import Any

import keras
import numpy as np
import onnx
import pytest
import tensorflow as tf
import torch
from keras import layers as K
from onnx import TensorProto, helper, numpy_helper
from torch import nn

import xbackend_fl
from tests.adapters.row import Row
from tests.adapters.zoo import ROWS
from tests.networks.catalogue import NETWORKS
from xbackend_fl.adapter import OPTIMIZERS, TrainConfig
from xbackend_fl.canonical.onnx_export import to_onnx
from xbackend_fl.errors import FileError, RefusedInput, UnsupportedError
from xbackend_fl.mapping.probe.draw import draw_weights
from xbfl_onnx.trainer import OnnxTrainer, read

EXPORTED = (
    pytest.param("ResNet-18", marks=pytest.mark.slow),
    pytest.param("U-Net", marks=pytest.mark.slow),
    pytest.param("WaveNet", marks=pytest.mark.slow),
    pytest.param("GPT decoder, tied", marks=pytest.mark.slow),
    "two towers",
    "several inputs and outputs",
)


def torch_file(model: nn.Module, example: Any, path: Path, **options: Any) -> Path:
    """What ``torch.onnx.export`` writes, every parameter kept."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        arrays = tuple(torch.from_numpy(np.concatenate([a, a])) for a in example)
        batch = torch.export.Dim("batch")
        program = torch.onnx.export(
            model.eval(),
            arrays,
            dynamo=True,
            verbose=False,
            dynamic_shapes=[{0: batch} for _ in arrays],
            **options,
        )
    onnx.save(program.model_proto, path)
    return path


def prove(path: Path, model: Any, example: Any) -> xbackend_fl.mapping.BoundModel:
    reference = read(path)
    schema, evidence = xbackend_fl.describe_reference(reference, example)
    return xbackend_fl.bind(model, schema, example, evidence)


@pytest.mark.one_in(2)
@pytest.mark.parametrize("name", EXPORTED)
def test_a_file_of_the_torch_exporter(name: str, tmp_path: Path) -> None:
    network = next(network for network in NETWORKS if network.name == name)
    example = network.example()
    path = torch_file(network.torch(), example, tmp_path / "model.onnx", optimize=False)
    bound = prove(path, network.tensorflow(), example)
    assert bound.proof.proven
    assert any("inference graph" in note or "only infers" in note for note in bound.proof.notes)


@pytest.mark.one_in(6)
@pytest.mark.parametrize("row", ROWS[2::6], ids=[row.name for row in ROWS[2::6]])
def test_our_own_files_are_read_back(row: Row, tmp_path: Path) -> None:
    example = row.example()
    schema = xbackend_fl.describe(row.torch(), example)
    onnx.save(to_onnx(schema, draw_weights(schema, 0)), tmp_path / "model.onnx")
    assert prove(tmp_path / "model.onnx", row.keras(), example).proof.proven


def test_a_file_of_tf2onnx_with_variables_as_inputs(tmp_path: Path) -> None:
    """Frozen files are folded; with every variable an input they are not."""
    import tf2onnx

    model = keras.Sequential(
        [keras.Input((8, 8, 3)), K.Conv2D(4, 3, activation="relu"), K.Flatten(), K.Dense(2)]
    )
    variables = model.trainable_variables

    def call(x: Any, *values: Any) -> Any:
        return model.stateless_call(values, [], x, training=False)[0]

    specs = [tf.TensorSpec((None, 8, 8, 3), tf.float32, name="x")]
    specs += [tf.TensorSpec(v.shape, v.dtype, name=v.path.replace("/", ".")) for v in variables]
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        proto, _ = tf2onnx.convert.from_function(tf.function(call, autograph=False), specs, opset=18)
    names = {item.name: v for item, v in zip(list(proto.graph.input)[1:], variables, strict=True)}
    for name, variable in names.items():
        proto.graph.initializer.append(onnx.numpy_helper.from_array(variable.numpy(), name))
    kept = [item for item in proto.graph.input if item.name not in names]
    del proto.graph.input[:]
    proto.graph.input.extend(kept)
    onnx.save(proto, tmp_path / "keras.onnx")
    image = (np.random.default_rng(0).standard_normal((1, 8, 8, 3)).astype(np.float32),)
    schema = xbackend_fl.describe(read(tmp_path / "keras.onnx"), image)
    assert [p.operator for p in schema.parameters] == ["Conv", "Conv", "Gemm", "Gemm"]


class Recurrent(nn.Module):
    def __init__(self, kind: type[nn.RNNBase], read: Any, width: int = 6, **options: Any) -> None:
        super().__init__()
        self.layer, self.head = kind(5, 6, batch_first=True, **options), nn.Linear(width, 3)
        self.read = read

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return self.head(self.read(*self.layer(x)))  # type: ignore[no-any-return]


def last(sequence: torch.Tensor, _: Any) -> torch.Tensor:
    return sequence[:, -1]


def averaged(sequence: torch.Tensor, _: Any) -> torch.Tensor:
    return sequence.mean(1)


RECURRENT = {
    "lstm": lambda: Recurrent(nn.LSTM, last),
    "two layers": lambda: Recurrent(nn.LSTM, last, num_layers=2),
    "both directions": lambda: Recurrent(nn.LSTM, averaged, 12, bidirectional=True),
    "state": lambda: Recurrent(nn.LSTM, lambda _, states: states[0][-1]),
    "cell": lambda: Recurrent(nn.LSTM, lambda _, states: states[1][-1]),
    "gru": lambda: Recurrent(nn.GRU, last),
}


@pytest.mark.one_in(4)
@pytest.mark.parametrize("dynamo", [False, True], ids=["torchscript", "dynamo"])
@pytest.mark.parametrize("name", RECURRENT)
def test_recurrent_files_as_the_exporters_write_them_are_bound(
    name: str, *, dynamo: bool, tmp_path: Path
) -> None:
    model, x = RECURRENT[name]().eval(), torch.randn(2, 7, 5)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        torch.onnx.export(model, (x,), str(tmp_path / "model.onnx"), dynamo=dynamo, verbose=False)
    schema, evidence = xbackend_fl.describe_reference(model, (x.numpy(),))
    bound = xbackend_fl.bind(read(tmp_path / "model.onnx"), schema, (x.numpy(),), evidence)
    assert bound.proof.proven
    assert any("inference graph" in note for note in bound.notes)


@pytest.mark.one_in(2)
@pytest.mark.parametrize("sequences", [False, True])
def test_an_lstm_of_tf2onnx_is_bound(*, sequences: bool, tmp_path: Path) -> None:
    import tf2onnx

    inputs = keras.Input((7, 5))
    hidden = K.LSTM(6, return_sequences=sequences)(inputs)
    model = keras.Model(inputs, K.Dense(3)(keras.ops.mean(hidden, 1) if sequences else hidden))
    generator = np.random.default_rng(0)
    # A bias of zeros is left out of the file.
    model.set_weights([generator.standard_normal(w.shape) for w in model.get_weights()])
    spec = [tf.TensorSpec((None, 7, 5), tf.float32, name="x")]
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        tf2onnx.convert.from_function(
            tf.function(lambda x: model(x, training=False)),
            spec,
            opset=18,
            output_path=str(tmp_path / "model.onnx"),
        )
    example = (generator.standard_normal((2, 7, 5)).astype(np.float32),)
    schema, evidence = xbackend_fl.describe_reference(model, example)
    assert xbackend_fl.bind(read(tmp_path / "model.onnx"), schema, example, evidence).proof.proven


def test_derived_files_are_refused_with_the_reason(tmp_path: Path) -> None:
    model = nn.Sequential(nn.Conv2d(3, 4, 3), nn.BatchNorm2d(4), nn.Flatten(), nn.Linear(144, 2))
    example = (np.zeros((1, 3, 8, 8), np.float32),)
    proto = read(torch_file(model, example, tmp_path / "plain.onnx", optimize=False))
    quantised = onnx.helper.make_node("DequantizeLinear", ["x", "s", "z"], ["q"], name="q")
    proto.graph.node.insert(0, quantised)
    with pytest.raises(UnsupportedError, match="quantised"):
        xbackend_fl.describe(proto, example)
    del proto.graph.node[0]
    proto.graph.initializer.append(onnx.numpy_helper.from_array(np.ones(3, np.float32), "const_fold_opt__66"))
    with pytest.raises(UnsupportedError, match="folded"):
        xbackend_fl.describe(proto, example)
    folded = torch_file(model, example, tmp_path / "folded.onnx")
    with pytest.raises(RefusedInput, match="BatchNormalization"):
        prove(folded, model, example)


def test_bad_files_are_refused(tmp_path: Path) -> None:
    with pytest.raises(FileError, match="no such file"):
        read(tmp_path / "nowhere.onnx")
    (tmp_path / "noise.onnx").write_bytes(b"noise" * 100)
    with pytest.raises(FileError, match="not a valid ONNX model"):
        read(tmp_path / "noise.onnx")


def test_a_reference_does_not_train(tmp_path: Path) -> None:
    example = (np.zeros((1, 4), np.float32),)
    trainer = OnnxTrainer(
        read(torch_file(nn.Linear(4, 2), example, tmp_path / "m.onnx", optimize=False)), example
    )
    with pytest.raises(RefusedInput, match="does not train"):
        trainer.train([], TrainConfig(OPTIMIZERS["sgd"]()))
    weights = draw_weights(trainer.description.schema, 0)
    trainer.write(trainer.description.binding.restore(weights))
    saved = read(trainer.save(tmp_path / "again"))
    assert {item.name for item in saved.graph.initializer} == set(trainer.read())
    (output,) = OnnxTrainer(saved, example).forward(example)
    np.testing.assert_array_equal(output, trainer.forward(example)[0])


def _wide(value: float) -> onnx.ModelProto:
    ports = [helper.make_tensor_value_info(name, TensorProto.FLOAT, ["N", 40]) for name in ("x", "y")]
    weight = numpy_helper.from_array(np.full((40, 40), value, np.float32), "w")
    nodes = [helper.make_node("MatMul", ["x", "w"], ["y"], name="n")]
    graph = helper.make_graph(nodes, "g", ports[:1], ports[1:], [weight])
    return helper.make_model(graph, opset_imports=[helper.make_opsetid("", 18)], ir_version=10)


def test_tensors_in_a_file_beside_the_model(tmp_path: Path) -> None:
    onnx.save(
        _wide(0.5), tmp_path / "m.onnx", save_as_external_data=True, location="m.onnx.data", size_threshold=0
    )
    (tensor,) = read(tmp_path / "m.onnx").graph.initializer
    np.testing.assert_array_equal(numpy_helper.to_array(tensor), np.full((40, 40), 0.5))
    (tmp_path / "inside").mkdir()
    (tmp_path / "m.onnx").rename(tmp_path / "inside" / "m.onnx")
    data = tmp_path / "inside" / "m.onnx.data"
    with pytest.raises(FileError, match=r"external_data=False"):
        read(tmp_path / "inside" / "m.onnx")
    data.symlink_to(tmp_path / "m.onnx.data")
    with pytest.raises(FileError, match="symbolic link"):
        read(tmp_path / "inside" / "m.onnx")
    data.unlink()
    data.write_bytes((tmp_path / "m.onnx.data").read_bytes()[:100])
    with pytest.raises(FileError, match="exceeds available data"):
        read(tmp_path / "inside" / "m.onnx")


def test_tensors_outside_of_the_folder(tmp_path: Path) -> None:
    onnx.save(
        _wide(0.5), tmp_path / "m.onnx", save_as_external_data=True, location="m.data", size_threshold=0
    )
    model = onnx.load(tmp_path / "m.onnx", load_external_data=False)
    (tmp_path / "inside").mkdir()
    for place in ("../m.data", str(tmp_path / "m.data")):
        model.graph.initializer[0].external_data[0].value = place
        onnx.save(model, tmp_path / "inside" / "m.onnx")
        with pytest.raises(FileError, match="in other files, which cannot be read"):
            read(tmp_path / "inside" / "m.onnx")


def test_first_states_that_are_an_initializer_of_zeros() -> None:
    random = np.random.default_rng(0)

    def model(*, given: bool) -> onnx.ModelProto:
        held = {"w": (1, 24, 5), "r": (1, 24, 6), "b": (1, 48)}
        tensors = [
            numpy_helper.from_array(random.normal(size=s).astype(np.float32), n) for n, s in held.items()
        ]
        if given:
            tensors.append(numpy_helper.from_array(np.zeros((1, 2, 6), np.float32), "zeros"))
        states = ["", "zeros", "zeros"] if given else []
        nodes = [helper.make_node("LSTM", ["x", *held, *states], ["y"], name="l", hidden_size=6)]
        ports = [
            helper.make_tensor_value_info("x", TensorProto.FLOAT, [7, 2, 5]),
            helper.make_tensor_value_info("y", TensorProto.FLOAT, [7, 1, 2, 6]),
        ]
        graph = helper.make_graph(nodes, "g", ports[:1], ports[1:], tensors)
        return helper.make_model(graph, opset_imports=[helper.make_opsetid("", 18)], ir_version=10)

    example = (np.zeros((7, 2, 5), np.float32),)
    one, two = (xbackend_fl.describe(model(given=given), example) for given in (False, True))
    assert [node.operator for node in one.nodes] == [node.operator for node in two.nodes]
    assert one.fingerprint == two.fingerprint


def test_functions_of_a_file_are_its_nodes() -> None:
    body = [helper.make_node("MatMul", ["x", "w"], ["t"]), helper.make_node("Add", ["t", "b"], ["y"])]
    opsets = [helper.make_opsetid("", 18), helper.make_opsetid("own", 1)]
    dense = helper.make_function("own", "Dense", ["x", "w", "b"], ["y"], body, opsets[:1])
    layer = nn.Linear(3, 2)
    held = {"w": layer.weight.detach().numpy().T.copy(), "b": layer.bias.detach().numpy()}
    graph = helper.make_graph(
        [helper.make_node("Dense", ["x", "w", "b"], ["y"], domain="own", name="dense")],
        "net",
        [helper.make_tensor_value_info("x", TensorProto.FLOAT, ["batch", 3])],
        [helper.make_tensor_value_info("y", TensorProto.FLOAT, ["batch", 2])],
        [numpy_helper.from_array(array, name) for name, array in held.items()],
    )
    file = helper.make_model(graph, functions=[dense], opset_imports=opsets, ir_version=9)
    example = (np.ones((2, 3), np.float32),)
    schema, evidence = xbackend_fl.describe_reference(file, example)
    bound = xbackend_fl.bind(layer, schema, example, evidence)
    assert [node.operator for node in schema.nodes] == ["Gemm"]
    for name, array in bound.read().items():
        np.testing.assert_array_equal(array, held["b"] if array.ndim == 1 else held["w"].T, err_msg=name)
