"""Optimizer arithmetic, written once over whatever arrays a framework has.

Only ``+ - * /`` and a passed-in square root are used, so PyTorch tensors, TensorFlow tensors and NumPy
arrays run the same formulas in the same order. They are PyTorch's: epsilon is added outside the square
root, Adagrad starts at zero, Nesterov is Sutskever's form, weight decay is added to the gradient except
in AdamW, where it is decoupled (Loshchilov & Hutter 2019).
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any, Literal, NamedTuple, TypeAlias

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


class StepNumbers(NamedTuple):
    """What a step multiplies and divides by, computed outside the frameworks in float64.

    Attributes:
        lr: Learning rate.
        kept: What decoupled decay leaves of a parameter, ``1 - lr * weight_decay``.
        first: Bias correction ``1 - beta1^t``.
        second: Bias correction ``sqrt(1 - beta2^t)``.
    """

    lr: Any
    kept: Any = 1.0
    first: Any = 1.0
    second: Any = 1.0


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

    def numbers(self, step: int, lr: float | None = None) -> StepNumbers:
        """The numbers of step ``t >= 1``.

        A float32 power loses digits (Kingma & Ba 2015, section 2), and so does a float32 ``1 - lr * weight_decay``.

        Args:
            step: Which step, from 1.
            lr: Its learning rate; :attr:`lr` if left out.
        """
        rate = self.lr if lr is None else lr
        kept = 1.0 - rate * self.weight_decay
        if self.name not in {"adam", "adamw"}:
            return StepNumbers(rate, kept)
        return StepNumbers(rate, kept, 1.0 - self.beta1**step, (1.0 - self.beta2**step) ** 0.5)

    def update(
        self,
        value: Any,
        gradient: Any,
        slots: Sequence[Any],
        numbers: StepNumbers,
        sqrt: Callable[[Any], Any],
    ) -> tuple[Any, tuple[Any, ...]]:
        """One step for one parameter.

        Args:
            value: The parameter.
            gradient: Its gradient.
            slots: Its state, ``num_slots`` arrays.
            numbers: From :meth:`numbers`.
            sqrt: Elementwise square root of the framework.

        Returns:
            The new parameter and the new state.
        """
        if self.weight_decay and self.name != "adamw":
            gradient = gradient + self.weight_decay * value
        match self.name:
            case "sgd":
                return value - numbers.lr * gradient, ()
            case "momentum":
                velocity = self.momentum * slots[0] + gradient
                return value - numbers.lr * velocity, (velocity,)
            case "nesterov":
                velocity = self.momentum * slots[0] + gradient
                return value - numbers.lr * (gradient + self.momentum * velocity), (velocity,)
            case "adagrad":
                total = slots[0] + gradient * gradient
                return value - numbers.lr * gradient / (sqrt(total) + self.eps), (total,)
            case "rmsprop":
                square = self.alpha * slots[0] + (1.0 - self.alpha) * gradient * gradient
                return value - numbers.lr * gradient / (sqrt(square) + self.eps), (square,)
            case "adam" | "adamw":
                if self.name == "adamw":
                    value = value * numbers.kept
                first = self.beta1 * slots[0] + (1.0 - self.beta1) * gradient
                second = self.beta2 * slots[1] + (1.0 - self.beta2) * gradient * gradient
                denominator = sqrt(second) / numbers.second + self.eps
                return value - numbers.lr * (first / numbers.first) / denominator, (first, second)
