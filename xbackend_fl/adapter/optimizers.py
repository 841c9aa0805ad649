"""Optimizer arithmetic, written once over whatever arrays a framework has.

Only ``+ - * /`` and a passed-in square root are used, so PyTorch tensors, TensorFlow tensors and NumPy
arrays run the same formulas in the same order. They are PyTorch's: epsilon is added outside the square
root, Adagrad starts at zero, Nesterov is Sutskever's form, weight decay is added to the gradient except
in AdamW, where it is decoupled (Loshchilov & Hutter 2019).
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any, Literal, TypeAlias

Name: TypeAlias = Literal["sgd", "momentum", "nesterov", "adam", "adamw", "adagrad", "rmsprop"]

_NUM_SLOTS: dict[str, int] = {
    "sgd": 0,
    "momentum": 1,
    "nesterov": 1,
    "adam": 2,
    "adamw": 2,
    "adagrad": 1,
    "rmsprop": 1,
}


@dataclass(frozen=True)
class Optimizer:
    """An update rule and its constants.

    Attributes:
        name: The rule.
        lr: Learning rate.
        momentum: Decay of the momentum buffer (momentum, nesterov).
        beta1: Decay of the first moment (adam, adamw).
        beta2: Decay of the second moment (adam, adamw).
        alpha: Decay of the squared average (rmsprop).
        eps: Added to the denominator (adam, adamw, adagrad, rmsprop).
        weight_decay: L2 penalty, or the decoupled decay of adamw.
    """

    name: Name = "sgd"
    lr: float = 0.01
    momentum: float = 0.9
    beta1: float = 0.9
    beta2: float = 0.999
    alpha: float = 0.99
    eps: float = 1e-8
    weight_decay: float = 0.0

    @property
    def num_slots(self) -> int:
        """Arrays of state per parameter, all starting at zero."""
        return _NUM_SLOTS[self.name]

    def corrections(self, step: int) -> tuple[float, float]:
        """Bias corrections ``1 - beta1^t`` and ``sqrt(1 - beta2^t)`` of step ``t >= 1``, in float64.

        Computed outside the framework: a float32 power loses digits (Kingma & Ba 2015, section 2).
        """
        if self.name not in {"adam", "adamw"}:
            return 1.0, 1.0
        return 1.0 - self.beta1**step, (1.0 - self.beta2**step) ** 0.5

    def update(
        self,
        value: Any,
        gradient: Any,
        slots: Sequence[Any],
        corrections: tuple[Any, Any],
        sqrt: Callable[[Any], Any],
    ) -> tuple[Any, tuple[Any, ...]]:
        """One step for one parameter.

        Args:
            value: The parameter.
            gradient: Its gradient.
            slots: Its state, ``num_slots`` arrays.
            corrections: From :meth:`corrections`.
            sqrt: Elementwise square root of the framework.

        Returns:
            The new parameter and the new state.
        """
        if self.weight_decay and self.name != "adamw":
            gradient = gradient + self.weight_decay * value
        match self.name:
            case "sgd":
                return value - self.lr * gradient, ()
            case "momentum":
                velocity = self.momentum * slots[0] + gradient
                return value - self.lr * velocity, (velocity,)
            case "nesterov":
                velocity = self.momentum * slots[0] + gradient
                return value - self.lr * (gradient + self.momentum * velocity), (velocity,)
            case "adagrad":
                total = slots[0] + gradient * gradient
                return value - self.lr * gradient / (sqrt(total) + self.eps), (total,)
            case "rmsprop":
                square = self.alpha * slots[0] + (1.0 - self.alpha) * gradient * gradient
                return value - self.lr * gradient / (sqrt(square) + self.eps), (square,)
            case "adam" | "adamw":
                if self.name == "adamw":
                    value = value * (1.0 - self.lr * self.weight_decay)
                first = self.beta1 * slots[0] + (1.0 - self.beta1) * gradient
                second = self.beta2 * slots[1] + (1.0 - self.beta2) * gradient * gradient
                denominator = sqrt(second) / corrections[1] + self.eps
                return value - self.lr * (first / corrections[0]) / denominator, (first, second)
