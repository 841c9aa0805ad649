"""What a local optimizer is: its constants, and one arithmetic over whatever arrays a framework has.

Only ``+ - * /`` and a passed-in square root are used, so PyTorch tensors, TensorFlow tensors and NumPy
arrays run the same formulas in the same order. They are PyTorch's: all state starts at zero, and weight decay is
added to the gradient, unless an optimizer says that it is :attr:`~Optimizer.decoupled`.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Annotated, Any, ClassVar, NamedTuple, TypeAlias

from annotated_types import Ge

from xbackend_fl.registry import Positive, Registered

Slots: TypeAlias = Sequence[Any]
"""State of one parameter: arrays of its shape."""
Sqrt: TypeAlias = Callable[[Any], Any]
Stepped: TypeAlias = tuple[Any, tuple[Any, ...]]
"""A new parameter, and its new state."""


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
class Optimizer(Registered, ABC):
    """An update rule and its constants. The fields of a kind are the keys of ``training.optimizer``.

    Attributes:
        num_slots: Arrays of state per parameter, all starting at zero.
        decoupled: Whether :meth:`step` decays the parameter itself; else decay is added to the gradient.
        plain: Whether a step is ``value - lr * gradient`` and keeps nothing, so that it may be taken without storing the gradient, and steps add up.
        name: What courses call it: the name of its file.
        lr: Learning rate.
        weight_decay: L2 penalty, or the decoupled decay.
    """

    num_slots: ClassVar[int] = 0
    decoupled: ClassVar[bool] = False
    plain: ClassVar[bool] = False
    name: str
    lr: Positive = 0.01
    weight_decay: Annotated[float, Ge(0)] = 0.0

    def numbers(self, step: int, lr: float | None = None) -> StepNumbers:
        """The numbers of step ``t >= 1``.

        A float32 ``1 - lr * weight_decay`` loses digits, and so does a float32 power (Kingma & Ba 2015, section 2).

        Args:
            step: Which step, from 1.
            lr: Its learning rate; :attr:`lr` if left out.
        """
        del step
        rate = self.lr if lr is None else lr
        return StepNumbers(rate, 1.0 - rate * self.weight_decay)

    def update(self, value: Any, gradient: Any, slots: Slots, numbers: StepNumbers, sqrt: Sqrt) -> Stepped:
        """One step for one parameter, with weight decay.

        Args:
            value: The parameter.
            gradient: Its gradient.
            slots: Its state, ``num_slots`` arrays.
            numbers: From :meth:`numbers`.
            sqrt: Elementwise square root of the framework.

        Returns:
            The new parameter and the new state.
        """
        if self.weight_decay and not self.decoupled:
            gradient = gradient + self.weight_decay * value
        return self.step(value, gradient, slots, numbers, sqrt)

    @abstractmethod
    def step(self, value: Any, gradient: Any, slots: Slots, numbers: StepNumbers, sqrt: Sqrt) -> Stepped:
        """What an optimizer does with a gradient; arguments and result as of :meth:`update`."""
