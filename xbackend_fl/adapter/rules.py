"""What a federated algorithm does to a gradient inside a step, written once for every framework."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, Protocol


class LocalRule(Protocol):
    """Changes the gradient of a step, behind clipping and before weight decay.

    A rule is a frozen dataclass: a framework that compiles its steps compiles anew where the rule is another.
    """

    @property
    def slots(self) -> tuple[str, ...]:
        """Names of the constant arrays that it reads for every trainable tensor, such as ``("anchor",)``."""
        ...

    def gradient(self, gradient: Any, value: Any, slots: Sequence[Any]) -> Any:
        """The gradient that the step follows instead.

        Only ``+ - * /`` are used, so that PyTorch tensors, TensorFlow tensors and NumPy arrays run the same formula.

        Args:
            gradient: Of the loss of a batch, clipped.
            value: The tensor before the step.
            slots: This tensor's constants, in the order of :attr:`slots`, each in its shape.
        """
        ...

    def term(self, value: Any, slots: Sequence[Any]) -> Any:
        """What the rule adds to the loss, element by element: its derivative by the value is what :meth:`gradient` adds to a gradient.

        For whoever has a loss and no gradients: a training loop of a user's own. Only ``+ - * /`` are used.

        Args:
            value: The tensor.
            slots: As for :meth:`gradient`.
        """
        ...
