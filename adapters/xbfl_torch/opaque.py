"""Operations of PyTorch that have no canonical form."""

from __future__ import annotations

from typing import Any

import numpy as np
import torch
from torch.fx import Node

from xbackend_fl.canonical import Value
from xbackend_fl.canonical.graph.opaque import Operation, opaque
from xbackend_fl.errors import UnsupportedError
from xbfl_torch.graph import Context, module_path

_HINTS = {
    "wrap_with_set_grad_enabled": "what runs under torch.no_grad trains nowhere; freeze its parameters instead: requires_grad_(False)",
    "wrap_with_autocast": "the toolkit proves and trains in float32; leave autocast out of the model",
}

_STANDS = ("batch_norm", "instance_norm", "embedding", "dropout", "feature_dropout", "rrelu")
"""What does something in training that its operation does not show: a refusal of these is the answer."""

_PLAIN_WITHOUT_DROPOUT = ("scaled_dot_product_attention", "lstm", "gru", "rnn_tanh", "rnn_relu")
"""What is marked as random, and draws only where it drops."""


def stands(context: Context, node: Node) -> bool:
    """Whether a handler's refusal of an operation is final."""
    module = context.modules.get(module_path(node))
    return _word(node).rstrip("_") in _STANDS or (module is not None and context.rate(module) > 0)


def record(context: Context, node: Node) -> Any:
    """Record an operation as it is; what it yields, as the graph's own value is nested.

    Raises:
        UnsupportedError: It draws random numbers, yields something else than tensors, or trains nothing by intent.
    """
    where = context.name(node)
    if hint := _HINTS.get(str(node.target)):
        raise UnsupportedError(f"torch operation {node.target} at {where!r} has no canonical form", hint=hint)
    tags = getattr(node.target, "tags", ())
    if torch.Tag.nondeterministic_seeded in tags and _word(node) not in _PLAIN_WITHOUT_DROPOUT:
        raise UnsupportedError(
            f"torch operation {node.target} at {where!r} draws random numbers in evaluation",
            hint="draw them in training only: if self.training",
        )
    made = node.meta["val"]
    leaves = list(made) if isinstance(made, list | tuple) else [made]
    if not all(leaf is None or isinstance(leaf, torch.Tensor) for leaf in leaves):
        raise UnsupportedError(
            f"torch operation {node.target} at {where!r} yields {type(leaves[0]).__name__}, which depends on the data",
            hint="keep sizes and choices in Python numbers that do not depend on the data",
        )
    outputs = [(_shape(leaf), _dtype(leaf)) for leaf in leaves if leaf is not None]
    arguments = [_plain(context.get(item)) for item in node.args]
    options = {key: _plain(context.get(item)) for key, item in node.kwargs.items()}
    found = iter(
        opaque(context.builder, where, Operation("torch", str(node.target), arguments, options), outputs)
    )
    values: list[Value | None] = [None if leaf is None else next(found) for leaf in leaves]
    return values if isinstance(made, list | tuple) else values[0]


def _word(node: Node) -> str:
    return str(node.target).removeprefix("aten.").partition(".")[0]


def _shape(tensor: torch.Tensor) -> tuple[int, ...]:
    return tuple(int(n) for n in tensor.shape)


def _dtype(tensor: torch.Tensor) -> str:
    return str(tensor.dtype).removeprefix("torch.")


def _plain(item: Any) -> Any:
    """Arguments of a graph as Python lists; constants of one number as they are."""
    if isinstance(item, list | tuple):
        return [_plain(part) for part in item]
    return item.item() if isinstance(item, np.ndarray) and not item.ndim and item.dtype.kind == "b" else item
