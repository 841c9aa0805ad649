"""What adapters share while they walk a graph: functions of operands are NumPy's, and a failure is a refusal or stands."""

from __future__ import annotations

import re
from collections.abc import Callable
from functools import partial
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import onnxruntime
import pytest

from xbackend_fl.adapter import walk
from xbackend_fl.adapter.axes import Declared
from xbackend_fl.canonical import GraphBuilder
from xbackend_fl.canonical.onnx_export import to_onnx
from xbackend_fl.errors import RefusedInput, UnsupportedError

pytestmark = pytest.mark.quick

GENERATOR = np.random.default_rng(0)
ONE, TWO, THREE = (GENERATOR.uniform(0.1, 8, (3, 4)).astype(np.float32) for _ in range(3))

FUNCTIONS: dict[str, tuple[Callable[..., Any], Callable[..., Any], int]] = {
    "unary": (walk.unary("Log"), np.log, 1),
    "unary with a number": (walk.unary("Pow", constant=-0.5), lambda x: x**-0.5, 1),
    "binary": (walk.binary("Div"), np.divide, 2),
    "binary from the left": (walk.binary("Sub"), lambda x, y, z: x - y - z, 3),
    "activation": (walk.activation("relu6"), lambda x: np.clip(x, 0, 6), 1),
    "along": (walk.along("Softmax", -1), lambda x: np.exp(x) / np.exp(x).sum(-1, keepdims=True), 1),
    **{
        word: (walk.compare(word), getattr(np, name), 2)
        for word, name in (
            ("eq", "equal"), ("ne", "not_equal"), ("lt", "less"), ("le", "less_equal"),
            ("gt", "greater"), ("ge", "greater_equal"),
        )
    },
}  # fmt: skip


@pytest.mark.parametrize("name", FUNCTIONS)
def test_a_function_is_what_numpy_computes(name: str) -> None:
    function, oracle, count = FUNCTIONS[name]
    arrays = [ONE, np.where(ONE > 4, ONE, TWO), THREE][:count]
    context: walk.Walk[str, object] = walk.Walk(GraphBuilder("test", {}))
    given = [context.builder.input(f"x{i}", "float32", (3, 4), (0, 1)) for i in range(count)]
    made = function(context.builder, "f", *given)
    if name in {"eq", "ne", "lt", "le", "gt", "ge"}:
        made = walk.unary("Cast", to="float32")(context.builder, "number", made)
    context.output(0, "", made, "float32", Declared())
    schema = context.builder.build().schema
    session = onnxruntime.InferenceSession(to_onnx(schema, {}).SerializeToString())
    (found,) = session.run(None, {f"x{i}": array for i, array in enumerate(arrays)})
    np.testing.assert_allclose(found, oracle(*(array.astype(np.float64) for array in arrays)), rtol=1e-5)


def _raising(error: Exception) -> Callable[[], None]:
    def read() -> None:
        raise error

    return read


def test_a_failure_is_a_refusal_or_stands() -> None:
    context: walk.Walk[str, object] = walk.Walk(GraphBuilder("test", {}))
    attempt = partial(context.attempt, lambda: "layer")
    assert attempt(lambda: 3) == 3
    assert attempt(_raising(UnsupportedError("no form"))) is None
    assert not context.builder.recorder.notes
    assert attempt(_raising(KeyError("padding"))) is None
    assert "KeyError: padding" in context.builder.recorder.notes[0]
    with pytest.raises(RefusedInput):
        attempt(_raising(RefusedInput("another batch")))
    with pytest.raises(UnsupportedError):
        attempt(_raising(UnsupportedError("it drops inside")), lambda: True)


def test_a_failure_has_the_line_of_the_user() -> None:
    context: walk.Walk[str, object] = walk.Walk(GraphBuilder("test", {}))
    with (
        pytest.raises(UnsupportedError, match=r"reading aten\.foo failed \(at .*test_walk\.py:7\): KeyError"),
        context.reading("aten.foo", lambda: [(__file__, 7)]),
    ):
        raise KeyError
    assert context.builder.recorder.location.endswith("test_walk.py:7")


def test_an_operation_has_one_handler() -> None:
    assert walk.table({"a": 1}, {"b": 2}) == {"a": 1, "b": 2}
    assert walk.handler_of({"a": 1}, "a", "operation a") == 1
    with pytest.raises(AssertionError, match="two files"):
        walk.table({"a": 1}, {"a": 2})
    with pytest.raises(UnsupportedError, match=r"operation b has no canonical form"):
        walk.handler_of({"a": 1}, "b", "operation b")


def test_the_walk_of_the_guide_walks(root: Path) -> None:
    page = (root / "docs/guides/adapters.md").read_text(encoding="utf-8")
    (code,) = re.findall(r"## A walk\n.*?```python\n(.*?)```", page, re.DOTALL)
    names: dict[str, Any] = {}
    exec(code, names)
    context = names["context"]
    for word in ("x", "y"):
        context.values[word] = context.builder.input(word, "float32", (3, 4), (0, 1))
    nodes = [
        SimpleNamespace(name="e", operation="exp", inputs=["x"], frames=[]),
        SimpleNamespace(name="s", operation="add", inputs=["e", "y"], frames=[]),
    ]
    names["handle"](context, nodes)
    context.output(0, "", context.values["s"], "float32", Declared())
    session = onnxruntime.InferenceSession(to_onnx(context.builder.build().schema, {}).SerializeToString())
    (found,) = session.run(None, {"x": ONE, "y": TWO})
    np.testing.assert_allclose(found, np.exp(ONE) + TWO, rtol=1e-5)
    with pytest.raises(UnsupportedError, match="my operation fold at 'f' has no canonical form"):
        names["handle"](context, [SimpleNamespace(name="f", operation="fold", inputs=[], frames=[])])
