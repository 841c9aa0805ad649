"""A file around a certificate holds the certified schema's own graph and tensors, or is refused with its place."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import onnxruntime
import pytest
import torch
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey
from onnx import helper, numpy_helper
from safetensors import safe_open
from safetensors.numpy import load_file, save_file
from torch import nn

from tests.certificate.certified import schema_of
from xbackend_fl import weights
from xbackend_fl.adapter import load
from xbackend_fl.canonical.onnx_export import to_bytes, to_onnx
from xbackend_fl.certificate import Certificate, Model, certify, embed, sign
from xbackend_fl.certificate.embedding import line_of, lines_of
from xbackend_fl.errors import SchemaError
from xbackend_fl.mapping.probe.draw import draw_weights
from xbackend_fl.rounds.checkpoint import CourseState, save_state
from xbackend_fl.signing import new_pair, read_private

Arrays = dict[str, "np.ndarray[Any, Any]"]


def graph(certificate: Certificate, opset: int = 21) -> onnx.ModelProto:
    schema = schema_of(certificate)
    return to_onnx(schema, draw_weights(schema, 3), opset=opset)


def in_front(model: onnx.ModelProto, *nodes: onnx.NodeProto, **constants: float) -> None:
    """Nodes that make ``zz`` of the input, and everybody reads that."""
    taken = model.graph.input[0].name
    for node in model.graph.node:
        for index, name in enumerate(node.input):
            if name == taken:
                node.input[index] = "zz"
    made = [numpy_helper.from_array(np.float32(value), name) for name, value in constants.items()]
    held = [helper.make_node("Constant", [], [item.name], value=item) for item in made]
    every = [*held, *nodes, *model.graph.node]
    del model.graph.node[:]
    model.graph.node.extend(every)


def backdoor(model: onnx.ModelProto) -> None:
    name = model.graph.input[0].name
    in_front(
        model,
        helper.make_node("Greater", [name, "most"], ["above"]),
        helper.make_node("Neg", [name], ["turned"]),
        helper.make_node("Where", ["above", "turned", name], ["zz"]),
        most=5.0,
    )


def clipped(model: onnx.ModelProto) -> None:
    in_front(
        model,
        helper.make_node("Clip", [model.graph.input[0].name, "low", "high"], ["zz"]),
        low=-4.0,
        high=4.0,
    )


def epsilon(model: onnx.ModelProto) -> None:
    (held,) = (a for n in model.graph.node for a in n.attribute if a.name == "epsilon")
    held.f = 2e-5


def alpha(model: onnx.ModelProto) -> None:
    node = next(node for node in model.graph.node if node.op_type == "Gemm")
    node.attribute.append(helper.make_attribute("alpha", 1.00009))


def renamed(model: onnx.ModelProto) -> None:
    model.graph.output[0].name = model.graph.node[-1].output[0] = "zz"


def further(model: onnx.ModelProto) -> None:
    model.graph.output.append(helper.make_tensor_value_info(model.graph.node[0].output[0], 1, ["batch", 8]))


def of_users(model: onnx.ModelProto) -> None:
    model.opset_import.append(helper.make_opsetid("of.users", 1))


def sized(model: onnx.ModelProto) -> None:
    item = helper.make_tensor_value_info(model.graph.node[0].output[0], 1, [3, 8])
    model.graph.value_info.append(item)


def annotated(model: onnx.ModelProto) -> None:
    model.graph.quantization_annotation.add().tensor_name = model.graph.initializer[0].name


def training(model: onnx.ModelProto) -> None:
    model.training_info.add().initialization.name = "i"


def functions(model: onnx.ModelProto) -> None:
    node = helper.make_node("Identity", ["x"], ["y"])
    model.functions.append(
        helper.make_function("of.users", "F", ["x"], ["y"], [node], [helper.make_opsetid("", 21)])
    )


def axis_name(model: onnx.ModelProto) -> None:
    model.graph.input[0].type.tensor_type.shape.dim[0].dim_param = "n"


def axis_fixed(model: onnx.ModelProto) -> None:
    model.graph.input[0].type.tensor_type.shape.dim[0].dim_value = 1


def stored(model: onnx.ModelProto) -> None:
    item = model.graph.initializer[0]
    values = numpy_helper.to_array(item).ravel().tolist()
    item.ClearField("raw_data")
    item.float_data.extend(values)


def of_graph(model: onnx.ModelProto) -> None:
    held = model.graph.metadata_props.add()
    held.key, held.value = "k", "v"


def graph_name(model: onnx.ModelProto) -> None:
    model.graph.name = "zz"


def setter(**fields: object) -> Callable[[onnx.ModelProto], None]:
    def change(model: onnx.ModelProto) -> None:
        for name, value in fields.items():
            setattr(model, name, value)

    return change


@pytest.mark.parametrize(
    ("change", "said"),
    [
        (backdoor, "node 0 is Constant"),
        (clipped, "node 0 is Constant"),
        (
            epsilon,
            r"node \d \(BatchNormalization '1'\): attribute 0 \('epsilon'\): f is 1.99\S*e-05, expected 9.99\S*e-06",
        ),
        (alpha, r"node \d \(Gemm '\S+'\): attribute \d is 'alpha', expected"),
        (renamed, r"node \d \(Gemm '\S+'\): output 0 is 'zz', expected '"),
        (further, r"output 1 is '[^']*', expected missing"),
        (of_users, "opset_import 1 is 'of.users', expected missing"),
        (sized, r"value_info 0 is '\S+', expected missing"),
        (annotated, "quantization_annotation 0 is .*, expected missing"),
        (training, "training_info 0 is '', expected missing"),
        (functions, "functions 0 is 'F', expected missing"),
        (
            axis_name,
            r"input 0 \('\S+'\): type tensor_type shape dim 0 \(.*\): dim_param is 'n', expected 'batch'",
        ),
        (axis_fixed, r"input 0 \('\S+'\): type tensor_type shape dim 0 \(.*\): dim_value is 1, expected 0"),
        (stored, r"initializer 0 \('0.weight'\): float_data 0 is \S+, expected missing"),
        (of_graph, "metadata_props 0 is 'k', expected missing"),
        (graph_name, "name is 'zz', expected 'xbackend_fl'"),
        (setter(ir_version=13), r"ir_version is 13, expected \d+\b"),
        (setter(model_version=9), "model_version is 9, expected 0"),
        (setter(domain="x"), "domain is 'x', expected ''"),
        (setter(producer_name="other"), "producer_name is 'other', expected 'xbackend-fl'"),
    ],
)
def test_a_graph_that_somebody_changed_is_refused(
    certificate: Certificate,
    private: Ed25519PrivateKey,
    tmp_path: Path,
    change: Callable[[onnx.ModelProto], None],
    said: str,
) -> None:
    model, path = graph(certificate), tmp_path / "net.onnx"
    change(model)
    onnx.checker.check_model(model, full_check=True)
    path.write_bytes(to_bytes(model))
    check_refused(path, certificate, private, said)


def check_refused(path: Path, certificate: Certificate, private: Ed25519PrivateKey, said: str) -> None:
    found = line_of(path, certificate)
    assert not found.passed
    assert "its graph is not the one that" in found.said
    with pytest.raises(SchemaError, match=said):
        embed(path, certificate, private)


def half(model: onnx.ModelProto) -> None:
    model.graph.value_info.append(helper.make_tensor_value_info(model.graph.node[0].output[0], 10, ["b", 8]))


@pytest.mark.parametrize(
    ("change", "said"),
    [
        (half, r"value_info 0 is '\S+', expected missing"),
        (setter(ir_version=3), r"ir_version is 3, expected \d+\b"),
        (setter(ir_version=99), r"ir_version is 99, expected \d+\b"),
    ],
)
def test_a_file_that_is_no_valid_model_is_refused(
    certificate: Certificate,
    private: Ed25519PrivateKey,
    tmp_path: Path,
    change: Callable[[onnx.ModelProto], None],
    said: str,
) -> None:
    model, path = graph(certificate), tmp_path / "net.onnx"
    change(model)
    with pytest.raises((onnx.checker.ValidationError, onnx.shape_inference.InferenceError)):
        onnx.checker.check_model(model, full_check=True)
    path.write_bytes(to_bytes(model))
    check_refused(path, certificate, private, said)


def test_a_field_that_nobody_knows_is_refused(
    certificate: Certificate, private: Ed25519PrivateKey, tmp_path: Path
) -> None:
    path = tmp_path / "net.onnx"
    path.write_bytes(to_bytes(graph(certificate)) + b"\xfa\x3f\x03abc")
    check_refused(path, certificate, private, "holds fields that this version")


def test_a_checkpoint_takes_none_and_what_does_is_named(
    certificate: Certificate, private: Ed25519PrivateKey, tmp_path: Path
) -> None:
    """The command of its help is what tests/convert runs."""
    schema, path = schema_of(certificate), tmp_path / "run" / "checkpoints" / "round-00003.safetensors"
    path.parent.mkdir(parents=True)
    held = weights.Weights.from_schema(schema, draw_weights(schema, 3))
    save_state(path, CourseState(3, held, {}))
    with pytest.raises(SchemaError, match="is the checkpoint of round 3: it holds") as caught:
        embed(path, certificate, private)
    assert str(caught.value.hint).endswith(f"xbfl convert {tmp_path / 'run'} net.onnx --round 3")
    assert "last.safetensors" in str(caught.value.hint)


@pytest.mark.parametrize("key", ["ort_config", "Image.BitmapPixelFormat", "version", "Author"])
def test_metadata_that_a_runtime_may_read_are_refused(
    certificate: Certificate, private: Ed25519PrivateKey, tmp_path: Path, key: str
) -> None:
    schema, path = schema_of(certificate), tmp_path / "net.onnx"
    path.write_bytes(to_bytes(to_onnx(schema, draw_weights(schema, 3), metadata={key: "{}"})))
    with pytest.raises(SchemaError, match=f"its metadata have '{key}'"):
        embed(path, certificate, private)
    assert not line_of(path, certificate).passed


def test_what_is_said_to_people_may_stay_and_is_named(
    certificate: Certificate, private: Ed25519PrivateKey, tmp_path: Path
) -> None:
    """Also where a registry says it later; the values stay signed."""
    path, model = tmp_path / "net.onnx", graph(certificate)
    onnx.helper.set_model_props(model, {"fingerprint": schema_of(certificate).fingerprint, "author": "Ada"})
    path.write_bytes(to_bytes(model))
    embed(path, certificate, private)
    later = onnx.load(path)
    later.metadata_props.add(key="license", value="MIT")
    path.write_bytes(to_bytes(later))
    of_file, values = lines_of(path, certificate, signed=True)
    assert (of_file.passed, values.passed) == (True, True)
    assert of_file.said.endswith("; nobody certified what it says as 'author', 'license'")
    assert {item.key for item in onnx.load(path).metadata_props} >= {"author", "license", "certificate"}


def test_a_size_that_onnx_runtime_believes_is_refused(tmp_path: Path) -> None:
    """It replaces Shape by what ``value_info`` says, and computes something else."""
    torch.manual_seed(0)
    example = (np.random.Generator(np.random.Philox(0)).standard_normal((1, 7, 8)).astype(np.float32),)
    key, path = tmp_path / "a.ed25519", tmp_path / "net.onnx"
    key.write_bytes(new_pair()[0])
    model = Model("torch:n.py:f", load("torch"), nn.Sequential(nn.ReLU(), nn.Linear(8, 4), nn.ReLU()).eval())
    made = sign(certify([model], example, ["1,7,8"]), read_private(key))
    schema = schema_of(made)
    proto = to_onnx(schema, draw_weights(schema, 3), sequence_axes=[(0, 1)])
    data = {schema.inputs[0].name: np.repeat(example[0], 3, axis=1)}
    path.write_bytes(to_bytes(proto))
    embed(path, made, read_private(key))
    honest = onnxruntime.InferenceSession(path).run(None, data)[0]
    shaped = next(node.input[0] for node in proto.graph.node if node.op_type == "Shape")
    changed = onnx.load(path)
    changed.graph.value_info.append(helper.make_tensor_value_info(shaped, 1, [3, 7, 8]))
    onnx.checker.check_model(changed, full_check=True)
    path.write_bytes(to_bytes(changed))
    assert onnxruntime.InferenceSession(path).run(None, data)[0].shape != honest.shape
    found = line_of(path, made)
    assert (found.passed, f"value_info 0 is {shaped!r}, expected missing" in found.said) == (False, True)


@pytest.mark.parametrize("opset", [18, 21, 24])
def test_the_schemas_own_graph_is_certain_in_every_opset(
    certificate: Certificate, private: Ed25519PrivateKey, tmp_path: Path, opset: int
) -> None:
    path = tmp_path / "net.onnx"
    # What others write of the same graph, with what is said for people.
    model = graph(certificate, opset)
    model.doc_string = "ours"
    onnx.save(model, path)
    embed(path, certificate, private)
    found = line_of(path, certificate)
    assert found.passed, found.said


def test_a_free_axis_of_a_sequence_is_taken(tmp_path: Path) -> None:
    net = nn.Sequential(nn.Conv1d(3, 4, 3), nn.ReLU()).eval()
    example = (np.random.Generator(np.random.Philox(0)).standard_normal((2, 3, 9)).astype(np.float32),)
    key = tmp_path / "a.ed25519"
    key.write_bytes(new_pair()[0])
    made = sign(certify([Model("torch:n.py:f", load("torch"), net)], example, ["2,3,9"]), read_private(key))
    schema, path = schema_of(made), tmp_path / "net.onnx"
    path.write_bytes(to_bytes(to_onnx(schema, draw_weights(schema, 3), sequence_axes=[(0, 2)])))
    embed(path, made, read_private(key))
    assert line_of(path, made).passed


def nan(held: Arrays) -> None:
    held["0.weight"] = held["0.weight"] * np.float32("nan")


def negative(held: Arrays) -> None:
    held["1.variance"] = -held["1.variance"]


def too_many(held: Arrays) -> None:
    held["more"] = np.zeros(3, np.float32)


def too_few(held: Arrays) -> None:
    del held["3.bias"]


def doubled(held: Arrays) -> None:
    held["0.weight"] = 2 * held["0.weight"]


@pytest.mark.parametrize(
    ("change", "said"),
    [
        (nan, "'0.weight' holds NaN"),
        (negative, "no variance is negative"),
        (too_many, r"unknown \['more'\]"),
        (too_few, r"missing \['3.bias'\]"),
        (doubled, "header has the digest of"),
    ],
)
def test_tensors_that_are_none_of_the_schemas_weights_are_refused(
    certificate: Certificate,
    private: Ed25519PrivateKey,
    tmp_path: Path,
    change: Callable[[Arrays], None],
    said: str,
) -> None:
    schema, path = schema_of(certificate), tmp_path / "net.safetensors"
    weights.save_weights(path, weights.Weights.from_schema(schema, draw_weights(schema, 3)))
    embed(path, certificate, private)
    assert line_of(path, certificate).passed
    with safe_open(path, "np") as file:
        metadata = file.metadata()
    held = load_file(path)
    change(held)
    save_file(held, path, metadata)
    found = line_of(path, certificate)
    assert not found.passed
    assert said.replace("\\", "") in found.said
