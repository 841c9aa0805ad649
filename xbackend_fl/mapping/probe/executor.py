"""What runs a graph with given weights: ONNX Runtime, or the model's own framework where the graph has opaque nodes."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, Protocol, final

from numpy.typing import NDArray

from xbackend_fl.adapter.canonical_model import CanonicalModel
from xbackend_fl.adapter.contract import Batch, TrainConfig
from xbackend_fl.adapter.optimizers.kinds.sgd import SGD
from xbackend_fl.losses.kinds.mean_squared_error import MeanSquaredError
from xbackend_fl.mapping.probe.native import outputs_with
from xbackend_fl.mapping.probe.runtime import Runtime

Array = NDArray[Any]

_STILL = SGD(lr=2.0**-100)
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


def executor_of(model: CanonicalModel) -> Executor:
    """ONNX Runtime for a schema without opaque nodes; else the model that stands for it.

    Args:
        model: A model that speaks the schema; its weights are changed.
    """
    return _Model(model) if model.schema.opaque else Runtime(model.schema)


@final
class _Model:
    """A native model that executes a schema it is bound to."""

    def __init__(self, model: CanonicalModel) -> None:
        self._model = model

    def outputs(self, weights: Mapping[str, Array], inputs: Sequence[Array]) -> list[Array]:
        """Outputs of the model."""
        return list(outputs_with(self._model, weights, inputs))

    def batch_statistics(self, weights: Mapping[str, Array], inputs: Sequence[Array]) -> dict[str, Array]:
        """Running statistics after one step that forgets those before it and moves no weight."""
        names = {
            name
            for node in self._model.schema.nodes
            if node.operator == "BatchNormalization"
            for role, name in node.parameters.items()
            if role in {"mean", "variance"}
        }
        outputs = self.outputs(weights, inputs)
        forgetful = {
            place: {key: 0.0 if key == "momentum" else value for key, value in wanted.items()}
            for place, wanted in self._model.attributes.items()
        }
        config = TrainConfig(_STILL, loss=MeanSquaredError(), dropout=False, attributes=forgetful)
        self._model.train([Batch(tuple(inputs), outputs[0])], config)
        after = self._model.read()
        return {name: after[name] for name in names}
