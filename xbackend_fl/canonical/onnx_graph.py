"""The ONNX nodes and constants that the canonical graph becomes."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any, TypeAlias, final

import numpy as np
import onnx
from onnx import helper, numpy_helper

from xbackend_fl.canonical.layout import Array
from xbackend_fl.canonical.node import Node
from xbackend_fl.canonical.schema import Schema


@final
class OnnxGraph:
    """Collects ONNX nodes and constants.

    Args:
        dtypes: NumPy dtype name of every value of the canonical graph.
    """

    def __init__(self, dtypes: Mapping[str, str]) -> None:
        self.dtypes = dtypes
        self.nodes: list[onnx.NodeProto] = []
        self.constants: dict[tuple[str, tuple[int, ...], bytes], onnx.NodeProto] = {}

    def call(self, operator: str, inputs: Sequence[str], output: str | None = None, **attributes: Any) -> str:
        """Append a node; returns the name of its first output."""
        name = output or f"_{operator}_{len(self.nodes)}"
        given = {key: value for key, value in attributes.items() if value is not None}
        self.nodes.append(helper.make_node(operator, inputs, [name], name=name, **given))
        return name

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

    def number(self, value: object, dtype: str) -> str:
        """One number beside a value of some dtype."""
        return self.constant(value, np.dtype(dtype).type)

    def alike(self, values: Sequence[str]) -> list[str]:
        """Values of the canonical graph in one dtype, as ONNX wants them beside each other: a float one, if there is any."""
        dtypes = [self.dtypes[value] for value in values]
        wanted = next((dtype for dtype in dtypes if dtype.startswith("float")), dtypes[0])
        element = helper.np_dtype_to_tensor_dtype(np.dtype(wanted))
        return [
            value if dtype == wanted else self.call("Cast", [value], to=element)
            for value, dtype in zip(values, dtypes, strict=True)
        ]


Emit: TypeAlias = Callable[[OnnxGraph, Node, Schema], None]
"""Adds what one canonical node is in ONNX."""
