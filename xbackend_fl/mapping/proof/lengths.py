"""Whether a model and its canonical graph are one function at other lengths of declared sequence axes too."""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

from numpy.typing import NDArray

from xbackend_fl.adapter.blame import explained
from xbackend_fl.adapter.canonical_model import CanonicalModel
from xbackend_fl.errors import RefusedInput, XbflError, shortened
from xbackend_fl.mapping.probe.draw import draw_inputs
from xbackend_fl.mapping.probe.runtime import Runtime
from xbackend_fl.mapping.proof.verify import TOLERANCE, relative_error

Array = NDArray[Any]
Axis = tuple[int, int]
Shape = tuple[int, ...]

_SEED = 31
_CURE = "compute with the length of the data in the model's code (x.mean(1), not x.sum(1) / 12), or do not declare the axis"


def check_lengths(
    model: CanonicalModel,
    weights: Mapping[str, Array],
    example: Sequence[Array],
    sequence_axes: Sequence[Axis],
    *,
    required: bool = True,
) -> None:
    """Compare a model with a graph in ONNX Runtime, with sequences one longer, twice as long and half as long.

    Lengths that the model itself does not take are no claim about its graph. Twice or half the length it must take: one more
    may vanish in the rounding of a pool.

    Args:
        model: The model, which holds ``weights``, under the schema that is the graph.
        weights: Canonical arrays by parameter name.
        example: One array per input, in ONNX layout.
        sequence_axes: Position of the input and axis in ONNX layout, each.
        required: Whether the model must take some other length; one that only follows the graph may have one length.

    Raises:
        RefusedInput: The model takes no other length, or its graph fixes one.
    """
    if not sequence_axes:
        return
    for index, axis in sequence_axes:
        if axis >= example[index].ndim:
            raise RefusedInput(
                f"sequence axis {index}.{axis}: input {index} has {example[index].ndim} axes, from 0 on"
            )
    schema, backend = model.schema, model.binding.backend
    runtime, refused, taken = Runtime(schema), "", False
    for shapes, far in _other_lengths([array.shape for array in example], sequence_axes):
        inputs = draw_inputs(schema, shapes, _SEED)
        sizes = " and ".join("×".join(map(str, shape[1:])) for shape in shapes)
        try:
            with explained(f"the model, given inputs of {sizes} values,"):
                expected = model.forward(inputs)
        except XbflError as error:
            refused = refused or error.message
            continue
        taken |= far
        if reason := _difference(runtime, weights, inputs, expected):
            what = (
                "a value of the graph fixes the length of a declared sequence axis"
                if required
                else f"the {backend} model follows the graph at the example's length of a declared sequence axis only"
            )
            raise RefusedInput(
                f"{what}: with inputs of {sizes} values {reason}",
                hint=_CURE,
            )
    if required and not taken:
        shown = ", ".join(f"{index}.{axis}" for index, axis in sequence_axes)
        raise RefusedInput(
            f"the model takes no other length of sequence axis {shown}: {refused}",
            hint="build the model for any length (keras: Input(shape=(None, 8))), or do not declare the axis",
        )


def _other_lengths(
    shapes: Sequence[Shape], sequence_axes: Sequence[Axis]
) -> Iterator[tuple[list[Shape], bool]]:
    """All declared axes one longer, twice as long, and half as long, and whether that is far: equal lengths stay equal."""
    for times, more in ((1.0, 1), (2.0, 0), (0.5, 0)):
        changed = [
            tuple(
                math.ceil(n * times) + more if (index, axis) in sequence_axes else n
                for axis, n in enumerate(shape)
            )
            for index, shape in enumerate(shapes)
        ]
        if changed != list(shapes):
            yield changed, not more


def _difference(
    runtime: Runtime, weights: Mapping[str, Array], inputs: Sequence[Array], expected: Sequence[Array]
) -> str:
    """What ONNX Runtime says against the graph at this length; empty if it answers as the model does."""
    try:
        found = runtime.outputs(weights, inputs)
    except Exception as error:  # noqa: BLE001  ONNX Runtime's errors have no common class
        return f"ONNX Runtime says: {shortened(error)}"
    for one, two in zip(expected, found, strict=True):
        if one.shape != two.shape:
            return f"the model answers with the shape {list(one.shape)}, and its graph with {list(two.shape)}"
        difference = relative_error(two, one)
        if not difference <= TOLERANCE:
            return f"the model and its graph differ by {difference:.1e}"
    return ""
