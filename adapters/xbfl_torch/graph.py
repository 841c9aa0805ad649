"""What the operation handlers share while one graph is walked."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, TypeAlias

import torch
from torch._ops import OpOverload
from torch.fx import Node

from xbackend_fl.canonical import GraphBuilder, Value
from xbackend_fl.canonical.layout import Native
from xbackend_fl.errors import UnsupportedError


@dataclass(frozen=True)
class Tensor:
    """A parameter or buffer where the graph reads one."""

    name: str
    layout: Native


@dataclass(frozen=True)
class State:
    """``h_n`` of a recurrent layer: one (final state, direction) per row of its first axis."""

    rows: tuple[tuple[Value, int], ...]
    hidden: int


class TimeMajorError(Exception):
    """A layer reads ``[T, N, F]`` where the graph carries ``[N, T, F]``."""


class Context:
    """State of one walk.

    Attributes:
        builder: Receives the nodes.
        values: What each graph node stands for.
        modules: Modules by path.
        sequences: Output sequence of a one-directional recurrent layer to its final state.
    """

    def __init__(self, builder: GraphBuilder, model: torch.nn.Module) -> None:
        self.builder = builder
        self.values: dict[Node, Any] = {}
        self.modules = dict(model.named_modules())
        self.sequences: dict[str, Value] = {}

    def get(self, argument: Any) -> Any:
        """An argument with graph nodes replaced by what they stand for."""
        if isinstance(argument, Node):
            return self.values[argument]
        if isinstance(argument, list | tuple):
            return [self.get(item) for item in argument]
        return argument

    def arguments(self, node: Node) -> dict[str, Any]:
        """All arguments by schema name, defaults included."""
        assert isinstance(node.target, OpOverload)
        schema = node.target._schema.arguments  # noqa: SLF001  the operator's signature
        given = {item.name: item.default_value for item in schema if item.has_default_value()}
        given |= {item.name: value for item, value in zip(schema, node.args, strict=False)}
        given |= dict(node.kwargs)
        return {name: self.get(value) for name, value in given.items()}

    def name(self, node: Node, *tensors: Tensor | None) -> str:
        """The module path of a node, from its parameters if it has some, else from its module stack."""
        for tensor in tensors:
            if tensor is not None:
                return tensor.name.rpartition(".")[0] or tensor.name
        path = module_path(node)
        if path and not any(self.modules[path].children()):
            return path
        word = str(node.target).removeprefix("aten.").partition(".")[0]
        return f"{path}.{word}" if path else word


def module_path(node: Node) -> str:
    """Path of the innermost module that a node comes from; empty for the model itself."""
    stack = node.meta.get("nn_module_stack") or {}
    paths = [entry[0] for entry in stack.values()]
    return str(paths[-1]) if paths else ""


def native_shape(node: Node) -> tuple[int, ...]:
    """Shape of a node's value at the example."""
    return tuple(int(n) for n in node.meta["val"].shape)


def layout_of(tensor: Tensor | None) -> Native | None:
    """The layout of a parameter that may be absent."""
    return None if tensor is None else tensor.layout


def require(condition: bool, where: str, reason: str) -> None:  # noqa: FBT001  reads as an assertion
    """Refuse the layer ``where`` for ``reason`` unless ``condition`` holds."""
    if not condition:
        raise UnsupportedError(f"torch layer {where!r}: {reason}")


def data(item: Any) -> Value:
    """A data operand.

    Raises:
        UnsupportedError: It is a constant or a bare parameter.
    """
    if not isinstance(item, Value):
        raise UnsupportedError(
            "a constant or bare parameter tensor enters the graph as data, which has no canonical form",
            hint="keep parameters inside layers; turn constants into layer attributes",
        )
    return item


Handler: TypeAlias = Callable[[Context, Node], Any]
