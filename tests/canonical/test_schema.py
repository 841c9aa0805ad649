"""Schemas and bindings: serialisation, fingerprints, and the operator table."""

from __future__ import annotations

import json

import numpy as np
import onnx
import pytest

import xbackend_fl
from tests.adapters.zoo import ROWS
from xbackend_fl.adapter import adapter_of
from xbackend_fl.canonical import OPERATORS, Binding, Kind, Parameter, Port, Schema
from xbackend_fl.canonical.node import Node
from xbackend_fl.errors import SchemaError

ROW = next(row for row in ROWS if row.name == "flatten order through BatchNorm")


def test_json_round_trips() -> None:
    for row in ROWS[::6]:
        described = adapter_of(model := row.keras()).load_model(model, row.example()).description
        assert Schema.from_json(described.schema.to_json()) == described.schema
        assert Binding.from_json(described.binding.to_json()) == described.binding


def test_the_fingerprint_sees_the_function_and_not_the_size() -> None:
    images = [np.zeros((1, 4, n, n), np.float32) for n in (8, 9)]
    row = next(row for row in ROWS if row.name == "GroupNorm")
    one, two = (xbackend_fl.describe(row.torch(), (image,)) for image in images)
    assert one.inputs[0].shape != two.inputs[0].shape
    assert one.fingerprint == two.fingerprint
    changed = row.torch()
    changed[1].eps = 1e-4
    assert xbackend_fl.describe(changed, (images[0],)).fingerprint != one.fingerprint


def test_other_layout_rules_are_refused() -> None:
    schema = xbackend_fl.describe(ROW.torch(), ROW.example())
    with pytest.raises(SchemaError, match="layout rules 99"):
        Schema.from_json(schema.to_json().replace('"layout_version": 2', '"layout_version": 99'))
    with pytest.raises(SchemaError, match="not a schema"):
        Schema.from_json("{}")
    with pytest.raises(SchemaError, match="not a binding"):
        Binding.from_json("[]")


@pytest.mark.parametrize(
    ("old", "new", "reason"),
    [
        ('"hidden_size"', '"dropout": 0.1, "hidden_size"', "the attribute 'dropout', and LSTM has none"),
        ('"operator": "LSTM"', '"operator": "LSTMCell"', "no operator 'LSTMCell'"),
        ('"recurrent_weight":', '"peephole":', "the parameter 'peephole', and LSTM has none"),
    ],
)
def test_a_node_of_another_version_is_refused_by_name(old: str, new: str, reason: str) -> None:
    row = next(row for row in ROWS if row.name == "LSTM last step")
    text = xbackend_fl.describe(row.torch(), row.example()).to_json()
    assert old in text
    with pytest.raises(SchemaError, match=reason) as caught:
        Schema.from_json(text.replace(old, new))
    assert "describe the reference model again" in str(caught.value.hint)


def test_the_table_speaks_onnx() -> None:
    """Names and formal inputs are those of the ONNX specification, macro nodes aside."""
    ours = {
        "Swish",
        "Select",
        "Clip",
        "Attention",
        "Slice",
        "GroupNormalization",
        "Parameter",
        "CausalMask",
        "Opaque",
        "Masked",
        "Take",
        "Flip",
        "Roll",
        "SpaceToDepth",
    }
    for row in OPERATORS.values():
        if row.name in ours:
            continue
        spec = onnx.defs.get_schema(row.name, 21)
        formals = {item.name for item in spec.inputs}
        known = formals | {item.replace("X", "x") for item in formals}
        if row.name not in {"InstanceNormalization", "LayerNormalization"}:
            assert {slot.formal for slot in row.slots} <= known, row.name
        special = {
            "constant",
            "shape",
            "axes",
            "perm",
            "value",
            "pads",
            "scales",
            "momentum",
            "keepdims",
        }
        special |= {
            "padding_idx",
            "dropout",
            "ratio",
            "shared_axes",
            "activation",
            "output_padding",
            "to",
            "dtype",
            "align_corners",
        }
        # What ONNX reads as a constant input is an attribute here.
        given = {*spec.attributes, *(item.lower() for item in formals)}
        assert set(row.attributes or {}) - special <= given, row.name


def test_describing_leaves_the_model_as_it_was() -> None:
    for model in (ROW.torch(), ROW.keras()):
        trainer = adapter_of(model).load_model(model, ROW.example())
        before = trainer.read()
        schema, evidence = xbackend_fl.describe_reference(model, ROW.example())
        xbackend_fl.bind(model, schema, ROW.example(), evidence)
        for name, array in trainer.read().items():
            np.testing.assert_array_equal(array, before[name], err_msg=name)
    torch_model = ROW.torch()
    torch_model[2].eval()
    xbackend_fl.describe(torch_model, ROW.example())
    assert torch_model.training
    assert not torch_model[2].training


@pytest.mark.parametrize("value", [-2, 5, 10**15, 1.0, True, "x", [1]])
def test_a_padding_row_is_a_row(value: object) -> None:
    weight = Parameter("e.weight", "Gather", "weight", "data", (5, 3), "float32", Kind.TRAINABLE)
    node = Node("e", "Gather", ("x",), ("y",), {"weight": weight.name}, {"padding_idx": 4})
    port = Port("x", "int64", (1, 7)), Port("y", "float32", (1, 7, 3))
    schema = Schema(port[:1], port[1:], (node,), (weight,))
    assert Schema.from_json(schema.to_json()) == schema
    plain = json.loads(schema.to_json())
    plain["nodes"][0]["attributes"]["padding_idx"] = value
    with pytest.raises(
        SchemaError, match=r"node 'e': padding_idx of Gather is .*, expected a row from 0 to 4, or -1"
    ):
        Schema.from_json(json.dumps(plain))
