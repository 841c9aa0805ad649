"""The table is what its files say, and an operator more is a file, or a row."""

from __future__ import annotations

import re
from collections import Counter
from pathlib import Path

import numpy as np
import onnxruntime
import pytest

from xbackend_fl.canonical import OPERATORS, Kind, Node, Parameter, Port, Property, Schema, operators, passes
from xbackend_fl.canonical.onnx_export import to_onnx
from xbackend_fl.canonical.ops import read_families
from xbackend_fl.mapping.probe.draw import draw_weights
from xbackend_fl.registry import discover

NEW = """
from xbackend_fl.canonical.row import Effect, Operator, Property, Slot


def _expand(graph, node):
    power = graph.call("Pow", [node.inputs[0], graph.number(node.attributes["power"], node.inputs[0])])
    graph.call("Mul", [power, node.parameters["weight"]], node.outputs[0])


OPERATORS = (
    Operator(
        "ScaledPower",
        (Slot("weight", "scale", "[features]"),),
        {"power": Effect.FUNCTION},
        Property.KEEPS_AXES,
        _expand,
    ),
)
"""


def test_a_file_more_is_an_operator_that_onnx_runtime_runs(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "powers_of_a_test.py").write_text(NEW)
    monkeypatch.setattr(operators, "__path__", [*operators.__path__, str(tmp_path)])
    row = read_families()["ScaledPower"]
    monkeypatch.setitem(OPERATORS, row.name, row)
    weight = Parameter("p.weight", row.name, "weight", "scale", (4,), "float32", Kind.TRAINABLE)
    node = Node("p", row.name, ("x",), ("y",), {"weight": weight.name}, {"power": 3.0})
    port = Port("x", "float32", (1, 4)), Port("y", "float32", (1, 4))
    schema = Schema(port[:1], port[1:], (node,), (weight,))
    assert Schema.from_json(schema.to_json()) == schema
    weights = draw_weights(schema, 0)
    x = np.random.default_rng(0).standard_normal((3, 4)).astype(np.float32)
    session = onnxruntime.InferenceSession(to_onnx(schema, weights).SerializeToString())
    (found,) = session.run(None, {"x": x})
    np.testing.assert_allclose(found, weights["p.weight"] * x**3, rtol=1e-5)


def test_every_operator_has_one_row() -> None:
    families = discover(operators, "OPERATORS")
    count = Counter(row.name for rows in families.values() for row in rows)
    assert set(count.values()) == {1}
    assert count.keys() == OPERATORS.keys()


def test_every_property_is_one_of_an_operator() -> None:
    for item in Property:
        assert any(row.has(item) for row in OPERATORS.values()), item


def test_families_name_the_passes_that_make_them() -> None:
    """Which forms become an operator is said in its family; the order of passes is said once, beside them."""
    said: set[str] = set()
    for path in Path(operators.__path__[0]).glob("*.py"):
        said.update(re.findall(r"``(\w+)``", path.read_text().split('"""')[1]))
    there = {path.stem for path in Path(passes.__path__[0]).glob("*.py")} - {"__init__", "common", "edit"}
    assert there <= said, there - said
