"""What the operation handlers share while one graph is walked."""

from __future__ import annotations

from collections.abc import Callable, Collection, Mapping
from typing import Any, TypeAlias

import numpy as np
import onnx

from xbackend_fl.adapter.walk import Function, Walk
from xbackend_fl.canonical import GraphBuilder, Value
from xbackend_fl.canonical.graph.operands import Operand
from xbackend_fl.canonical.layout import Layout, Step
from xbackend_fl.errors import UnsupportedError


class Context(Walk[str, Operand]):
    """State of one walk of a graph, whose values are told by their names.

    Attributes:
        sequences: Values that are lists of values.
        shapes: Shape of each value at the example.
        zeros: Initializers that are zeros: exporters write first states so, which are no weights then.
    """

    def __init__(
        self,
        builder: GraphBuilder,
        shapes: Mapping[str, tuple[int, ...]],
        zeros: Collection[str] = frozenset(),
    ) -> None:
        super().__init__(builder)
        self.zeros = zeros
        self.shapes = shapes
        self.sequences: dict[str, list[Operand]] = {}

    def inputs(self, node: onnx.NodeProto) -> list[Operand | None]:
        """What the inputs of a node stand for; ``None`` for one that is left out."""
        return [self.values[name] if name else None for name in node.input]

    def needed(self, operand: Operand | None, node: onnx.NodeProto) -> Value:
        """An operand that must be there, as data."""
        require(operand is not None, node, "an input is missing")
        assert operand is not None
        return self.data(operand)

    def shape(self, name: str) -> tuple[int, ...]:
        """Shape of a value.

        Raises:
            UnsupportedError: It depends on the data.
        """
        if name not in self.shapes:
            raise UnsupportedError(f"the shape of ONNX value {name!r} depends on the data")
        return self.shapes[name]


def attributes(node: onnx.NodeProto) -> dict[str, Any]:
    """Attributes by name, text decoded."""
    values = {item.name: onnx.helper.get_attribute_value(item) for item in node.attribute}
    return {name: value.decode() if isinstance(value, bytes) else value for name, value in values.items()}


def require(condition: bool, node: onnx.NodeProto, reason: str) -> None:  # noqa: FBT001  reads as an assertion
    """Refuse ``node`` for ``reason`` unless ``condition`` holds."""
    if not condition:
        raise UnsupportedError(f"ONNX node {node.name!r} ({node.op_type}): {reason}")


def present(context: Context, node: onnx.NodeProto) -> list[Operand]:
    """What the inputs of a node stand for; none may be left out."""
    found = [item for item in context.inputs(node) if item is not None]
    require(len(found) == len(node.input), node, "an input is missing")
    return found


def affine(operand: Operand | None, node: onnx.NodeProto, neutral: float) -> Layout | None:
    """The layout of a scale or bias; a constant that changes nothing is as good as none."""
    if isinstance(operand, np.ndarray) and bool((operand == neutral).all()):
        return None
    return layout(operand, node)


def layout(operand: Operand | None, node: onnx.NodeProto) -> Layout | None:
    """The layout of a parameter that may be absent."""
    require(operand is None or isinstance(operand, Step), node, "its parameters are computed in the graph")
    return operand if isinstance(operand, Step) else None


def numbers(operand: Operand | None, node: onnx.NodeProto) -> list[int]:
    """A constant list of whole numbers."""
    require(isinstance(operand, np.ndarray), node, "sizes or axes that depend on the data")
    return [int(n) for n in np.asarray(operand).reshape(-1)]


Handler: TypeAlias = Callable[[Context, onnx.NodeProto], "Operand | list[Operand]"]


def operand_handler(function: Function) -> Handler:
    """A handler that makes a function of all inputs."""
    return lambda context, node: function(context.builder, node.name, *present(context, node))
