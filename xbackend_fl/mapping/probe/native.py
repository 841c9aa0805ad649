"""A native model asked in canonical names: outputs with given weights."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from typing import Any

from numpy.typing import NDArray

from xbackend_fl.adapter.canonical_model import CanonicalModel
from xbackend_fl.adapter.contract import Preserving, Trainer
from xbackend_fl.errors import RefusedInput

Array = NDArray[Any]


class SizeRefused(RefusedInput):
    """A model does not take inputs of a case's size."""


@contextmanager
def as_it_was(trainer: Trainer) -> Iterator[None]:
    """The model behind a trainer is afterwards what it was; one of somebody's own at least has its weights again."""
    if isinstance(trainer, Preserving):
        with trainer.preserved():
            yield
        return
    before = trainer.read()
    try:
        yield
    finally:
        trainer.write(before)


def outputs_with(
    model: CanonicalModel, weights: Mapping[str, Array], inputs: Sequence[Array]
) -> tuple[Array, ...]:
    """Outputs in evaluation mode with canonical weights, which the model holds afterwards.

    Raises:
        SizeRefused: The model does not accept the inputs' size.
    """
    model.write(weights, copy=False)
    return forward(model, inputs)


def forward(model: CanonicalModel, inputs: Sequence[Array]) -> tuple[Array, ...]:
    """Outputs of a model with the weights that it holds.

    Raises:
        SizeRefused: It does not accept the inputs' size.
    """
    try:
        return model.forward(inputs)
    except RefusedInput as error:
        raise SizeRefused(error.message, hint=error.hint) from error
