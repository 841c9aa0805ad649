"""Operations written with smaller ones, where PyTorch's own table ends in one that it computes whole.

Each function takes what the operation takes; what is a constant of the model comes as a NumPy array.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from itertools import product
from typing import Any

import numpy as np
import torch
from torch import Tensor

from xbackend_fl.errors import UnsupportedError

_WINDOW = 64
"""Most places of a window that is taken apart."""

_SUM, _MEAN, _MAX = range(3)
"""How a bag of embeddings becomes one."""


def _layer_norm(
    value: Tensor,
    normalized_shape: Sequence[int],
    weight: Tensor | None = None,
    bias: Tensor | None = None,
    eps: float = 1e-5,
    cudnn_enable: bool = True,  # noqa: FBT001, FBT002, ARG001  the operation's signature
) -> Tensor:
    axes = [-1 - axis for axis in range(len(normalized_shape))]
    centred = value - value.mean(axes, keepdim=True)
    made = centred * (centred.square().mean(axes, keepdim=True) + eps).rsqrt()
    made = made if weight is None else made * weight
    return made if bias is None else made + bias


def _cdist(one: Tensor, two: Tensor, p: float = 2.0, compute_mode: int | None = None) -> Tensor:  # noqa: ARG001
    between = one.unsqueeze(-2) - two.unsqueeze(-3)
    distance: Tensor = torch.linalg.vector_norm(between, p, [-1])
    return distance


def _embedding_bag(
    weight: Tensor,
    indices: Tensor,
    offsets: Any,
    scale_grad_by_freq: bool = False,  # noqa: FBT001, FBT002
    mode: int = _SUM,
    sparse: bool = False,  # noqa: ARG001, FBT001, FBT002
    per_sample_weights: Tensor | None = None,
    include_last_offset: bool = False,  # noqa: FBT001, FBT002
    padding_idx: int | None = None,
) -> tuple[Tensor | None, ...]:
    _require(isinstance(offsets, np.ndarray) and offsets.size > 0, "bags whose lengths are data")
    _require(not scale_grad_by_freq and not include_last_offset, "bags of another kind")
    length, rest = divmod(indices.numel(), offsets.size)
    even = rest == 0 and np.array_equal(offsets, np.arange(offsets.size) * length)
    _require(even and length > 0, "bags of several lengths")
    rows = torch.nn.functional.embedding(indices, weight).reshape(offsets.size, length, weight.shape[1])
    if per_sample_weights is not None:
        rows = rows * per_sample_weights.reshape(offsets.size, length, 1)
    if padding_idx is None:
        made = {
            _SUM: lambda: rows.sum(1),
            _MEAN: lambda: rows.mean(1),
            _MAX: lambda: rows.amax(1),
        }[mode]()
        return made, None, None, None
    _require(mode != _MAX, "the largest of a bag without its padding")
    counted = (indices != padding_idx).reshape(offsets.size, length, 1).to(rows.dtype)
    made = (rows * counted).sum(1)
    if mode == _MEAN:
        made = made / counted.sum(1).clamp(min=1.0)
    return made, None, None, None


def _median(value: Tensor, dim: int | None = None, keepdim: bool = False) -> Any:  # noqa: FBT001, FBT002
    flat = value.reshape(-1) if dim is None else value
    axis = 0 if dim is None else dim
    length = flat.shape[axis]
    # The lower one of two in the middle, counted from the largest.
    found = flat.sort(dim=axis, descending=True).values.select(axis, length - 1 - (length - 1) // 2)
    if dim is None:
        return found
    return found.unsqueeze(dim) if keepdim else found, None


def _im2col(
    value: Tensor,
    kernel_size: Sequence[int],
    dilation: Sequence[int],
    padding: Sequence[int],
    stride: Sequence[int],
) -> Tensor:
    _require(value.ndim == 4, "an image without a batch")
    patches = _patches(value, kernel_size, dilation, [*padding, *padding], stride)
    batch, channels, places, *_ = patches.shape
    return patches.reshape(batch, channels * places, -1)


def _patches(
    value: Tensor, kernel: Sequence[int], dilation: Sequence[int], pads: Sequence[int], stride: Sequence[int]
) -> Tensor:
    """``[N, C, *pixels]`` as ``[N, C, places of the window, *pixels of the result]``."""
    rank = len(kernel)
    _require(math.prod(kernel) <= _WINDOW, f"a window of {list(kernel)}")
    if any(pads):
        ends = [size for axis in reversed(range(rank)) for size in (pads[axis], pads[axis + rank])]
        value = torch.nn.functional.pad(value, ends)
    counts = [
        (value.shape[axis + 2] - dilation[axis] * (kernel[axis] - 1) - 1) // stride[axis] + 1
        for axis in range(rank)
    ]
    found = []
    for place in product(*map(range, kernel)):
        part = value
        for axis in range(rank):
            start = place[axis] * dilation[axis]
            stop = start + (counts[axis] - 1) * stride[axis] + 1
            part = torch.ops.aten.slice.Tensor(part, axis + 2, start, stop, stride[axis])
        found.append(part)
    return torch.stack(found, 2)


def _convolution(
    value: Tensor,
    weight: Tensor,
    bias: Tensor | None = None,
    stride: Sequence[int] | int = 1,
    padding: Sequence[int] | int | str = 0,
    dilation: Sequence[int] | int = 1,
    groups: int = 1,
) -> Tensor:
    """A convolution with a kernel that the model computes: a product with every window."""
    features, inner, *kernel = weight.shape
    rank = len(kernel)
    _require(value.ndim == rank + 2 and isinstance(weight, Tensor), "an image without a batch")
    steps, spread = (_each(item, rank) for item in (stride, dilation))
    if isinstance(padding, str):
        total = [d * (k - 1) if padding == "same" else 0 for d, k in zip(spread, kernel, strict=True)]
        pads = [*(n // 2 for n in total), *(n - n // 2 for n in total)]
    else:
        pads = _each(padding, rank) * 2
    patches = _patches(value, kernel, spread, pads, steps)
    batch, _, places, *pixels = patches.shape
    windows = patches.reshape(batch, groups, inner * places, math.prod(pixels))
    turned = weight.reshape(groups, features // groups, inner * places)
    made = torch.matmul(turned, windows).reshape(batch, features, *pixels)
    return made if bias is None else made + bias.reshape(features, *(1 for _ in pixels))


def _each(item: Sequence[int] | int, rank: int) -> list[int]:
    items = [item] if isinstance(item, int) else list(item)
    return [int(n) for n in (items * rank if len(items) == 1 else items)]


def _unfold(value: Tensor, dimension: int, size: int, step: int) -> Tensor:
    axis = dimension % value.ndim
    starts = torch.arange(0, value.shape[axis] - size + 1, step)
    places = starts.unsqueeze(1) + torch.arange(size)
    found: Tensor = torch.ops.aten.index.Tensor(value, [*(None for _ in range(axis)), places])
    return found.movedim(axis + 1, -1)


def _trunc(value: Tensor) -> Tensor:
    return value.sign() * value.abs().floor()


def _hypot(one: Tensor, two: Tensor) -> Tensor:
    return (one.square() + two.square()).sqrt()


def _require(holds: bool, what: str) -> None:  # noqa: FBT001  reads as an assertion
    if not holds:
        raise UnsupportedError(f"{what} has no smaller operations")


FORMS: Mapping[str, Callable[..., Any]] = {
    "layer_norm": _layer_norm,
    "cdist": _cdist,
    "embedding_bag": _embedding_bag,
    "median": _median,
    "im2col": _im2col,
    "unfold": _unfold,
    "trunc": _trunc,
    "fix": _trunc,
    "hypot": _hypot,
    **{f"conv{n}d": _convolution for n in (1, 2, 3)},
}
"""Functions by the operation's name without its overload."""
