"""Convolutions of images, each participant with its own kernel: one launch for all on a GPU; elsewhere ``vmap`` makes groups of them."""

from __future__ import annotations

from typing import Any

import torch

from xbfl_torch.stacked import devices
from xbfl_torch.stacked.lifting import lifted, own


def conv2d(
    count: torch.Tensor,
    value: torch.Tensor,
    weight: torch.Tensor,
    bias: torch.Tensor | None = None,
    stride: Any = 1,
    padding: Any = 0,
    dilation: Any = 1,
    groups: int = 1,
) -> Any:
    """``torch.conv2d`` of one participant."""
    del count
    kernels = devices.kernels("convolution", value)
    if kernels is None or groups != 1 or value.ndim != 4 or isinstance(padding, str):
        return NotImplemented
    window = kernels.Window(*map(devices.pair, (stride, padding, dilation)))
    return lifted(_conv2d, value, weight, bias, window)


def _conv2d(
    value: torch.Tensor, weight: torch.Tensor, bias: torch.Tensor | None, window: Any
) -> torch.Tensor:
    result: torch.Tensor = _Convolve.apply(value, weight, bias, window)  # type: ignore[no-untyped-call]
    return result


class _Convolve(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, value: Any, weight: Any, bias: Any, window: Any) -> Any:
        ctx.window, ctx.sizes, bias = window, (value.shape, weight.shape), devices.lined_up(bias)
        kernels: Any = devices.kernels("parted_images", value)
        ctx.parting = kernels if kernels.pays(*ctx.sizes, window) else None
        if ctx.parting is not None:
            found, images, parted = kernels.forward(value, weight, bias, window)
            # In place of the images, which are as large.
            ctx.save_for_backward(*images, *parted)
            return own(found)
        ctx.save_for_backward(value, weight)
        kernels = devices.kernels("convolution", value)
        return own(kernels.forward(value, weight, bias, window))

    @staticmethod
    def backward(ctx: Any, *grads: Any) -> Any:
        needed, kept = ctx.needs_input_grad[:3], ctx.saved_tensors
        if ctx.parting is not None:
            images, parted = ctx.parting.Parted(*kept[:2]), ctx.parting.Parted(*kept[2:])
            return *ctx.parting.backward(images, parted, grads[0], *ctx.sizes, ctx.window, needed), None
        value, weight = kept
        kernels: Any = devices.kernels("convolution", value)
        below, of_weight, of_bias = None, None, None
        if needed[0]:
            below = kernels.input_gradient(grads[0], weight, tuple(value.shape[3:]), ctx.window)
        if needed[1] or needed[2]:
            size = tuple(weight.shape[3:])
            of_weight, of_bias = kernels.weight_gradient(value, grads[0], size, ctx.window, biased=needed[2])
        return below, of_weight, of_bias, None
