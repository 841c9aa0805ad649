"""The trained model as ONNX where it has no canonical graph: by its framework's exporter, in the schema's words."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from xbackend_fl.adapter.canonical_model import CanonicalModel
from xbackend_fl.adapter.contract import Exporting
from xbackend_fl.errors import RefusedInput

Array = NDArray[Any]

_BATCH = 2
"""Examples at least: exporters take a batch of one for a constant."""


@dataclass(frozen=True)
class Exported:
    """A file that an exporter wrote, and that ONNX Runtime has run.

    Attributes:
        outputs: What it answers, in the order of the schema's outputs and in ONNX layout.
        unnamed: Canonical parameters that are in it under native names only: gates in another order, parts of a tensor.
        opset: The version of ONNX's operators that the exporter chose.
    """

    outputs: tuple[Array, ...]
    unnamed: tuple[str, ...]
    opset: int


def export_native(
    model: CanonicalModel,
    weights: Mapping[str, Array],
    inputs: Sequence[Array],
    file: Path,
) -> Exported:
    """Write a model, which holds ``weights``, as an ONNX file, and run that file.

    Args:
        model: Holds the weights.
        weights: Canonical arrays.
        inputs: In ONNX layout.
        file: The new file.

    Raises:
        RefusedInput: The framework cannot write it, or what it wrote cannot be run.
    """
    trainer, binding, schema = model.trainer, model.binding, model.schema
    if not isinstance(trainer, Exporting):
        raise RefusedInput(f"{binding.backend} has no exporter")
    if not inputs or any(array.ndim == 0 for array in inputs):
        raise RefusedInput("an input has no batch axis")
    several = [np.concatenate([array] * _BATCH)[:_BATCH] for array in inputs]
    own = model.native_inputs(several)
    places = [axes.perm.index(0) for axes in binding.inputs]
    names = trainer.export_onnx(file, own, places)
    # Only who exports needs onnx and ONNX Runtime in memory.
    from xbackend_fl.weights import as_onnx, exported  # noqa: PLC0415

    try:
        unnamed, opset = exported.in_canonical_words(file, schema, binding, weights, names)
        return Exported(tuple(as_onnx.answers(file, schema, inputs)), unnamed, opset)
    except Exception as error:  # whatever onnx and ONNX Runtime say of a graph
        said = str(error).strip().splitlines() or [""]
        raise RefusedInput(f"ONNX Runtime cannot run what {binding.backend} wrote: {said[0]}") from error
