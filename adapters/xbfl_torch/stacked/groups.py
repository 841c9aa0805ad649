"""Group normalisation of images by one kernel each way; elsewhere ``vmap`` does."""

from __future__ import annotations

from dataclasses import dataclass
from functools import partial
from typing import Any

import torch

from xbfl_torch.stacked import devices
from xbfl_torch.stacked.lifting import changes, lifted, own


@dataclass(frozen=True)
class Grouped:
    """Images that kernels normalised in groups of channels.

    Attributes:
        value: The images, ``[participants, batch, channels, ...]``.
        weight: What they were multiplied with then, ``[participants, channels]``.
        bias: What was added.
        moments: Means and scales, ``[participants, batch, groups, 2]``.
        groups: How many.
        version: How often the images had been changed in place before.
        rectified: Whether what was negative then became zero.
    """

    value: torch.Tensor
    weight: torch.Tensor
    bias: torch.Tensor
    moments: torch.Tensor
    groups: int
    version: int
    rectified: bool = False

    def backward(self, grad: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
        """Gradients of value, weight and bias by that of what came after."""
        kernels = devices.kernels("groups", self.value)
        assert kernels is not None
        below, slope, shift = kernels.backward(
            _channels_last(grad), _channels_last(self.value), devices.lined_up(self.weight), devices.lined_up(self.bias),
            self.moments, self.groups, rectified=self.rectified,
        )  # fmt: skip
        return _channels_second(below, self.value.shape), slope, shift


def group_norm(
    count: torch.Tensor,
    value: torch.Tensor,
    num_groups: int,
    weight: torch.Tensor | None = None,
    bias: torch.Tensor | None = None,
    eps: float = 1e-5,
    *,
    seen: list[Grouped],
) -> Any:
    """``functional.group_norm`` of one participant; what kernels normalise is added to ``seen``."""
    kernels = devices.kernels("groups", value)
    if kernels is None or weight is None or bias is None or value.ndim < 3:
        return NotImplemented
    if not kernels.fits(value.shape[1], num_groups):
        return NotImplemented
    return lifted(partial(_group_norm, seen), count, value, weight, bias, num_groups, eps)


def _group_norm(
    seen: list[Grouped],
    _: Any,
    value: torch.Tensor,
    weight: torch.Tensor,
    bias: torch.Tensor,
    groups: int,
    eps: float,
) -> torch.Tensor:
    result, moments = _Groups.apply(value, weight, bias, groups, eps)  # type: ignore[no-untyped-call]
    seen.append(Grouped(value, weight, bias, moments, groups, changes(value)))
    return result  # type: ignore[no-any-return]


class _Groups(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, value: Any, weight: Any, bias: Any, groups: int, eps: float) -> Any:
        kernels = devices.kernels("groups", value)
        assert kernels is not None
        lined = devices.lined_up(weight), devices.lined_up(bias)
        result, moments = kernels.forward(_channels_last(value), *lined, groups, eps)
        ctx.groups = groups
        ctx.set_materialize_grads(False)  # those of moments would be written down
        ctx.save_for_backward(value, weight, bias, moments)
        ctx.mark_non_differentiable(moments)
        return own(_channels_second(result, value.shape)), moments

    @staticmethod
    def backward(ctx: Any, *grads: Any) -> Any:
        if grads[0] is None:
            return None, None, None, None, None
        value, weight, bias, moments = ctx.saved_tensors
        item = Grouped(value, weight, bias, moments, ctx.groups, changes(value))
        return *item.backward(grads[0]), None, None


def _channels_last(value: torch.Tensor) -> torch.Tensor:
    """``[participants, batch, channels, ...]`` as ``[participants, batch, places, channels]``."""
    return value.movedim(2, -1).reshape(*value.shape[:2], -1, value.shape[2]).contiguous()


def _channels_second(laid: torch.Tensor, shape: torch.Size) -> torch.Tensor:
    return laid.view(*shape[:2], *shape[3:], shape[2]).movedim(-1, 2)
