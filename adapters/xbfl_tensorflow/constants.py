"""Evaluates what a graph computes from constants alone: shapes, positions, masks."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, final

import numpy as np
import tensorflow as tf

from xbackend_fl.adapter.contract import Array


@final
class Constants:
    """Runs single operations of one graph on known inputs."""

    def __init__(self, graph: Any) -> None:
        self._session = tf.compat.v1.Session(graph=graph)

    def fold(self, operation: Any, arguments: Sequence[Any]) -> list[Array] | None:
        """The outputs of an operation on constants; ``None`` if it depends on data or parameters."""
        if operation.type == "Const":
            return [tf.make_ndarray(operation.get_attr("value"))]
        if operation.type == "Shape" and operation.inputs[0].shape.is_fully_defined():
            return [np.array(operation.inputs[0].shape, np.int32)]
        known = bool(arguments) and all(isinstance(item, np.ndarray) for item in arguments)
        if not known or not operation.outputs:
            return None
        # By name: tensors of a graph are not hashable.
        given = {tensor.name: value for tensor, value in zip(operation.inputs, arguments, strict=True)}
        wanted = [tensor.name for tensor in operation.outputs]
        return [np.asarray(item) for item in self._session.run(wanted, given)]

    def close(self) -> None:
        """Free the session."""
        self._session.close()
