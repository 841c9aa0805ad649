"""A new ONNX file of a model that has no canonical graph: its framework's own exporter writes it."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from numpy.typing import NDArray

from xbackend_fl.adapter.exporting import export_native
from xbackend_fl.convert.models import Side
from xbackend_fl.convert.outputs import Output, answer_of, check_read_again, compared
from xbackend_fl.errors import RefusedInput
from xbackend_fl.mapping.probe.draw import draw_inputs
from xbackend_fl.text import having, shown_names
from xbackend_fl.weights import open_weights
from xbackend_fl.weights.onnx_writing import Writing

Array = NDArray[Any]


def needs_exporter(side: Side) -> bool:
    """Whether a side is a model with operations of its framework alone."""
    return side.trainer is not None and side.schema is not None and bool(side.schema.opaque)


def by_exporter(
    file: Path,
    canonical: Mapping[str, Array],
    side: Side,
    example: Sequence[Array],
    writing: Writing,
) -> tuple[str, tuple[Output, ...], tuple[str, ...]]:
    """Write the file, read it again, and compare what ONNX Runtime computes with it.

    Args:
        file: The new file.
        canonical: The weights.
        side: A model with code.
        example: Inputs in ONNX layout.
        writing: Refused: an exporter's graph has the example's lengths, and the opset that it chooses.

    Returns:
        How the file was compared, the differences of the outputs, and notes.

    Raises:
        RefusedInput: The framework cannot write it.
        RunFailed: The file does not hold what was written, or does not compute what the model does.
    """
    schema = side.model.schema
    if writing.asks:
        raise RefusedInput(
            f"{having(schema.opaque)} no canonical form, and the framework's own exporter frees the batch alone and chooses the opset",
            hint="leave --sequence-axis and --opset out",
        )
    inputs = draw_inputs(schema, [array.shape for array in example], 0)
    expected = answer_of(side, canonical, inputs)
    exported = export_native(side.model, canonical, inputs, file)
    outputs = compared(schema, expected, exported.outputs)
    named = {name: array for name, array in canonical.items() if name not in exported.unnamed}
    check_read_again(named, open_weights(file, "onnx"), file)
    notes = [
        f"{having(schema.opaque)} no canonical form: the graph is that of the framework's own exporter, of opset {exported.opset}"
    ]
    if exported.unnamed:
        notes.append(f"under native names only: {shown_names(exported.unnamed)}")
    return "every tensor with a canonical name read again", outputs, tuple(notes)
