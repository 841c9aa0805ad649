"""A native model that speaks a schema: what came of a proof."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any, final

from numpy.typing import NDArray

from xbackend_fl.adapter import Batch, LossSum, Renewing, TrainConfig, Trainer
from xbackend_fl.adapter.canonical_model import CanonicalModel
from xbackend_fl.canonical import Binding, Schema
from xbackend_fl.errors import ConfigError, RefusedInput, SchemaError
from xbackend_fl.losses import Loss
from xbackend_fl.losses.kinds.cross_entropy import CrossEntropy
from xbackend_fl.mapping.match.training import require_trainable
from xbackend_fl.mapping.proof.verify import Proof
from xbackend_fl.metrics import Metric, Metrics, Objective, evaluated, objective_of
from xbackend_fl.weights import Weights

Array = NDArray[Any]

_CROSS_ENTROPY = CrossEntropy()


@final
@dataclass(frozen=True)
class BoundModel:
    """A native model that speaks a schema.

    Every array of data is in ONNX layout, one per input or output of the schema in its order, batch first; every parameter goes by its canonical
    name. The native model is asked as it is at that moment, whoever trained it or replaced its tensors since: each method raises
    :class:`RefusedInput` where it has other tensors than it had when it was bound, or inputs do not fit.

    Attributes:
        model: The model in canonical terms, without these checks.
        proof: The numbers that show that it is the schema's function.
        notes: Differences that only training sees, where the schema's value is applied, and what the proof says besides.
    """

    model: CanonicalModel
    proof: Proof
    notes: tuple[str, ...] = ()

    @property
    def schema(self) -> Schema:
        """The schema."""
        return self.model.schema

    @property
    def binding(self) -> Binding:
        """How the schema's parameters lie in the native model."""
        return self.model.binding

    @property
    def trainer(self) -> Trainer:
        """The native model behind the trainer contract, in its own names and layouts."""
        return self.model.trainer

    def read(self) -> Weights:
        """The model's current weights (copies)."""
        return Weights.from_schema(self.schema, self._renewed().read())

    def write(self, weights: Mapping[str, Array]) -> None:
        """Set the model's weights.

        Args:
            weights: Arrays by canonical name, in ONNX layout.

        Raises:
            SchemaError: The weights belong to another schema, or arrays have other names or shapes.
            RefusedInput: The model computes some of its weights.
        """
        self._require_two_ways()
        if isinstance(weights, Weights) and weights.fingerprint != self.schema.fingerprint:
            raise SchemaError(
                f"expected weights of schema {self.schema.fingerprint[:12]}, "
                f"received {weights.fingerprint[:12]}"
            )
        self._renewed().write(Weights.from_schema(self.schema, weights))

    def forward(self, inputs: Sequence[Array]) -> tuple[Array, ...]:
        """Outputs in evaluation mode."""
        return self._renewed().forward(self._fitting(inputs))

    def gradients(self, inputs: Sequence[Array], cotangents: Sequence[Array]) -> dict[str, Array]:
        """Gradient of ``sum(output * cotangent)`` in evaluation mode, by trainable parameter, in its canonical shape.

        Args:
            inputs: The data.
            cotangents: One array per output, of its shape.
        """
        shapes = [array.shape for array in self.forward(inputs)]
        if shapes != [array.shape for array in cotangents]:
            raise RefusedInput(
                f"expected cotangents of the shapes of the outputs, {_shown(shapes)}, received {_shown(a.shape for a in cotangents)}"
            )
        return self.model.gradients(inputs, cotangents)

    def train(self, batches: Iterable[Batch], config: TrainConfig, seed: int = 0) -> LossSum:
        """Train the model as one participant does: from the weights that it has, one step per batch, with an optimizer that remembers nothing.

        Args:
            batches: The data, and targets in the shape of the output that the loss reads, without its class axis if the loss is of classes.
            config: How. ``class_axis`` is in ONNX layout; an array of a slot goes by canonical name, and each slot has one for every
                trainable parameter; ``attributes`` and ``masked`` are the schema's, whatever is given.
            seed: Of dropout and other noise.

        Returns:
            The loss as it was on the way.

        Raises:
            RefusedInput: The model computes some of its weights, or cannot be trained as the schema says; or the loss does not accept a target, or
                there are several; or it has no such output.
        """
        if config.heads:
            raise ConfigError(
                f"train has one loss, and config.heads has {len(config.heads)}",
                hint="TrainConfig(…, loss=…, output=0) for one of them; a course trains several: training.outputs",
            )
        self._require_two_ways()
        if self.binding.inference_only:
            raise RefusedInput(
                f"the {self.binding.backend} model cannot be trained: {self.binding.inference_only}",
                hint="bind the code that builds the model instead of what it was saved as",
            )
        require_trainable(self.binding.backend, self.binding.obstacles, dropout=config.dropout)
        model = self._renewed()
        model.reset(seed)
        axis = config.class_axis if config.loss.targets == "classes" else None
        ready = self._ready(batches, config.loss, axis, config.ignore_index, config.output)
        return model.train(ready, replace(config, attributes={}))

    def evaluate(
        self,
        batches: Iterable[Batch],
        loss: Loss = _CROSS_ENTROPY,
        *,
        metrics: Sequence[Metric] | None = None,
        class_axis: int | None = None,
        ignore_index: int | None = None,
        output: int = 0,
    ) -> Metrics:
        """The loss and other metrics, over one output.

        Args:
            batches: The data, and targets as for :meth:`train`.
            loss: The loss.
            metrics: What is measured beside it; by the loss, accuracy, or ``rmse``, ``mae`` and ``r2``, if left out.
            class_axis: Axis of the output that holds the classes, if the shapes leave several.
            ignore_index: Targets of this value do not count; ``None`` if all do.
            output: The place of the output among the schema's.

        Returns:
            Sums, which merge; ``figures`` has each figure that is defined by its name, and ``notes`` why others are not.

        Raises:
            RefusedInput: The loss does not accept a target, or the model has no such output.
        """
        ready = list(self._ready(batches, loss, class_axis, ignore_index, output))
        if not ready:
            return Metrics()
        objective = self._objective(ready[0], loss, class_axis, ignore_index, output)
        return evaluated(
            self._renewed(),
            ready,
            lambda outputs, targets: Metrics.measured(objective, outputs[output], targets, metrics),
        )

    def _ready(
        self,
        batches: Iterable[Batch],
        loss: Loss,
        class_axis: int | None,
        ignore_index: int | None,
        output: int,
    ) -> Iterator[Batch]:
        """Batches that fit, with targets as the loss reads them."""
        for number, batch in enumerate(batches):
            objective = self._objective(batch, loss, class_axis, ignore_index, output)
            if fault := objective.fault(batch.targets):
                raise ConfigError(f"batch {number}, row {fault.row}: {fault.reason}")
            yield Batch(tuple(self._fitting(batch.inputs)), objective.prepared(batch.targets))

    def _objective(
        self, batch: Batch, loss: Loss, class_axis: int | None, ignore_index: int | None, output: int
    ) -> Objective:
        if not 0 <= output < len(self.schema.outputs):
            raise ConfigError(
                f"output is {output}, and the model has {len(self.schema.outputs)}, counted from 0: {', '.join(port.name for port in self.schema.outputs)}",
                hint="output: the place of the one that the loss reads",
            )
        return objective_of(
            self.schema,
            loss,
            batch.targets,
            place=output,
            class_axis=class_axis,
            ignore_index=ignore_index,
        )

    def _fitting(self, inputs: Sequence[Array]) -> Sequence[Array]:
        ports = self.schema.inputs
        if [array.ndim for array in inputs] != [len(port.shape) for port in ports]:
            raise RefusedInput(
                f"expected inputs {_shown(('N', *port.shape[1:]) if port.shape else () for port in ports)}, in ONNX layout, received {_shown(a.shape for a in inputs)}"
            )
        return inputs

    def _require_two_ways(self) -> None:
        if self.binding.one_way:
            raise RefusedInput(
                f"the map goes one way: {self.binding.one_way}",
                hint="remove the parametrization before training, or take the weights from the trainer's copy",
            )

    def _renewed(self) -> CanonicalModel:
        if isinstance(self.trainer, Renewing):
            self.trainer.renew()
        return self.model


def _shown(shapes: Iterable[tuple[int | str, ...]]) -> str:
    return " and ".join(f"[{', '.join(map(str, shape))}]" for shape in shapes) or "none"
