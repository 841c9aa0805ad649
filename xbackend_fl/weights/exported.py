"""The ONNX file of a framework's own exporter in a schema's words: canonical parameters, inputs and outputs in ONNX layout."""

from __future__ import annotations

from collections.abc import Mapping
from itertools import permutations
from pathlib import Path
from typing import Any

import numpy as np
import onnx
from numpy.typing import NDArray
from onnx import compose, helper, numpy_helper

from xbackend_fl.canonical import Binding, Port, Schema
from xbackend_fl.canonical.layout import inverse

Array = NDArray[Any]

_NATIVE = "native/"
"""In front of the name of every value of the exporter's."""

_AXES = 5
"""Axes of a parameter up to which their order is looked for."""


def in_canonical_words(
    file: Path, schema: Schema, binding: Binding, weights: Mapping[str, Array], natives: Mapping[str, str]
) -> tuple[tuple[str, ...], int]:
    """Rewrite ``file``, whose graph takes and returns what the native model does, and check it.

    A native tensor that is one canonical parameter, as it is or with its axes in another order, becomes the initializer of the
    parameter's name and array, and a Transpose behind it. Other tensors (gates in another order, rows of several parameters)
    keep their native names.

    Args:
        file: Inputs and outputs in the native model's order of arrays and axes.
        schema: The schema.
        binding: The native model's.
        weights: Canonical arrays.
        natives: Native tensors by the names of their initializers.

    Returns:
        Canonical parameters that the file does not hold by their names, and the version of ONNX's operators that it is of.
    """
    # Values of the exporter's may have the names of parameters and of ports; nodes are called after the user's layers.
    model = compose.add_prefix(onnx.load(str(file)), _NATIVE, rename_nodes=False)
    graph = model.graph
    fronts: list[onnx.NodeProto] = []
    backs: list[onnx.NodeProto] = []
    held = set[str]()
    for tensor in list(graph.initializer):
        tensor_name = natives.get(tensor.name.removeprefix(_NATIVE))
        name = binding.owners.get(tensor_name or "")
        if tensor_name is None:
            continue
        perm = _order(weights[name], numpy_helper.to_array(tensor)) if name and name not in held else None
        if name and perm is not None:
            held.add(name)
            fronts.append(helper.make_node("Transpose", [name], [tensor.name], perm=perm))
            tensor.CopyFrom(numpy_helper.from_array(np.asarray(weights[name], order="C"), name))
    ports = dict(zip((port.name for port in schema.inputs), list(graph.input), strict=True))
    own = binding.in_own_order(list(schema.inputs))
    for port, native, axes in zip(own, list(graph.input), binding.inputs, strict=True):
        ports[port.name] = _declared(port, native)
        turned = f"{native.name}:turned" if axes.trailing else native.name
        fronts.append(helper.make_node("Transpose", [port.name], [turned], perm=axes.perm))
        if axes.trailing:
            fronts += _trailed(axes.trailing, turned, native.name)
    answers = []
    for port, native, axes in zip(schema.outputs, list(graph.output), binding.outputs, strict=True):
        answers.append(_declared(port, native))
        turned = f"{native.name}:turned" if axes.trailing else native.name
        if axes.trailing:
            backs += _trailed(-axes.trailing, native.name, turned)
        backs.append(helper.make_node("Transpose", [turned], [port.name], perm=inverse(axes.perm)))
    for place, items in (
        (graph.input, [ports[port.name] for port in schema.inputs]),
        (graph.output, answers),
        (graph.node, [*fronts, *graph.node, *backs]),
    ):
        kept = list(items)
        del place[:]
        place.extend(kept)
    helper.set_model_props(model, {"fingerprint": schema.fingerprint})
    file.write_bytes(model.SerializeToString())
    onnx.checker.check_model(str(file))
    opset = next(item.version for item in model.opset_import if not item.domain)
    return tuple(name for name in weights if name not in held), opset


def _order(canonical: Array, native: Array) -> tuple[int, ...] | None:
    """How the axes of a canonical array are turned to make the native one; ``None`` if they are not."""
    if canonical.ndim != native.ndim or canonical.size != native.size or canonical.ndim > _AXES:
        return None
    for perm in permutations(range(canonical.ndim)):
        turned = canonical.transpose(perm)
        if turned.shape == native.shape and np.array_equal(turned, native):
            return perm
    return None


def _trailed(trailing: int, value: str, result: str) -> list[onnx.NodeProto]:
    """One axis of length one more, or less, at the end."""
    last = numpy_helper.from_array(np.array([-1], np.int64))
    return [
        helper.make_node("Constant", [], [f"{result}:axes"], value=last),
        helper.make_node("Unsqueeze" if trailing > 0 else "Squeeze", [value, f"{result}:axes"], [result]),
    ]


def _declared(port: Port, native: onnx.ValueInfoProto) -> onnx.ValueInfoProto:
    """A port of the schema; the batch is free."""
    element = native.type.tensor_type.elem_type
    return helper.make_tensor_value_info(port.name, element, ["batch", *port.shape[1:]])
