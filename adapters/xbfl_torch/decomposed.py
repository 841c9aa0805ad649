"""Operations as smaller ones: by a form of ours, or by PyTorch's own table of decompositions."""

from __future__ import annotations

import operator
from collections.abc import Callable, Mapping
from functools import lru_cache
from typing import Any

import numpy as np
import torch
from torch._ops import OpOverload
from torch.fx import Graph, Node
from torch.fx.experimental.proxy_tensor import make_fx
from torch.fx.node import map_arg

from xbackend_fl.errors import UnsupportedError, XbflError
from xbfl_torch.constants import fold
from xbfl_torch.graph import Context, Handler, base_name, native_shape
from xbfl_torch.smaller import FORMS

_MAX = 200
"""Most operations that stand for one."""


def decomposed(context: Context, node: Node, handlers: Mapping[str, Handler]) -> Any:
    """What an operation without a canonical form makes, by operations that have one.

    Args:
        context: The walk; it is told the smaller operations.
        node: The operation.
        handlers: Operations that have a canonical form, by their names without overloads.

    Raises:
        UnsupportedError: Nobody knows smaller operations for it, or one of them has no canonical form either.
    """
    graph = _smaller(context, node, frozenset(handlers))
    sources = iter(_tensors(context, node))
    for inner in graph.nodes:
        if inner.op == "placeholder":
            context.values[inner] = context.values[next(sources)]
        elif inner.op == "call_function":
            # It comes from where the one comes from.
            inner.meta |= {key: value for key, value in node.meta.items() if key != "val"}
            context.values[inner] = _made(context, inner, handlers)
        elif inner.op == "output":
            made = context.get(inner.args[0])
            return tuple(made) if isinstance(inner.args[0], tuple) else made
    raise _none(node)


def _made(context: Context, node: Node, handlers: Mapping[str, Handler]) -> Any:
    if node.target is operator.getitem:
        return context.stored(node.args[0])[node.args[1]]
    if (folded := fold(context, node)) is not None:
        return folded
    if (handler := handlers.get(base_name(node))) is None:
        raise _none(node)
    return handler(context, node)


def _none(node: Node) -> UnsupportedError:
    return UnsupportedError(f"torch operation {node.target} has no smaller operations with a canonical form")


def _tensors(context: Context, node: Node) -> list[Node]:
    """What an operation reads that is no constant of a form of ours."""
    ours = base_name(node) in FORMS
    return [
        item for item in node.all_input_nodes if not (ours and isinstance(context.values[item], np.ndarray))
    ]


def _smaller(context: Context, node: Node, known: frozenset[str]) -> Graph:
    """The operations that stand for one."""
    form, target = FORMS.get(base_name(node)), node.target
    sources = _tensors(context, node)
    tensors = all(isinstance(item.meta.get("val"), torch.Tensor) for item in sources)
    if not isinstance(target, OpOverload) or torch.Tag.nondeterministic_seeded in target.tags or not tensors:
        raise _none(node)

    def call(*given: torch.Tensor) -> Any:
        places = dict(zip(sources, given, strict=True))

        def read(item: Node) -> Any:
            return places[item] if item in places else context.values[item]

        positional, named = map_arg((node.args, node.kwargs), read)
        return (form or target)(*positional, **named)

    examples = [torch.empty(native_shape(item), dtype=item.meta["val"].dtype) for item in sources]
    try:
        graph = make_fx(call, decomposition_table=_table(known), tracing_mode="fake")(*examples).graph
    except XbflError:
        raise
    except Exception as error:
        # Whatever the table raises, it knows no smaller operations for these arguments.
        raise _none(node) from error
    graph.eliminate_dead_code()
    calls = [item for item in graph.nodes if item.op == "call_function"]
    if len(calls) > _MAX or any(item.target == target for item in calls):
        raise _none(node)
    return graph


@lru_cache(maxsize=2)
def _table(known: frozenset[str]) -> dict[Any, Callable[..., Any]]:
    """PyTorch's decompositions, of operations alone that have no canonical form themselves."""
    found: Mapping[Any, Callable[..., Any]] = torch.export.default_decompositions()
    return {
        target: function
        for target, function in found.items()
        if isinstance(target, OpOverload)
        and str(target).removeprefix("aten.").partition(".")[0].rstrip("_") not in known
    }
