"""What runs a graph with given weights: ONNX Runtime, or the model's own framework where the graph has opaque nodes."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, Protocol, final

import numpy as np
from numpy.typing import NDArray

from xbackend_fl.adapter.contract import Batch, TrainConfig, Trainer
from xbackend_fl.adapter.optimizers import Optimizer
from xbackend_fl.canonical import Binding, Schema
from xbackend_fl.mapping.probe.derivatives import native
from xbackend_fl.mapping.probe.native import canonical_outputs, training_attributes
from xbackend_fl.mapping.probe.runtime import Runtime

Array = NDArray[Any]

_STILL = Optimizer("sgd", lr=2.0**-100)
"""A step that moves no weight."""


class Executor(Protocol):
    """Runs one graph with any weights, in canonical names and layouts."""

    def outputs(self, weights: Mapping[str, Array], inputs: Sequence[Array]) -> list[Array]:
        """Outputs in evaluation mode, in order.

        Raises:
            RefusedInput: The graph cannot run on data of this size.
        """
        ...

    def batch_statistics(self, weights: Mapping[str, Array], inputs: Sequence[Array]) -> dict[str, Array]:
        """Mean and biased variance of what each batch normalisation reads, by the parameter they would update."""
        ...


def executor_of(schema: Schema, trainer: Trainer, binding: Binding) -> Executor:
    """ONNX Runtime for a schema without opaque nodes; else the model that stands for it.

    Args:
        schema: The schema.
        trainer: A model; its weights are changed.
        binding: Its binding to ``schema``.
    """
    return _Model(schema, trainer, binding) if schema.opaque else Runtime(schema)


@final
class _Model:
    """A native model that executes a schema it is bound to."""

    def __init__(self, schema: Schema, trainer: Trainer, binding: Binding) -> None:
        self._schema, self._trainer, self._binding = schema, trainer, binding

    def outputs(self, weights: Mapping[str, Array], inputs: Sequence[Array]) -> list[Array]:
        """Outputs of the model."""
        return list(canonical_outputs(self._trainer, self._binding, weights, inputs))

    def batch_statistics(self, weights: Mapping[str, Array], inputs: Sequence[Array]) -> dict[str, Array]:
        """Running statistics after one step that forgets those before it and moves no weight."""
        names = {
            name
            for node in self._schema.nodes
            if node.operator == "BatchNormalization"
            for role, name in node.parameters.items()
            if role in {"mean", "variance"}
        }
        outputs = self.outputs(weights, inputs)
        attributes = training_attributes(self._schema, self._binding)
        forgetful = {
            place: {key: 0.0 if key == "momentum" else value for key, value in wanted.items()}
            for place, wanted in attributes.items()
        }
        config = TrainConfig(
            _STILL,
            loss="mean_squared_error",
            dropout=False,
            attributes=forgetful,
            masked=self._binding.masked,
        )
        targets = np.ascontiguousarray(self._binding.outputs[0].to_native(outputs[0]))
        self._trainer.train([Batch(tuple(native(self._binding, inputs)), targets)], config)
        after = self._binding.export(self._trainer.read())
        return {name: after[name] for name in names}
