"""A model that computes in half precision by itself: is it what it is in float32, but for rounding?"""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from itertools import islice
from typing import Any

import numpy as np
from numpy.typing import NDArray

from xbackend_fl.adapter import Rounding
from xbackend_fl.adapter.canonical_model import CanonicalModel
from xbackend_fl.canonical.dtypes import UNITS, rounded, widened
from xbackend_fl.errors import MismatchError, RefusedInput
from xbackend_fl.mapping.probe.probe import Evidence, weights_of
from xbackend_fl.mapping.proof.verify import ROUNDINGS

Array = NDArray[Any]

_DRAWS = 2
"""Draws in which a model runs in its own precision, which a processor emulates."""

_MOVES = 3
"""How many times weights are moved to see what rounding does."""

_DEAF = 0.1
"""Outputs that rounding alone moves by more show nothing else."""


@dataclass(frozen=True)
class Measured:
    """What half precision does to the outputs of a model in one draw, relative to their size.

    Attributes:
        error: How far they are from those in float32; infinite where they are no numbers, or none as large fits.
        rounding: How far they move if every weight and input moves by the unit roundoff of the precision.
        where: The output that is farthest off.
    """

    error: float
    rounding: float
    where: str


def precision_notes(model: CanonicalModel, evidence: Sequence[Evidence] | None) -> tuple[str, ...]:
    """What is said of a model that computes in half precision by itself; nothing of others.

    The map is proven in float32, where an epsilon shows that half precision hides. Here the model is run as its user runs it.

    Args:
        model: The model; its weights are changed.
        evidence: Probes of the reference.

    Raises:
        MismatchError: In its own precision the model computes something else than in float32.
    """
    trainer, binding, schema = model.trainer, model.binding, model.schema
    if not isinstance(trainer, Rounding) or trainer.precision == "float32":
        return ()
    name = trainer.precision
    plain = "proven and trained in float32, with float32 masters of its weights"
    cases = (item for item in evidence or () if item.case.at_example(schema) and not item.case.by_shape)
    drawn = list(islice(cases, _DRAWS))
    if not drawn:
        return (plain,)
    try:
        found = [measured(model, item) for item in drawn]
    except RefusedInput as error:
        return (f"{plain}; in {name} itself it was not run: {error.message}",)
    for one in found:
        bound = ROUNDINGS * one.rounding
        if one.rounding <= _DEAF and bound < one.error < math.inf:
            raise MismatchError(
                f"in {name} the {binding.backend} model computes something else than in float32: {one.where} differs by {one.error:.1e}, "
                f"and rounding moves it by {one.rounding:.1e}",
                hint=f"code that asks for the dtype of its data, or rounds it on purpose, makes two functions of one; build the model in float32, "
                f"or without that branch (a difference up to {bound:.1e} is not seen at this precision)",
            )
    heard = [one for one in found if one.rounding <= _DEAF and one.error < math.inf]
    if not heard:
        return (f"{plain}; in {name} itself it shows nothing: rounding or overflow covers its outputs",)
    worst = max(heard, key=lambda one: one.error)
    bound = ROUNDINGS * worst.rounding
    said = f"in {name} itself its outputs differ from that by {worst.error:.1e}, of which rounding explains {bound:.1e}"
    return (f"{plain}; {said}: a smaller difference is not seen at this precision",)


def measured(model: CanonicalModel, item: Evidence) -> Measured:
    """Run a model in its own precision and in float32, with weights and data that both have, and measure what rounding does.

    Args:
        model: The model, which is :class:`Rounding`; its weights are changed.
        item: Says weights and data.

    Raises:
        RefusedInput: The model cannot be run so.
    """
    assert isinstance(model.trainer, Rounding)
    schema, dtype = model.schema, model.trainer.precision
    # Native weights: a constant of the model is as it is, and is not rounded.
    natives = model.binding.restore(weights_of(schema, item.case) | dict(item.statistics))
    weights = {name: widened(rounded(array, dtype)) for name, array in natives.items()}
    inputs = [widened(rounded(array, dtype)) for array in item.case.inputs]
    model.trainer.write(weights)
    exact = model.forward(inputs)
    own = model.forward_by_itself(inputs)
    moves = [list(_distances(moved, exact)) for moved in _moved(model, weights, inputs, UNITS[dtype])]
    errors = list(_distances(own, exact))
    worst = max(range(len(errors)), key=errors.__getitem__)
    # Outputs themselves are rounded, however little the weights do.
    rounding = max(UNITS[dtype], *(move[worst] for move in moves))
    return Measured(errors[worst], rounding, f"output {schema.outputs[worst].name!r}")


def _moved(
    model: CanonicalModel, weights: Mapping[str, Array], inputs: Sequence[Array], unit: float
) -> Iterator[tuple[Array, ...]]:
    """Outputs in float32 with all weights and data moved by one unit, up or down."""
    for seed in range(_MOVES):
        generator = np.random.Generator(np.random.Philox(key=[seed, 8]))
        model.trainer.write({name: _shaken(array, generator, unit) for name, array in weights.items()})
        yield model.forward([_shaken(array, generator, unit) for array in inputs])


def _shaken(array: Array, generator: np.random.Generator, unit: float) -> Array:
    if array.dtype != np.float32 or bool(np.isin(array, (0, 1)).all()):
        # Whole numbers, and masks.
        return array
    signs = generator.integers(0, 2, array.shape, np.int8).astype(np.float32) * 2 - 1
    made: Array = array * (1 + np.float32(unit) * signs)
    return made


def _distances(received: Sequence[Array], expected: Sequence[Array]) -> Iterator[float]:
    for one, two in zip(received, expected, strict=True):
        if not (np.isfinite(one).all() and np.isfinite(two).all()):
            yield math.inf
            continue
        size = float(np.abs(two).max(initial=0.0))
        yield float(np.abs(one.astype(np.float64) - two).max(initial=0.0)) / max(size, 1e-30)
