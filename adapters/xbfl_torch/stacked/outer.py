"""Dense weights of everybody's own that step by what their layer saw.

The gradient of such a weight is the product of two thin matrices. Its norm is that of their products with themselves, and a step of SGD is one
pass over the weight: the gradient, as large as the weights of all participants, is never written down.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, final

import torch

from xbfl_torch.stacked import devices

Seen = tuple[torch.Tensor, torch.Tensor]
"""Gradient of a layer's outputs ``[participants, batch, out]``, and its inputs ``[participants, batch, in]``."""

MAX_ROWS = 64
"""Rows of a participant's step up to which this is cheaper than a gradient."""


@final
@dataclass(eq=False)
class Outer:
    """The weights of one layer.

    Attributes:
        weights: Of every participant, ``[slots, out, in]``.
        weight_decay: Of the step.
        anchor: What autograd differentiates for, so that it comes by where neither bias nor inputs train.
        seen: What the layer saw in the step that is being made.
    """

    weights: torch.Tensor
    weight_decay: float
    anchor: torch.Tensor
    seen: Seen | None = None

    def forward(self, value: torch.Tensor, bias: torch.Tensor | None) -> torch.Tensor:
        """``value [participants, batch, in] @ weight.T + bias``, with each one's own weight."""
        own, kernels = self.weights[: len(value)], devices.kernels("outer", value)
        if kernels is not None:
            return kernels.forward(value, own, devices.lined_up(bias))  # type: ignore[no-any-return]
        found = torch.bmm(value, own.transpose(1, 2))
        return found if bias is None else found + bias[:, None]

    def backward(self, grad: torch.Tensor) -> torch.Tensor:
        """``grad [participants, batch, out] @ weight``, with each one's own weight."""
        own, kernels = self.weights[: len(grad)], devices.kernels("outer", grad)
        return torch.bmm(grad, own) if kernels is None else kernels.backward(grad, own)

    def squared_norms(self) -> torch.Tensor:
        """Of the gradients of this step, ``[participants]``."""
        assert self.seen is not None
        return squared_norms(self.seen)

    def remember(self, scales: torch.Tensor | None, active: torch.Tensor, lr: torch.Tensor) -> None:
        """Take this step, of those that are active."""
        assert self.seen is not None
        (left, right), self.seen = self.seen, None
        own, kernels = self.weights[: len(left)], devices.kernels("outer", left)
        if kernels is not None:
            kernels.descend(own, left, right, scales, active, lr, self.weight_decay)
            return
        scaled = left if scales is None else left * scales[:, None, None]
        change = torch.bmm(scaled.transpose(1, 2), right) + self.weight_decay * own
        own.copy_(torch.where(active[:, None, None], own - lr * change, own))


def squared_norms(seen: Seen) -> torch.Tensor:
    """``|left.T @ right|^2`` of every participant, without the product."""
    kernels = devices.kernels("dense", seen[0])
    if kernels is not None:
        return kernels.squared_norms(*seen)  # type: ignore[no-any-return]
    products: list[Any] = [torch.bmm(value, value.transpose(1, 2)) for value in seen]
    return (products[0] * products[1]).sum((1, 2)).clamp(min=0.0)  # type: ignore[no-any-return]
