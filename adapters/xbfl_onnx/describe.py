"""Describes an ONNX file: walks its nodes and tells them to the builder."""

from __future__ import annotations

import re
from collections.abc import Sequence
from itertools import islice

import numpy as np
import onnx
from onnx import numpy_helper

from xbackend_fl.adapter.calling import MAX_WAYS, Way, by_names, way_of
from xbackend_fl.adapter.contract import Array
from xbackend_fl.adapter.structure import Given, Leaf
from xbackend_fl.adapter.walk import handler_of, table
from xbackend_fl.canonical import Description, GraphBuilder, NativeTensor
from xbackend_fl.canonical.layout import Native
from xbackend_fl.canonical.onnx_session import OnnxSession, SessionRefused
from xbackend_fl.errors import UnsupportedError, shortened
from xbfl_onnx import arithmetic, layers, masks, operations, sequences
from xbfl_onnx.constants import fold
from xbfl_onnx.graph import Context, Handler

_FAMILIES = (masks, arithmetic, operations, layers, sequences)
_HANDLERS: dict[str, Handler] = table(*(family.HANDLERS for family in _FAMILIES))
"""Operators to their handlers; a family a module."""
_DRAWS = re.compile(r"^(Random|Bernoulli|Multinomial)")
_QUANTISED = ("Quantize", "Dequantize", "QLinear", "MatMulInteger", "ConvInteger", "DynamicQuantize")


def describe(model: onnx.ModelProto, example: Sequence[Array]) -> Description:
    """Schema and binding of ``model`` at ``example`` (the layout of the file).

    Raises:
        UnsupportedError: A node has no canonical form, or the file was quantised or folded.
    """
    size = fixed_batch(model) or 2
    batch = [np.concatenate([array[:1]] * size) for array in example]
    _refuse_derived(model)
    weights = {item.name: numpy_helper.to_array(item) for item in model.graph.initializer}
    data = _data_of(model)
    floats = {name: array for name, array in weights.items() if array.dtype == np.float32 and array.ndim}
    natives = {name: NativeTensor(tuple(array.shape), str(array.dtype)) for name, array in floats.items()}
    builder = GraphBuilder("onnx", natives)
    builder.inference_only("an ONNX file is an inference graph")
    zeros = frozenset(name for name, array in floats.items() if not array.any())
    context = Context(builder, _shapes(model, [item.name for item in data], batch), zeros)
    for name, array in weights.items():
        context.values[name] = Native(name, tuple(array.shape)) if name in floats else array
    for item, array in zip(data, batch, strict=True):
        order = tuple(range(array.ndim))
        context.values[item.name] = builder.input(item.name, str(array.dtype), array.shape, order)
    opset = max(item.version for item in model.opset_import if item.domain in {"", "ai.onnx"})
    for node in model.graph.node:
        _node(context, _named(node), opset)
    for output in model.graph.output:
        builder.output(context.data(context.values[output.name]))
    return builder.build()


def way_of_file(model: onnx.ModelProto, given: Given) -> Way:
    """Which array of an example is which input of a file: by name, else in order, else in the first order that it declares.

    Raises:
        UnsupportedError: It has another number of inputs.
    """
    data = _data_of(model)
    if len(data) != len(given.arrays):
        raise UnsupportedError(
            f"the ONNX model has {len(data)} inputs; received {len(given.arrays)}",
            hint="give one --input per input of the model",
        )
    names = [item.name for item in data]

    def made(leaves: Sequence[Leaf]) -> Way:
        return way_of([], list(zip(names, leaves, strict=True)))

    several = list(islice(by_names(names, given, made), MAX_WAYS))
    fitting = (way for way in several if all(map(_is_declared, data, way.own(given.arrays))))
    return next(fitting, several[0])


def _data_of(model: onnx.ModelProto) -> list[onnx.ValueInfoProto]:
    weights = {item.name for item in model.graph.initializer}
    return [item for item in model.graph.input if item.name not in weights]


def _is_declared(item: onnx.ValueInfoProto, array: Array) -> bool:
    declared = onnx.helper.tensor_dtype_to_np_dtype(item.type.tensor_type.elem_type)
    return _fits(item, array) and array.dtype == declared


def fixed_batch(model: onnx.ModelProto) -> int | None:
    """The batch size that the file was exported with; ``None`` if it takes any."""
    dims = [item.type.tensor_type.shape.dim for item in _data_of(model)]
    sizes = {dim[0].dim_value for dim in dims if dim and dim[0].HasField("dim_value")}
    return sizes.pop() if len(sizes) == 1 else None


def _named(node: onnx.NodeProto) -> onnx.NodeProto:
    """A node with a name: one without is called after what it makes, as a graph cannot have values without names."""
    if node.name or not node.output:
        return node
    named = onnx.NodeProto()
    named.CopyFrom(node)
    named.name = node.output[0]
    return named


def _node(context: Context, node: onnx.NodeProto, opset: int) -> None:
    made = fold(context, node, opset)
    if made is None:
        what = f"ONNX node {node.name!r} ({node.op_type})"
        if _DRAWS.search(node.op_type):
            raise UnsupportedError(
                f"{what} draws random numbers in evaluation too",
                hint="export the model in evaluation mode, without it",
            )
        found = handler_of(_HANDLERS, node.op_type, what)(context, node)
        values = found if isinstance(found, list) else [found]
    else:
        values = list(made)
    context.values |= dict(zip(node.output, values, strict=False))


def _shapes(
    model: onnx.ModelProto, names: Sequence[str], batch: Sequence[Array]
) -> dict[str, tuple[int, ...]]:
    """Shape of every value at the example: what ONNX Runtime makes of it."""
    for item in model.graph.input:
        if item.name in names:
            _check_input(item, batch[names.index(item.name)])
    probe = onnx.ModelProto()
    probe.CopyFrom(model)
    del probe.graph.output[:]
    every = [name for node in model.graph.node for name in node.output if name]
    probe.graph.output.extend(onnx.ValueInfoProto(name=name) for name in every)
    try:
        values = OnnxSession(probe).run(dict(zip(names, batch, strict=True)), every)
    except SessionRefused as error:
        raise UnsupportedError(
            f"ONNX Runtime cannot run the model on inputs of shape {[list(a.shape) for a in batch]}: "
            f"{shortened(error)}"
        ) from error
    found = {n: tuple(v.shape) for n, v in zip(every, values, strict=True) if isinstance(v, np.ndarray)}
    found |= {item.name: tuple(item.dims) for item in model.graph.initializer}
    return found | {name: tuple(array.shape) for name, array in zip(names, batch, strict=True)}


def _check_input(item: onnx.ValueInfoProto, array: Array) -> None:
    if not _fits(item, array):
        raise UnsupportedError(
            f"ONNX input {item.name!r} is declared {_declared(item)}; the example has shape {list(array.shape)}",
            hint="give --input in the layout of the file",
        )


def _fits(item: onnx.ValueInfoProto, array: Array) -> bool:
    declared = _declared(item)
    return len(declared) == array.ndim and all(
        n in (None, m) for n, m in zip(declared[1:], array.shape[1:], strict=True)
    )


def _declared(item: onnx.ValueInfoProto) -> list[int | None]:
    dims = item.type.tensor_type.shape.dim
    return [dim.dim_value if dim.HasField("dim_value") else None for dim in dims]


def _refuse_derived(model: onnx.ModelProto) -> None:
    """Files whose parameters are no longer those that were trained."""
    for node in model.graph.node:
        if node.op_type.startswith(_QUANTISED):
            raise UnsupportedError(
                f"the ONNX file is quantised ({node.op_type} at {node.name!r}); its parameters are rounded",
                hint="export the float32 model instead",
            )
    for item in model.graph.initializer:
        folded = item.name.startswith("const_fold_opt__") or item.name.endswith("/merged_input:0")
        if folded and item.data_type == onnx.TensorProto.FLOAT and item.dims:
            raise UnsupportedError(
                f"the ONNX file was folded at export ({item.name!r} is computed from several parameters)",
                hint="export it unfolded: torch.onnx.export(..., optimize=False), or from TensorFlow with every "
                "variable as an input",
            )
