"""A native model in the hands of a training loop that is not the toolkit's: what such a loop may ask of it, and what is seen of its steps."""

from __future__ import annotations

from contextlib import AbstractContextManager
from typing import Any, Protocol, runtime_checkable

from xbackend_fl.adapter.asking import Asked
from xbackend_fl.adapter.contract import Array, TrainConfig


class Lent(Protocol):
    """A model that is lent, with a federated algorithm's rule in terms of its framework.

    Attributes:
        model: The native model, as the user built it.
        device: Where it lies, as its framework calls that place.
        asked: How often the rule was asked for, by :meth:`penalty` or :meth:`corrected`.
    """

    model: Any
    device: str
    asked: Asked

    def tensor(self, array: Array) -> Any:
        """An array as a tensor of the framework, on the model's device."""
        ...

    def array(self, value: object) -> Array | None:
        """A tensor of the framework as an array; ``None`` for anything else."""
        ...

    def penalty(self) -> Any:
        """What the rule adds to the loss of a step: a tensor without axes; 0 without a rule."""
        ...

    def corrected(self, gradients: Any) -> Any:
        """Gradients as the rule changes them.

        Args:
            gradients: By the framework's own custom: ``None`` where parameters hold them (they are changed in place, and nothing is returned), or a
                sequence in the order of the trainable variables (a list is returned).

        Raises:
            UpdateRefused: They do not fit the model.
        """
        ...

    @property
    def steps(self) -> int | None:
        """Steps of an optimizer of the framework so far, as the framework counts them; ``None`` if nothing could be counted."""
        ...

    @property
    def unlike(self) -> str:
        """How the steps differ from the optimizer of the configuration, in words, as far as they were seen; empty if they do not."""
        ...

    def read(self) -> dict[str, Array]:
        """Copies of all native tensors.

        Raises:
            UpdateRefused: The model has not the layers and tensors any more with which it was lent.
        """
        ...


@runtime_checkable
class Lending(Protocol):
    """A trainer that lends its model."""

    def lend(
        self, config: TrainConfig, algorithm: str, *, training: bool = True
    ) -> AbstractContextManager[Lent]:
        """The model, in training mode with the attributes that the schema says of training; afterwards all but its weights is as it was before.

        Args:
            config: Native: attributes, masked parts, the rule and its slots are followed, the optimizer is compared.
            algorithm: Whose rule it is, for messages: a step that has not what it adds is refused where steps can be seen.
            training: False: in evaluation mode, where the framework's models have one.
        """
        ...
