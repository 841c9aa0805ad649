"""Evaluates what a graph computes from constants alone: positions, masks, scales."""

from __future__ import annotations

from typing import Any

import ml_dtypes
import numpy as np
import torch
from torch._ops import OpOverload
from torch.fx import Node

from xbackend_fl.adapter.contract import Array
from xbackend_fl.canonical.layout import Native
from xbfl_torch.graph import Context

_DISCRETE = frozenset({"eq", "ne", "lt", "le", "gt", "ge", "logical_not", "bitwise_not", "to"})
"""Operations that make a mask of a buffer; the buffer is then a constant of the model."""


def fold(context: Context, node: Node) -> Array | None:
    """The value of a node that depends on constants alone; ``None`` if it depends on data or parameters."""
    if not isinstance(node.target, OpOverload) or not isinstance(node.meta.get("val"), torch.Tensor):
        return None
    word = str(node.target).removeprefix("aten.").partition(".")[0]
    arguments = [_constant(context, context.get(item), word) for item in node.args]
    options = {key: _constant(context, context.get(item), word) for key, item in node.kwargs.items()}
    absent = any(isinstance(item, Node) and context.get(item) is None for item in node.args)
    if absent or any(item is _DATA for item in (*arguments, *options.values())):
        return None
    with torch.no_grad():
        result = node.target(*arguments, **options)
    result = result.cpu().contiguous()
    if result.dtype == torch.bfloat16:
        return np.asarray(result.view(torch.int16).numpy().view(ml_dtypes.bfloat16))
    return np.asarray(result)


_DATA = object()


def _constant(context: Context, item: Any, word: str) -> Any:
    """An argument as PyTorch takes it; ``_DATA`` if it is no constant."""
    if isinstance(item, np.ndarray) and item.dtype == ml_dtypes.bfloat16:
        return torch.from_numpy(np.asarray(item, order="C").view(np.int16)).view(torch.bfloat16)
    if isinstance(item, np.ndarray):
        return torch.from_numpy(np.asarray(item, order="C"))
    if isinstance(item, Native) and word in _DISCRETE and item.tensor in context.buffers:
        whole = context.buffers[item.tensor].detach().cpu()
        return whole[item.index]
    if isinstance(item, list):
        parts = [_constant(context, part, word) for part in item]
        return _DATA if any(part is _DATA for part in parts) else parts
    plain = item is None or isinstance(
        item, bool | int | float | str | torch.dtype | torch.device | torch.layout | torch.memory_format
    )
    return item if plain else _DATA
