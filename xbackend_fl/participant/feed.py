"""What a model is fed: rows of a data set in its own dtype, and targets as its loss reads them."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, final

import numpy as np
from numpy.typing import NDArray

from xbackend_fl.adapter import Batch
from xbackend_fl.canonical import Schema
from xbackend_fl.course import Course
from xbackend_fl.data import Dataset
from xbackend_fl.metrics import Objective, objective_of


@final
class Feed:
    """Makes the batches of one model, in ONNX layout.

    Args:
        course: Says how bytes are scaled, and the loss.
        example: One array per input, in ONNX layout and with the dtype that the model takes.
        schema: The schema.
    """

    def __init__(self, course: Course, example: Sequence[NDArray[Any]], schema: Schema) -> None:
        self._course, self._example, self._schema = course, example, schema
        self._objectives: dict[int, Objective] = {}

    def objective(self, data: Dataset) -> Objective:
        """How the loss reads the targets of a data set."""
        key = id(data.targets)
        if key not in self._objectives:
            training = self._course.training
            found = objective_of(
                self._schema,
                training.loss,
                data.targets,
                class_axis=training.class_axis,
                ignore_index=training.ignore_index,
            )
            self._objectives[key] = found.counting(data.targets)
        return self._objectives[key]

    def prepared(self, inputs: tuple[NDArray[Any], ...]) -> tuple[NDArray[Any], ...]:
        """Inputs in the dtype of the model; bytes are scaled if the course says how."""
        scale = self._course.data.scale
        pairs = zip(inputs, self._example, strict=True)
        if scale is None:
            return tuple(array.astype(wanted.dtype, copy=False) for array, wanted in pairs)
        factor, offset = map(np.float32, (scale.rule().factor, scale.rule().offset))
        return tuple(
            a * factor + offset if a.dtype == np.uint8 else a.astype(e.dtype, copy=False) for a, e in pairs
        )

    def batch(self, data: Dataset, indices: NDArray[np.intp]) -> Batch:
        """Some rows of a data set."""
        part = data.gather(indices)
        return Batch(self.prepared(part.inputs), self.objective(data).prepared(part.targets))
