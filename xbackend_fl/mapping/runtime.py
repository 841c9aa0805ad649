"""ONNX Runtime as the opinion that neither framework shares."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import onnx
import onnxruntime
from numpy.typing import NDArray

from xbackend_fl.canonical import Schema
from xbackend_fl.canonical.onnx_export import to_onnx

Array = NDArray[Any]


def execute(schema: Schema, weights: Mapping[str, Array], inputs: Sequence[Array]) -> list[Array]:
    """Outputs of the canonical graph, in order."""
    return _run(to_onnx(schema, weights), schema, inputs)


def batch_statistics(
    schema: Schema, weights: Mapping[str, Array], inputs: Sequence[Array]
) -> dict[str, Array]:
    """Mean and biased variance of what each batch normalisation reads, by the parameter they would update."""
    model = to_onnx(schema, weights, batch_statistics=True)
    names = [output.name for output in model.graph.output][len(schema.outputs) :]
    found = _run(model, schema, inputs)[len(schema.outputs) :]
    return {name.removesuffix("_of_batch"): array for name, array in zip(names, found, strict=True)}


def _run(model: onnx.ModelProto, schema: Schema, inputs: Sequence[Array]) -> list[Array]:
    options = onnxruntime.SessionOptions()
    options.log_severity_level = 3
    options.intra_op_num_threads = 1
    session = onnxruntime.InferenceSession(
        model.SerializeToString(), options, providers=["CPUExecutionProvider"]
    )
    feeds = {port.name: np.ascontiguousarray(a) for port, a in zip(schema.inputs, inputs, strict=True)}
    outputs: list[Array] = session.run(None, feeds)
    return outputs
