"""A trained model as a file for small machines: its framework writes it, and the file's own runtime is held against the model and ONNX Runtime."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from xbackend_fl.adapter.contract import LiteExporting, LiteModel
from xbackend_fl.convert.models import Side
from xbackend_fl.convert.outputs import Output, answer_of, compared
from xbackend_fl.errors import RefusedInput
from xbackend_fl.mapping import execute
from xbackend_fl.mapping.probe.draw import draw_inputs
from xbackend_fl.weights.onnx_writing import Writing

Array = NDArray[Any]


RUNTIMES = {"tflite": "LiteRT", "pte": "ExecuTorch"}
"""What such files end in, and what runs them."""

_DRAWS = 2


def lite_format(path: Path, name: str | None) -> str | None:
    """The format of a new file if it is one of :data:`RUNTIMES`: by ``name``, or by the ending of ``path``."""
    found = path.suffix.removeprefix(".") if name is None else name
    return found if found in RUNTIMES else None


def lite_exporter(lite: str, side: Side | None, writing: Writing) -> tuple[Side, LiteExporting]:
    """Refuse what such a file cannot be made of, before anything is computed; returns the model twice: in canonical terms, and as what writes.

    Args:
        lite: One of :data:`RUNTIMES`.
        side: What the file is made of.
        writing: Asks for nothing: these files have the example's lengths, and no opset.

    Raises:
        RefusedInput: There is no model, or one whose framework makes no such files.
    """
    trainer = None if side is None else side.trainer
    if side is None or trainer is None:
        raise RefusedInput(
            f"a .{lite} file holds a model, and only weights are here",
            hint="give the model's code: --source-model if SOURCE belongs to it, else --dest-model",
        )
    if not isinstance(trainer, LiteExporting) or trainer.lite_format != lite:
        raise RefusedInput(
            f"a model of {side.binding.backend} makes no .{lite} file for {RUNTIMES[lite]}",
            hint="--dest-model with the same model in a framework that does; it takes these weights",
        )
    if side.binding.one_way:
        raise RefusedInput(f"the map goes one way: {side.binding.one_way}")
    if writing.asks:
        raise RefusedInput(
            f"a .{lite} file has no sequence axes and no opset", hint="leave --sequence-axis and --opset out"
        )
    return side, trainer


def by_lite_exporter(
    file: Path,
    exporter: LiteExporting,
    side: Side,
    canonical: Mapping[str, Array],
    example: Sequence[Array],
) -> tuple[str, tuple[Output, ...], tuple[str, ...]]:
    """Write the file, and compare what its runtime computes with it.

    Args:
        file: The new file.
        exporter: The model as what writes such files.
        side: The same model.
        canonical: The weights.
        example: Inputs in ONNX layout.

    Returns:
        How the file was compared, the differences of the outputs, and notes.

    Raises:
        AdapterError: The runtime is not installed.
        RefusedInput: The framework cannot write it.
        RunFailed: The file does not compute what the model does.
    """
    if not example or any(array.ndim == 0 for array in example):
        raise RefusedInput(
            "a model for small machines needs inputs with a batch axis", hint="give them with --input"
        )
    side.model.write(canonical)
    places = [axes.perm.index(0) for axes in side.binding.inputs]
    made = exporter.export_lite(file, side.model.native_inputs(example), places)
    outputs = _outputs(made, canonical, side, example)
    return f"{made.runtime} computes what the model does", outputs, _notes(made)


def _outputs(
    made: LiteModel, canonical: Mapping[str, Array], side: Side, example: Sequence[Array]
) -> tuple[Output, ...]:
    """The largest difference of every output, for the fewest examples and for more."""
    schema, worst = side.model.schema, dict[str, Output]()
    least, largest = made.examples
    for count in sorted({least, largest or max(example[0].shape[0], least + 2)}):
        for seed in range(_DRAWS):
            drawn = draw_inputs(schema, [array.shape for array in example], seed, like=example)
            inputs = [np.resize(array, (count, *array.shape[1:])) for array in drawn]
            received = side.model.through(made.run, inputs)
            others = [("the model", answer_of(side, canonical, inputs))]
            if not schema.opaque:
                others.append(("ONNX Runtime", tuple(execute(schema, canonical, inputs))))
            for who, expected in others:
                for output in compared(schema, expected, received, f"{made.runtime} and {who}"):
                    if output.name not in worst or output.relative > worst[output.name].relative:
                        worst[output.name] = output
    return tuple(worst.values())


def _notes(made: LiteModel) -> tuple[str, ...]:
    least, largest = made.examples
    if largest is None:
        some = "any number of examples"
    elif least == largest:
        some = f"exactly {least} example{'s' if least > 1 else ''}"
    else:
        some = f"{least} to {largest} examples"
    names = f", inputs {', '.join(made.inputs)}" if made.inputs else ""
    return (f"a call of the file takes {some}, in the layout of the model it was made of{names}",)
