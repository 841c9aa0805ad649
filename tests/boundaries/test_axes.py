"""Axes are turned in one class, and the example to be read needs nothing that is not public."""

from __future__ import annotations

import ast
import re
from collections.abc import Iterator
from pathlib import Path

import pytest

pytestmark = pytest.mark.quick

NAMES = {"to_native", "to_canonical", "native_inputs"}
TURNS = re.compile(r".*\.(to_native|to_canonical)|(.*[._])?binding\.native_inputs")
HERE = {"xbackend_fl/canonical/binding.py", "xbackend_fl/adapter/canonical_model.py"}
"""The binding says how, and the model does it; besides, an adapter knows the layout of its own framework."""


def turned(source: str) -> Iterator[int]:
    """Lines that turn axes."""
    for node in ast.walk(ast.parse(source)):
        if isinstance(node, ast.Attribute) and node.attr in NAMES and TURNS.fullmatch(ast.unparse(node)):
            yield node.lineno


def test_axes_are_turned_in_one_class(root: Path) -> None:
    files = [*root.glob("xbackend_fl/**/*.py"), *root.glob("examples/**/*.py")]
    found = {str(file.relative_to(root)): [*turned(file.read_text(encoding="utf-8"))] for file in files}
    assert all(found[name] for name in HERE)
    # Who has the canonical model asks it, and not its binding.
    asked = {name: lines for name, lines in found.items() if lines and name not in HERE}
    assert asked == {}


@pytest.mark.parametrize(
    "line",
    ["axes.to_native(a)", "map(binding.outputs[0].to_canonical, arrays)", "self._binding.native_inputs(a)"],
)
def test_a_turned_axis_is_seen(line: str) -> None:
    assert [*turned(line)] == [1]


def test_fedavg_by_hand_is_short_and_public(root: Path) -> None:
    tree = ast.parse((root / "examples/fedavg_by_hand.py").read_text(encoding="utf-8"))
    modules = {node.module for node in tree.body if isinstance(node, ast.ImportFrom)}
    assert modules <= {"digits", "xbackend_fl.adapter", "xbackend_fl.data"}
    lines: set[int] = set()
    for node in ast.walk(tree):
        said = isinstance(node, ast.Expr) and isinstance(node.value, ast.Constant)
        if isinstance(node, ast.stmt) and not said and not isinstance(node, ast.Import | ast.ImportFrom):
            first = node.body[0].lineno if isinstance(node, ast.FunctionDef | ast.For | ast.If) else None
            lines |= {node.lineno} if first else set(range(node.lineno, (node.end_lineno or 0) + 1))
    assert len(lines) <= 25
