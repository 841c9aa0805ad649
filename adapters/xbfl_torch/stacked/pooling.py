"""Pooling: of whole images, for which ``vmap`` has no rule where channels lie last; and the largest of windows side by side, by a kernel each way."""

from __future__ import annotations

from typing import Any

import torch

from xbfl_torch.stacked import devices
from xbfl_torch.stacked.lifting import lifted, own


def adaptive_avg_pool2d(count: torch.Tensor, value: torch.Tensor, output_size: Any) -> Any:
    """``functional.adaptive_avg_pool2d`` of one participant."""
    del count
    sizes = (output_size,) if isinstance(output_size, int) else tuple(output_size)
    return value.mean((-2, -1), keepdim=True) if set(sizes) == {1} else NotImplemented


def max_pool2d(count: torch.Tensor, value: torch.Tensor, *arguments: Any, **options: Any) -> Any:
    """``functional.max_pool2d`` of one participant."""
    window = window_of(value, *arguments, **options)
    return NotImplemented if window is None else lifted(pooled, count, value, window)


def window_of(
    value: torch.Tensor,
    kernel_size: Any,
    stride: Any = None,
    padding: Any = 0,
    dilation: Any = 1,
    ceil_mode: bool = False,  # noqa: FBT001, FBT002
    return_indices: bool = False,  # noqa: FBT001, FBT002
) -> tuple[int, int] | None:
    """The window of ``functional.max_pool2d``, if kernels pool by it: windows side by side."""
    window = devices.pair(kernel_size)
    apart = devices.pair(padding) == (0, 0) and devices.pair(dilation) == (1, 1)
    apart = apart and (not stride or devices.pair(stride) == window)
    kernels = devices.kernels("pooling", value)
    if kernels is None or value.ndim != 4 or window[0] * window[1] > kernels.MAX_PLACES:
        return None
    return window if apart and not ceil_mode and not return_indices else None


def largest(value: torch.Tensor, window: tuple[int, int]) -> tuple[torch.Tensor, torch.Tensor]:
    """The largest of each window of ``value [participants, batch, channels, ...]``, and which it is, channels last."""
    kernels = devices.kernels("pooling", value)
    assert kernels is not None
    result, chosen = kernels.forward(value.movedim(2, -1).contiguous(), window)
    return own(result.movedim(-1, 2)), chosen


def pooled(_: Any, value: torch.Tensor, window: tuple[int, int]) -> torch.Tensor:
    """The largest of each window of ``value [participants, batch, channels, ...]``."""
    result: torch.Tensor = _Largest.apply(value, window)  # type: ignore[no-untyped-call]
    return result


class _Largest(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, value: Any, window: Any) -> Any:
        ctx.kernels, ctx.window, ctx.size = devices.kernels("pooling", value), window, value.shape[3:]
        result, chosen = largest(value, window)
        ctx.save_for_backward(chosen)
        return result

    @staticmethod
    def backward(ctx: Any, *grads: Any) -> Any:
        grad = grads[0].movedim(2, -1).contiguous()
        below = ctx.kernels.backward(grad, *ctx.saved_tensors, *ctx.size, ctx.window)
        return below.movedim(-1, 2), None
