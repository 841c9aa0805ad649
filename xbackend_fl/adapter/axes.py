"""What a user declares about the order of axes in which a model takes and returns its data."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TypeAlias, TypeVar
from weakref import WeakKeyDictionary

from xbackend_fl.errors import RefusedInput

Model = TypeVar("Model")
Order: TypeAlias = tuple[int, ...]
"""Axis ``i`` of the model's own array is axis ``order[i]`` of the array in ONNX layout."""


@dataclass(frozen=True)
class Declared:
    """Orders of a model's inputs and outputs, in the order of the model's own; ``None`` where nothing was declared."""

    inputs: tuple[Order | None, ...] | None = None
    outputs: tuple[Order | None, ...] | None = None

    def input(self, index: int, rank: int) -> Order | None:
        """The declared order of an input.

        Raises:
            RefusedInput: It does not fit the number of axes.
        """
        return _checked("input", self.inputs, index, rank)

    def output(self, index: int, rank: int) -> Order | None:
        """The declared order of an output; see :meth:`input`."""
        return _checked("output", self.outputs, index, rank)


_DECLARED: WeakKeyDictionary[object, Declared] = WeakKeyDictionary()


def with_axes(
    model: Model,
    *,
    inputs: Sequence[Sequence[int] | None] | None = None,
    outputs: Sequence[Sequence[int] | None] | None = None,
) -> Model:
    """Say in which order of axes a model takes its inputs and returns its outputs.

    Without it a model is fed examples in ONNX layout (batch first, channels first; a model of Keras gets images channels
    last). A recurrent layer that reads ``[time, batch, features]`` is declared with ``inputs=[(1, 0, 2)]``: the model's axis 0
    is axis 1 of the example.

    Args:
        model: The model; nothing in it is changed.
        inputs: One order per input; ``None`` leaves an input to the rule.
        outputs: One order per output, likewise.

    Returns:
        ``model``.
    """

    def orders(given: Sequence[Sequence[int] | None] | None) -> tuple[Order | None, ...] | None:
        return None if given is None else tuple(None if o is None else tuple(map(int, o)) for o in given)

    _DECLARED[model] = Declared(orders(inputs), orders(outputs))
    return model


def declared_axes(model: object) -> Declared:
    """What was declared about ``model``."""
    try:
        return _DECLARED.get(model, Declared())
    except TypeError:
        # What cannot be weakly referred to was never declared.
        return Declared()


def _checked(what: str, orders: tuple[Order | None, ...] | None, index: int, rank: int) -> Order | None:
    if orders is None:
        return None
    if index >= len(orders):
        raise RefusedInput(
            f"with_axes declares {len(orders)} {what}s, and the model has more",
            hint=f"declare one order per {what}; None leaves one to the rule",
        )
    order = orders[index]
    if order is not None and sorted(order) != list(range(rank)):
        raise RefusedInput(
            f"with_axes declares {what} {index} as {order}, which is no order of {rank} axes",
            hint=f"name each of the axes 0 to {rank - 1} once",
        )
    return order
