"""Convolutions whose bias has a gradient that is cheap on a GPU.

PyTorch sums the gradient of a small batch's images with the whole chip, and waits for it: 34 us for 10 x 32 x 28 x 28 on an H100, as long
as the convolution. One program a channel takes a tenth of that and leaves the rest of the chip to others.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from typing import Any

import torch
from torch import nn

from xbfl_torch.devices import kernels_for


@contextmanager
def cheap_biases(model: nn.Module) -> Iterator[None]:
    """Inside, convolutions of images on a GPU add their bias by themselves."""
    with ExitStack() as stack:
        for module in model.modules():
            if (
                type(module) is nn.Conv2d
                and module.bias is not None
                and kernels_for(module.weight) is not None
            ):
                stack.callback(module.__dict__.pop, "forward", None)
                module.__dict__["forward"] = _Forward(module)
        yield


class _Forward:
    def __init__(self, module: nn.Conv2d) -> None:
        self._module = module

    def __call__(self, value: torch.Tensor) -> torch.Tensor:
        module = self._module
        if value.ndim == 3:
            whole: torch.Tensor = module._conv_forward(value, module.weight, module.bias)  # noqa: SLF001
            return whole
        bare = module._conv_forward(value, module.weight, None)  # noqa: SLF001  forward is this with the bias
        added: torch.Tensor = _AddBias.apply(bare, module.bias)  # type: ignore[no-untyped-call]
        return added


class _AddBias(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, value: Any, bias: Any) -> Any:
        ctx.mark_dirty(value)
        return value.add_(bias[None, :, None, None])

    @staticmethod
    def backward(ctx: Any, *grads: Any) -> Any:
        (grad,) = grads
        needed = ctx.needs_input_grad[1]
        return grad, kernels_for(grad).channel_sums(grad.contiguous()) if needed else None  # type: ignore[union-attr]
