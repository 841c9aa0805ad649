"""What Adam and AdamW share (Kingma & Ba 2015, algorithm 1), as PyTorch writes it: epsilon is added outside the root."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, ClassVar

from xbackend_fl.adapter.optimizers.optimizer import Optimizer, Slots, Sqrt, StepNumbers, Stepped
from xbackend_fl.registry import Decay, Positive


@dataclass(frozen=True)
class Moments(Optimizer):
    """Steps along a mean of gradients, shorter by the root of a mean of their squares.

    Attributes:
        beta1: Decay of the mean of gradients.
        beta2: Decay of the mean of squares.
        eps: Added to the root.
    """

    num_slots: ClassVar[int] = 2
    beta1: Decay = 0.9
    beta2: Decay = 0.999
    eps: Positive = 1e-8

    def numbers(self, step: int, lr: float | None = None) -> StepNumbers:
        """With the bias corrections of both means."""
        first, second = 1.0 - self.beta1**step, (1.0 - self.beta2**step) ** 0.5
        return super().numbers(step, lr)._replace(first=first, second=second)

    def step(self, value: Any, gradient: Any, slots: Slots, numbers: StepNumbers, sqrt: Sqrt) -> Stepped:
        """See :class:`~xbackend_fl.adapter.optimizers.optimizer.Optimizer`."""
        first = self.beta1 * slots[0] + (1.0 - self.beta1) * gradient
        second = self.beta2 * slots[1] + (1.0 - self.beta2) * gradient * gradient
        denominator = sqrt(second) / numbers.second + self.eps
        return value - numbers.lr * (first / numbers.first) / denominator, (first, second)
