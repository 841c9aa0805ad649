"""A native model in canonical names and ONNX layout: whoever asks it never turns an axis."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import cached_property
from typing import Any, final

import numpy as np
from numpy.typing import NDArray

from xbackend_fl.adapter.attributes import training_attributes
from xbackend_fl.adapter.contract import Batch, Judging, LossSum, Rounding, TrainConfig, Trainer
from xbackend_fl.canonical import Binding, Kind, Schema
from xbackend_fl.canonical.layout import leaves
from xbackend_fl.errors import RefusedInput, SchemaError
from xbackend_fl.losses import joined

Array = NDArray[Any]


@final
@dataclass(frozen=True)
class CanonicalModel:
    """A native model that is asked in canonical terms. Nothing is checked, and nothing of the user's is looked up again.

    Arrays of data are in ONNX layout, in the order of the schema's inputs and outputs; arrays of parameters go by canonical names. This is the
    one class that turns axes: an adapter knows its own layout only, and everybody else this one.

    Attributes:
        schema: The schema.
        binding: How its parameters lie in the native model.
        trainer: The native model behind the trainer contract.
    """

    schema: Schema
    binding: Binding
    trainer: Trainer

    @staticmethod
    def described(trainer: Trainer) -> CanonicalModel:
        """A model under its own schema."""
        return CanonicalModel(trainer.description.schema, trainer.description.binding, trainer)

    def read(self, *, copy: bool = True) -> dict[str, Array]:
        """The weights that the model holds, contiguous.

        Args:
            copy: Whether they are never memory of what the trainer read.
        """
        return self.binding.export(self.trainer.read(), copy=copy)

    def write(self, weights: Mapping[str, Array], *, copy: bool = True) -> None:
        """Set all weights.

        Args:
            weights: Arrays by canonical name.
            copy: Whether the trainer never gets memory of ``weights``.

        Raises:
            SchemaError: A parameter that is a constant of this model has other values.
        """
        self.trainer.write(self.binding.restore(weights, copy=copy))

    def reset(self, seed: int) -> None:
        """Forget the last participant as :meth:`Trainer.reset` does, but for the weights of the schema."""
        # What the model calls its own it has anew after a reset, though this binding may have given it a value.
        lost = self.trainer.description.binding.local.keys() & self.binding.owners.keys()
        kept = {name: array for name, array in self.trainer.read().items() if name in lost} if lost else {}
        self.trainer.reset(seed)
        self.trainer.write(kept)

    def forward(self, inputs: Sequence[Array]) -> tuple[Array, ...]:
        """Outputs in evaluation mode."""
        return self._outputs(self.trainer.forward(self.native_inputs(inputs)))

    def forward_by_itself(self, inputs: Sequence[Array]) -> tuple[Array, ...]:
        """Outputs in the precision of the model itself, which must be :class:`Rounding`."""
        assert isinstance(self.trainer, Rounding)
        return self._outputs(self.trainer.forward_by_itself(self.native_inputs(inputs)))

    def through(
        self, run: Callable[[Sequence[Array]], tuple[Array, ...]], inputs: Sequence[Array]
    ) -> tuple[Array, ...]:
        """Outputs of something that takes and returns arrays as the native model does."""
        return self._outputs(run(self.native_inputs(inputs)))

    def predict(self, batches: Iterable[Sequence[Array]]) -> Iterator[tuple[Array, ...]]:
        """Outputs in evaluation mode, batch by batch."""
        return map(self._outputs, self.trainer.predict(map(self.native_inputs, batches)))

    def gradients(self, inputs: Sequence[Array], cotangents: Sequence[Array]) -> dict[str, Array]:
        """Gradient of ``sum(output * cotangent)`` in evaluation mode, by trainable parameter; views where the layout allows it.

        Both biases of a sum receive the same gradient; it counts once.
        """
        turned = [axes.to_native(array) for axes, array in zip(self.binding.outputs, cotangents, strict=True)]
        grads = self.trainer.gradients(self.native_inputs(inputs), turned)
        if not grads:
            # A model that only infers has none.
            return {}
        masked = {leaf.tensor for leaf in self.binding.masked}
        once = {name: array.copy() if name in masked else array for name, array in grads.items()}
        for leaf in self.binding.masked:
            if leaf.tensor in once:
                once[leaf.tensor][leaf.index] = 0
        for name in masked - once.keys():
            once[name] = np.zeros(self.binding.natives[name].shape, np.float32)
        whole = [
            name
            for name, layout in self.binding.parameters.items()
            if (tensors := {leaf.tensor for leaf in leaves(layout)}) and tensors <= once.keys()
        ]
        return self.binding.subset(whole).export(once, copy=False)

    def train(self, batches: Iterable[Batch], config: TrainConfig) -> LossSum:
        """One optimizer step per batch, from the weights that the model holds.

        Args:
            batches: In ONNX layout.
            config: As for :meth:`native_config`.
        """
        return self.trainer.train(
            (self.native_batch(batch, config) for batch in batches), self.native_config(config)
        )

    def judge(self, output: Array, targets: Array, config: TrainConfig) -> tuple[float, Array | None]:
        """What the loss makes of an output and targets, and its gradient; the trainer must be :class:`Judging`.

        Args:
            output: In ONNX layout, in place of the output that the loss reads.
            targets: In ONNX layout.
            config: As for :meth:`native_config`, of one loss.
        """
        assert isinstance(self.trainer, Judging)
        axes = self.binding.outputs[config.output]
        own = np.ascontiguousarray(axes.to_native(output))
        wanted = self._native_targets(targets, config)
        value, gradient = self.trainer.judge(own, wanted, self.native_config(config))
        return value, None if gradient is None else axes.to_canonical(gradient)

    def native_inputs(self, inputs: Sequence[Array]) -> list[Array]:
        """Data as the native model takes them, contiguous: in its order of inputs and axes."""
        return [np.asarray(array, order="C") for array in self.binding.native_inputs(inputs)]

    def native_batch(self, batch: Batch, config: TrainConfig) -> Batch:
        """A batch as the native model takes it.

        Args:
            batch: In ONNX layout.
            config: What the losses read, as for :meth:`native_config`.
        """
        inputs = tuple(self.native_inputs(batch.inputs))
        if not config.heads:
            return Batch(inputs, self._native_targets(batch.targets, config))
        parts = {
            head.name: self._native_targets(batch.targets[head.name], config.of_head(head))
            for head in config.heads
        }
        return Batch(inputs, joined(parts))

    def _native_targets(self, targets: Array, config: TrainConfig) -> Array:
        """The targets of one output, contiguous."""
        axis = config.class_axis if config.loss.targets == "classes" else None
        return np.ascontiguousarray(self.binding.outputs[config.output].without(axis).to_native(targets))

    def native_config(self, config: TrainConfig) -> TrainConfig:
        """Local training as the native model is told of it.

        Args:
            config: With ``class_axis`` in ONNX layout and ``slots`` by canonical name. ``masked`` is the binding's own, and so are
                ``attributes``, unless others are given.

        Raises:
            SchemaError: A slot lacks a trainable parameter, or has one that is not in the schema.
        """
        return replace(
            config,
            class_axis=self._native_axis(config.output, config.class_axis),
            heads=tuple(
                replace(head, class_axis=self._native_axis(head.output, head.class_axis))
                for head in config.heads
            ),
            attributes=config.attributes or self.attributes,
            masked=self.binding.masked,
            frozen=frozenset(
                leaf.tensor for name in config.frozen for leaf in leaves(self.binding.parameters[name])
            ),
            slots={slot: self._native_slot(slot, arrays, config) for slot, arrays in config.slots.items()},
        )

    def _native_axis(self, output: int, axis: int) -> int:
        """Where an axis of an output in ONNX layout lies; itself if it has no such axis."""
        perm = self.binding.outputs[output].perm
        return perm.index(axis) if axis in perm else axis

    @cached_property
    def attributes(self) -> dict[str, dict[str, float]]:
        """What the schema says of training, by native place."""
        return training_attributes(self.schema, self.binding)

    def _native_slot(self, slot: str, arrays: Mapping[str, Array], config: TrainConfig) -> dict[str, Array]:
        names = {p.name for p in self.schema.parameters if p.kind is Kind.TRAINABLE} - config.frozen
        missing, unknown = sorted(names - arrays.keys()), sorted(arrays.keys() - self.schema.by_name.keys())
        if missing or unknown:
            raise SchemaError(
                f"the slot {slot!r} does not fit the schema: missing {missing[:5]}, unknown {unknown[:5]}"
            )
        return self.binding.subset(names).restore(arrays)

    def _outputs(self, raw: Sequence[Array]) -> tuple[Array, ...]:
        edges = zip(self.binding.outputs, raw, strict=True)
        if any(len(axes.perm) + axes.trailing != array.ndim for axes, array in edges):
            # squeeze() takes the axis of a single example away.
            raise RefusedInput(
                f"the outputs have {[array.ndim for array in raw]} axes for these data, and others for the example",
                hint="squeeze(-1) takes no axis of the examples away, squeeze() that of a single one",
            )
        return tuple(axes.to_canonical(array) for axes, array in zip(self.binding.outputs, raw, strict=True))
