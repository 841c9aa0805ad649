"""What a conversion is held against: the new file read again, and what both sides compute with the weights that were moved."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from xbackend_fl.canonical import Schema
from xbackend_fl.canonical.dtypes import widened
from xbackend_fl.convert.models import Side
from xbackend_fl.errors import RunFailed
from xbackend_fl.mapping import execute
from xbackend_fl.mapping.probe.draw import draw_inputs
from xbackend_fl.mapping.proof.verify import TOLERANCE, relative_error
from xbackend_fl.weights.store import same_bits

Array = NDArray[Any]
Canonical = Mapping[str, Array]


@dataclass(frozen=True)
class Output:
    """One output of the model, computed on both sides with the weights that were moved.

    Attributes:
        name: Its name in the schema.
        max_abs: Largest absolute difference.
        relative: That, over the largest absolute value of the output.
    """

    name: str
    max_abs: float
    relative: float


def compared_outputs(
    canonical: Canonical, reader: Side | None, writer: Side | None, example: Sequence[Array]
) -> tuple[Output, ...]:
    """Compute on both sides, or on one and in ONNX Runtime, which cannot run every model.

    Raises:
        RunFailed: The outputs differ by more than the tolerance of the proof.
    """
    sides = [side for side in (reader, writer) if side is not None and side.trainer is not None]
    if not sides or not example:
        return ()
    schema = sides[0].schema
    assert schema is not None
    inputs = draw_inputs(schema, [array.shape for array in example], 0)
    one, *others = [answer_of(side, canonical, inputs) for side in sides]
    if not others and schema.opaque:
        return ()
    two = others[0] if others else tuple(execute(schema, canonical, inputs))
    return compared(schema, one, two)


def compared(
    schema: Schema, ones: Sequence[Array], twos: Sequence[Array], who: str = "the two sides"
) -> tuple[Output, ...]:
    """The differences of two answers.

    Args:
        schema: Names the outputs.
        ones: What is right.
        twos: What is held against it.
        who: Whose answers they are, for the error.

    Raises:
        RunFailed: One is larger than the tolerance of the proof.
    """
    result = []
    for port, one, two in zip(schema.outputs, ones, twos, strict=True):
        if one.shape != two.shape:
            raise RunFailed(
                f"{who} disagree about the shape of output {port.name!r}: {list(two.shape)} and {list(one.shape)}; nothing was kept"
            )
        error = relative_error(two, one)
        result.append(Output(port.name, float(np.max(np.abs(one - two), initial=0.0)), error))
        if not error <= TOLERANCE:
            raise RunFailed(f"{who} disagree about output {port.name!r} by {error:.1e}; nothing was kept")
    return tuple(result)


def answer_of(side: Side, canonical: Canonical, inputs: Sequence[Array]) -> tuple[Array, ...]:
    """Outputs in ONNX layout of a side that has a model, which holds the weights afterwards."""
    if not side.binding.one_way:
        side.model.write(canonical)
    return side.model.forward(inputs)


def check_read_again(expected: Canonical, received: Mapping[str, Array], path: Path) -> None:
    """Compare what a new file holds with what was written, bit for bit.

    Raises:
        RunFailed: They differ; nothing is kept.
    """
    for name, array in expected.items():
        if name not in received or not same_bits(widened(np.asarray(received[name])), array):
            raise RunFailed(f"{path.name}: {name!r} read again is not what was written; nothing was kept")
