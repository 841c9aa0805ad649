"""What the operation handlers share while one graph is walked."""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from typing import Any, TypeAlias

import numpy as np
import torch
from torch._ops import OpOverload
from torch.fx import Node

from xbackend_fl.adapter import walk
from xbackend_fl.adapter.walk import Function, Walk
from xbackend_fl.canonical import GraphBuilder
from xbackend_fl.canonical.graph.operands import Operand
from xbackend_fl.canonical.layout import Layout, Step, leaves
from xbackend_fl.errors import UnsupportedError
from xbfl_torch.rehearsal import DropoutLayer, Rehearsal
from xbfl_torch.states import Row, State, state_data

require = partial(walk.require, "torch layer")
"""Refuses a layer unless a condition holds."""


class Context(Walk[Node, Any]):
    """State of one walk of a graph.

    Attributes:
        modules: Modules by path.
        buffers: Buffers by name.
        rows: Row of ``h_n`` to the final state of its layer, and the direction.
        training: Modules that are in training mode while the model trains.
    """

    def __init__(
        self,
        builder: GraphBuilder,
        model: torch.nn.Module,
        rehearsal: Rehearsal,
        handle: Callable[[Context, Node], None],
    ) -> None:
        super().__init__(builder)
        self._handle = handle
        self.modules = dict(model.named_modules(remove_duplicate=False))
        self.training = rehearsal.training
        self._drops = rehearsal.drops
        self._places: list[str] = []
        self.buffers = dict(model.named_buffers())
        self.rows: dict[str, Row] = {}

    def handle(self, node: Node) -> None:
        """Tell the builder about a node of a group that is handled at once."""
        self._handle(self, node)

    def rate(self, module: torch.nn.Module) -> float:
        """Rate of a layer that drops inside, 0 if it does not train."""
        return float(getattr(module, "dropout", 0.0)) if module in self.training else 0.0

    def drop(self, node: Node, kind: str) -> tuple[float, str]:
        """Rate and native place of the next call that drops: the graph and the rehearsal call them in one order."""
        index = len(self._places)
        path = module_path(node)
        base = path or str(node.target).removeprefix("aten.").partition(".")[0]
        count = sum(place == base or place.startswith(f"{base}@") for place in self._places)
        place = base if not count else f"{base}@{count + 1}"
        self._places.append(place)
        if index < len(self._drops) and self._drops[index].kind == kind:
            return self._drops[index].rate, place
        raise UnsupportedError(
            f"torch module {path!r}: the calls that drop in the graph are not those of the model",
            hint="torch: call dropout in the same order in every forward pass",
        )

    @property
    def calls(self) -> tuple[str, ...]:
        """Native place of every call that drops; empty where each is a dropout layer of its own, called once."""
        layers = (isinstance(self.modules.get(place), DropoutLayer) for place in self._places)
        return () if all(layers) else tuple(self._places)

    def get(self, argument: Any) -> Any:
        """An argument with graph nodes replaced by what they stand for."""
        if isinstance(argument, Node):
            held = self.values[argument]
            return state_data(self.builder, held) if isinstance(held, State) else held
        if isinstance(argument, list | tuple):
            return [self.get(item) for item in argument]
        return argument

    def stored(self, argument: Any) -> Any:
        """An argument as it is kept: the states of a recurrent layer by their rows."""
        return self.values[argument] if isinstance(argument, Node) else argument

    def arguments(self, node: Node) -> dict[str, Any]:
        """All arguments by schema name, defaults included."""
        assert isinstance(node.target, OpOverload)
        schema = node.target._schema.arguments  # noqa: SLF001  the operator's signature
        given = {item.name: item.default_value for item in schema if item.has_default_value()}
        given |= {item.name: value for item, value in zip(schema, node.args, strict=False)}
        given |= dict(node.kwargs)
        return {name: self.get(value) for name, value in given.items()}

    def name(self, node: Node, *parameters: Operand | None) -> str:
        """The module path of a node, from its parameters if it has some, else from its module stack."""
        for parameter in parameters:
            if isinstance(parameter, Step):
                tensor = next(leaves(parameter)).tensor
                return tensor.rpartition(".")[0] or tensor
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


def base_name(node: Node) -> str:
    """Name of an operation without its overload, and without the mark of one that works in place."""
    word = str(node.target).removeprefix("aten.").partition(".")[0]
    return word if word.endswith("__") else word.rstrip("_")


def native_shape(node: Node) -> tuple[int, ...]:
    """Shape of a node's value at the example."""
    return tuple(int(n) for n in node.meta["val"].shape)


def layout_of(operand: Operand | None, where: str = "") -> Layout | None:
    """The layout of a parameter that may be absent.

    Raises:
        UnsupportedError: The parameter is computed by the model.
    """
    require(
        not isinstance(operand, np.ndarray),
        where,
        "its weights are no parameters of the model",
        "torch: keep layers as attributes, or in nn.ModuleList, nn.ModuleDict or nn.ParameterList",
    )
    require(operand is None or isinstance(operand, Step), where, "its parameters are computed by the model")
    return operand if isinstance(operand, Step) else None


def parameter(operand: Operand | None, where: str) -> Layout:
    """The layout of a parameter that must be there."""
    layout = layout_of(operand, where)
    assert layout is not None
    return layout


Handler: TypeAlias = Callable[[Context, Node], Any]


def operand_handler(function: Function, count: int = 1) -> Handler:
    """A handler that makes a function of the first ``count`` arguments."""
    return lambda context, node: function(
        context.builder, context.name(node), *map(context.get, node.args[:count])
    )
