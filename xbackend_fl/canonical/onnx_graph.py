"""The ONNX nodes and constants that the canonical graph becomes."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, final

import numpy as np
import onnx
from onnx import TensorProto, helper, numpy_helper

from xbackend_fl.canonical.layout import Array, Shape
from xbackend_fl.canonical.node import Node

OF_BATCH = "_of_batch"
"""Behind the name of a parameter, in front of a number: the statistic of the batch that would move it."""


@final
class OnnxGraph:
    """Collects ONNX nodes and constants.

    Args:
        dtypes: NumPy dtype name of every value of the canonical graph.
        shapes: Shape of every parameter, by its name.
        batch: A data input, whose first axis is the batch.
        batch_statistics: Whether to normalise with the statistics of the batch.
        sizes: Size of every axis of a value, ``None`` for a free one; empty while none is known.

    Attributes:
        owner: Node of the canonical graph that is being written; what it takes besides is named after it.
        statistics: Further outputs: the statistics of the batch.
    """

    def __init__(
        self,
        dtypes: Mapping[str, str],
        shapes: Mapping[str, Shape],
        batch: str,
        *,
        batch_statistics: bool,
        sizes: Mapping[str, tuple[int | None, ...]],
    ) -> None:
        self.dtypes, self.shapes, self.batch, self.sizes = dtypes, shapes, batch, sizes
        self.batch_statistics = batch_statistics
        self.owner = ""
        self.statistics: list[onnx.ValueInfoProto] = []
        self.nodes: list[onnx.NodeProto] = []
        self.constants: dict[tuple[str, tuple[int, ...], bytes], onnx.NodeProto] = {}

    def call(self, operator: str, inputs: Sequence[str], output: str | None = None, **attributes: Any) -> str:
        """Append a node; returns the name of its output."""
        value = output or f"_{operator}_{len(self.nodes)}"
        name = output or f"{self.owner}/{operator}_{len(self.nodes)}"
        self.several(operator, inputs, [value], name, **attributes)
        return value

    def several(
        self, operator: str, inputs: Sequence[str], outputs: Sequence[str], name: str, **attributes: Any
    ) -> None:
        """Append a node with several outputs; an attribute that is ``None`` is left out."""
        given = {key: value for key, value in attributes.items() if value is not None}
        self.nodes.append(helper.make_node(operator, inputs, outputs, name=name, **given))

    def direct(self, node: Node) -> None:
        """A node whose name, slots and attributes are ONNX's own."""
        slots = [node.parameters.get(role, "") for role in ("weight", "bias")]
        while slots and not slots[-1]:
            slots.pop()
        self.call(node.operator, [*node.inputs, *slots], node.outputs[0], **node.attributes)

    def constant(self, value: object, dtype: type) -> str:
        """A constant tensor; equal ones are stored once."""
        array: Array = np.asarray(value, dtype)
        key = (array.dtype.str, array.shape, array.tobytes())
        if key not in self.constants:
            # Numbered in the order of the graph: a name made from the values would need a hash, and hashes collide.
            name = f"_const_{len(self.constants)}"
            self.constants[key] = helper.make_node(
                "Constant", [], [name], name=name, value=numpy_helper.from_array(array, name)
            )
        return str(self.constants[key].output[0])

    def ints(self, *values: int) -> str:
        """A constant list of whole numbers."""
        return self.constant(list(values), np.int64)

    def real(self, value: object) -> str:
        """Float constants."""
        return self.constant(value, np.float32)

    def number(self, value: object, beside: str) -> str:
        """One number of the dtype of a value of the canonical graph."""
        return self.constant(value, np.dtype(self.dtypes[beside]).type)

    def is_whole(self, value: str) -> bool:
        """Whether a value of the canonical graph holds whole numbers, truth values aside."""
        return np.dtype(self.dtypes[value]).kind in "iu"

    def filled(self, shape: str, value: Array) -> str:
        """An array of a shape that is known late; ``value`` ``[1]`` is what it is filled with."""
        return self.call("ConstantOfShape", [shape], value=numpy_helper.from_array(value))

    def cast(self, value: str, dtype: str, output: str | None = None) -> str:
        """A value in another dtype."""
        element = helper.np_dtype_to_tensor_dtype(np.dtype(dtype))
        assert element != TensorProto.UNDEFINED
        return self.call("Cast", [value], output, to=element)

    def alike(self, values: Sequence[str]) -> list[str]:
        """Values of the canonical graph in one dtype, as ONNX wants them beside each other: a float one, if there is any."""
        dtypes = [self.dtypes[value] for value in values]
        wanted = next((dtype for dtype in dtypes if dtype.startswith("float")), dtypes[0])
        return [
            value if dtype == wanted else self.cast(value, wanted)
            for value, dtype in zip(values, dtypes, strict=True)
        ]

    def statistics_of(self, node: Node, channels: int) -> list[str]:
        """Names of a batch's mean and variance ``[channels]``, which are returned; a number tells calls of one layer apart."""
        number = len(self.statistics)
        names = [f"{node.parameters[role]}{OF_BATCH}{number}" for role in ("mean", "variance")]
        self.statistics += [
            helper.make_tensor_value_info(name, TensorProto.FLOAT, [channels]) for name in names
        ]
        return names
