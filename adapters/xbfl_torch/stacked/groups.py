"""Group normalisation of images by one kernel each way; elsewhere ``vmap`` does."""

from __future__ import annotations

from typing import Any

import torch

from xbfl_torch.stacked import devices
from xbfl_torch.stacked.lifting import lifted


def group_norm(
    count: torch.Tensor,
    value: torch.Tensor,
    num_groups: int,
    weight: torch.Tensor | None = None,
    bias: torch.Tensor | None = None,
    eps: float = 1e-5,
) -> Any:
    """``functional.group_norm`` of one participant."""
    kernels = devices.kernels("groups", value)
    if kernels is None or weight is None or bias is None or value.ndim < 3:
        return NotImplemented
    if not kernels.fits(value.shape[1], num_groups):
        return NotImplemented
    return lifted(_group_norm, count, value, weight, bias, num_groups, eps)


def _group_norm(
    _: Any, value: torch.Tensor, weight: torch.Tensor, bias: torch.Tensor, groups: int, eps: float
) -> torch.Tensor:
    result: torch.Tensor = _Groups.apply(value, weight, bias, groups, eps)  # type: ignore[no-untyped-call]
    return result


class _Groups(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, value: Any, weight: Any, bias: Any, groups: int, eps: float) -> Any:
        ctx.kernels, ctx.groups, ctx.shape = devices.kernels("groups", value), groups, value.shape
        laid, weight = _channels_last(value), devices.lined_up(weight)
        result, moments = ctx.kernels.forward(laid, weight, devices.lined_up(bias), groups, eps)
        ctx.save_for_backward(laid, weight, moments)
        return _channels_second(result, value.shape)

    @staticmethod
    def backward(ctx: Any, *grads: Any) -> Any:
        laid, weight, moments = ctx.saved_tensors
        below, slope, shift = ctx.kernels.backward(
            _channels_last(grads[0]), laid, weight, moments, ctx.groups
        )
        return _channels_second(below, ctx.shape), slope, shift, None, None


def _channels_last(value: torch.Tensor) -> torch.Tensor:
    """``[participants, batch, channels, ...]`` as ``[participants, batch, places, channels]``."""
    return value.movedim(2, -1).reshape(*value.shape[:2], -1, value.shape[2]).contiguous()


def _channels_second(laid: torch.Tensor, shape: torch.Size) -> torch.Tensor:
    return laid.view(*shape[:2], *shape[3:], shape[2]).movedim(-1, 2)
