"""Trains, evaluates and moves the variables of one Keras model."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager, nullcontext, suppress
from dataclasses import replace
from itertools import chain, islice
from pathlib import Path
from typing import Any, final

import numpy as np
import tensorflow as tf

from xbackend_fl.adapter.axes import Declared, declared_axes
from xbackend_fl.adapter.batch_loss import batch_loss
from xbackend_fl.adapter.blame import explained, not_accepted
from xbackend_fl.adapter.contract import Array, Batch, LiteModel, LossSum, TrainConfig
from xbackend_fl.adapter.example import Example, checked, with_masks
from xbackend_fl.adapter.optimizers import StepNumbers
from xbackend_fl.adapter.renewing import check_same
from xbackend_fl.adapter.structure import Given
from xbackend_fl.canonical import Description, NativeTensor
from xbackend_fl.canonical.dtypes import HALVES, widened
from xbackend_fl.errors import RefusedInput
from xbfl_tensorflow import files
from xbfl_tensorflow.autocast import autocasting, no_autocast
from xbfl_tensorflow.calling import call_model
from xbfl_tensorflow.describe import describe
from xbfl_tensorflow.exporting import export_onnx
from xbfl_tensorflow.kernels import kernels_needed
from xbfl_tensorflow.lending import LentModel, lent
from xbfl_tensorflow.lite import export_lite
from xbfl_tensorflow.losses import mean_loss
from xbfl_tensorflow.masters import Masters
from xbfl_tensorflow.preserve import is_unbuilt, layers_kept, unbuilt_kept
from xbfl_tensorflow.repeated import Repeated, unoptimized
from xbfl_tensorflow.rows import numbers_of, of_any_size, rows_of, stacked
from xbfl_tensorflow.schema_attributes import schema_attributes
from xbfl_tensorflow.trace import call_once, callable_of, outputs_of, wants_autograph
from xbfl_tensorflow.variables import dtype_name, raw, trainable, variable_names


@final
class TensorFlowTrainer:
    """A Keras model, ``tf.Module`` or SavedModel behind the trainer contract.

    Args:
        model: Anything of TensorFlow that is called with tensors; its weights change only by :meth:`write` and :meth:`train`.
        example: Its arrays in ONNX layout, in any form; the schema has them in its order.
    """

    def __init__(self, model: object, example: Example) -> None:
        unbuilt = is_unbuilt(model)
        with explained(f"describing {type(model).__name__}", model):
            self._model: Any = callable_of(model)
            given, told = checked(example), declared_axes(model)
            if unbuilt and Masters(self._model):
                _build(self._model, given, told)
            self._masters = masters = Masters(self._model)
            with masters.inside(), layers_kept(model):
                described = describe(self._model, given, told)
                masters.name(described.variables)
        description = described.description.stored_in(masters.dtypes)
        self._description, self._layers = with_masks(description, given.arrays), described.layers
        self._probed = False
        if unbuilt:
            note = f"the {type(model).__name__} had no variables yet: it was called once with an example, and has them now"
            self._description = replace(self._description, notes=(*self._description.notes, note))
        self._as_returned, self._order = (
            self._description,
            tuple(range(len(self._description.schema.outputs))),
        )
        self._way = described.way
        self._declared, self._variables = described.declared, described.variables
        local = self._description.binding.local
        with masters.inside():
            self._initial_local = {name: self._variables[name].numpy().copy() for name in local}
        self._seeds = [v for name, v in self._variables.items() if name.endswith("seed_generator_state")]
        self._steps: dict[str, Callable[..., Any]] = {}
        self._outputs: Repeated | None = None
        self._derivatives: Repeated | None = None

    @property
    def description(self) -> Description:
        """Schema and binding of the model."""
        return self._description

    def return_in(self, order: Sequence[int]) -> None:
        """Return outputs in this order of the model's own."""
        self._order, self._description = tuple(order), self._as_returned.with_outputs(order)
        # Graphs that were traced return them as they were.
        self._steps.clear()

    def read(self) -> dict[str, Array]:
        """Copies of all variables; of those in half precision, their float32 masters."""
        with self._masters.inside():
            # numpy() copies.
            return {name: np.asarray(variable.numpy()) for name, variable in self._variables.items()}

    def renew(self) -> None:
        """Hold the model's variables of now: attributes may have been given others."""
        masters = self._masters if self._masters.cover(self._model) else Masters(self._model)
        with masters.inside():
            found = variable_names(self._model)
            masters.name(found)
            natives = {
                name: NativeTensor(tuple(v.shape), masters.dtypes.get(name, dtype_name(v)))
                for name, v in found.items()
            }
            check_same(
                self._description.binding.natives, natives, [n for n, v in found.items() if trainable(v)]
            )
        if masters is not self._masters or any(found[n] is not v for n, v in self._variables.items()):
            self._masters, self._variables = masters, found
            self._seeds = [v for name, v in found.items() if name.endswith("seed_generator_state")]
            # Graphs that were traced read the variables of then.
            self._steps.clear()

    def write(self, tensors: Mapping[str, Array]) -> None:
        """Set variables; those in half precision hold the rounding, their masters the numbers."""
        with self._masters.inside():
            for name, array in tensors.items():
                if not self._masters.put_bits(name, array):
                    raw(self._variables[name]).assign(widened(array))
            if not self._probed:
                self._masters.check_range()

    @contextmanager
    def preserved(self) -> Iterator[None]:
        """The model, its weights and the generators are afterwards as they were before.

        Inside, nothing else changes the model, so that it may be called by graphs.
        """
        with self._masters.inside(), layers_kept(self._model):
            before, self._probed = self.read(), True
            autograph = wants_autograph(self._model)
            self._outputs = Repeated(self._plain_outputs, 2, autograph=autograph)
            # A candidate is differentiated six times at one size, a reference fifteen times.
            self._derivatives = Repeated(self._plain_gradients, 7, autograph=autograph)
            try:
                yield
            finally:
                self._outputs = self._derivatives = None
                self.write(before)
                self._probed = False

    def reset(self, seed: int) -> None:
        """Seed every random generator and restore the other local variables."""
        self.write(self._initial_local)
        for index, variable in enumerate(self._seeds):
            variable.assign(np.array([seed & 0xFFFFFFFF, index], variable.dtype))

    def forward(self, inputs: Sequence[Array]) -> tuple[Array, ...]:
        """Outputs in evaluation mode."""
        shapes = [list(array.shape) for array in inputs]
        for shape, declared in zip(shapes, self._declared, strict=True):
            if any(m not in (None, n) for n, m in zip(shape[1:], declared[1:], strict=True)):
                raise RefusedInput(f"the Keras model declares {declared}, received {shape}")
        try:
            with self._masters.inside(), kernels_needed():
                if self._outputs is not None:
                    return self._outputs(inputs)
                return tuple(output.numpy() for output in self._plain_outputs(inputs))
        except (ValueError, tf.errors.OpError) as error:
            raise not_accepted("Keras", inputs, error, self._model) from error

    def predict(self, batches: Iterable[Sequence[Array]]) -> Iterator[tuple[Array, ...]]:
        """Outputs in evaluation mode, batch by batch, from one graph."""
        if "predict" not in self._steps:

            def outputs(inputs: Any) -> Any:
                return self._call(inputs, training=False)

            self._steps["predict"] = tf.function(
                outputs, autograph=wants_autograph(self._model), reduce_retracing=True
            )
        for inputs in batches:
            with self._masters.inside():
                answer = tuple(output.numpy() for output in self._steps["predict"](_tensors(inputs)))
            yield answer

    @property
    def precision(self) -> str:
        """What the model itself computes with."""
        return self._masters.precision

    def forward_by_itself(self, inputs: Sequence[Array]) -> tuple[Array, ...]:
        """Outputs of the model in its own precision, as float32; floats are given as float32, or in its precision if it wants them so."""
        for dtype in (np.dtype(np.float32), HALVES.get(self.precision, np.dtype(np.float32))):
            given = [array.astype(dtype) if array.dtype == np.float32 else array for array in inputs]
            try:
                with self._masters.inside(), self._masters.outside(), kernels_needed():
                    answer = self._plain_outputs(given)
                    return tuple(tf.cast(output, tf.float32).numpy() for output in answer)
            except (ValueError, TypeError, tf.errors.OpError) as error:
                refused = not_accepted("Keras", inputs, error, self._model)
        raise refused

    def gradients(self, inputs: Sequence[Array], cotangents: Sequence[Array]) -> dict[str, Array]:
        """Gradients in evaluation mode."""
        given = [*inputs, *cotangents]
        with self._masters.inside(), kernels_needed():
            if self._derivatives is not None:
                found = self._derivatives(given)
            else:
                found = tuple(grad.numpy() for grad in self._plain_gradients(given))
        return dict(zip(self._trainable(), found, strict=True))

    def train(self, batches: Iterable[Batch], config: TrainConfig) -> LossSum:
        """One step per batch with the schema's arithmetic; batches of one size in a row are one call of one graph.

        A single batch goes through a graph of its own, without a loop: it is made in half the time.
        """
        with self._masters.inside():
            loss = self._train(batches, config)
            if not self._probed:
                self._masters.check_range()
        return loss

    @contextmanager
    def lend(self, config: TrainConfig, algorithm: str, *, training: bool = True) -> Iterator[LentModel]:
        """The model; a call of it says by itself whether it trains."""
        del training
        trainable = self._trained(config)
        masks = _masks(config, trainable)
        frozen = {name: self._variables[name] for name in config.frozen}
        with (
            self._masters.inside(),
            schema_attributes(self._layers, config, self._still(config)),
            lent(self._model, trainable, frozen, config, masks, algorithm) as found,
        ):
            yield found

    def _train(self, batches: Iterable[Batch], config: TrainConfig) -> LossSum:
        slots = [
            [tf.Variable(tf.zeros_like(value)) for _ in range(config.optimizer.num_slots)]
            for value in self._trained(config).values()
        ]
        slots_of_rule = config.rule.slots if config.rule is not None else ()
        constants = [
            [tf.constant(config.slots[slot][name]) for slot in slots_of_rule if name in config.slots[slot]]
            for name in self._trained(config)
        ]
        total, number = np.zeros(2), 0
        rows = rows_of(batches)
        first = list(islice(rows, 2))
        single = len(first) == 1 and len(first[0]) == 1
        quick = unoptimized() if self._outputs else nullcontext()
        autocast, still = autocasting(self._model, config), self._still(config)
        with autocast, schema_attributes(self._layers, config, still), kernels_needed(), quick:
            for row in chain(first, rows):
                numbers = numbers_of(config, number, len(row))
                given = (*stacked(row), numbers, slots, constants)
                total += self._steps_of(config, given, single=single)(*given).numpy()
                number += len(row)
        return LossSum(float(total[0]), int(total[1]))

    def judge(self, output: Array, targets: Array, config: TrainConfig) -> tuple[float, Array | None]:
        """The loss of an output that is given, in a graph as in training."""

        def graph(value: Any, wanted: Any) -> Any:
            with tf.GradientTape() as tape:
                tape.watch(value)
                loss, _ = mean_loss(value, wanted, config)
            return loss, tape.gradient(loss, value)

        key = f"judge {config!r}"
        if key not in self._steps:
            self._steps[key] = tf.function(graph, autograph=False)
        loss, gradient = self._steps[key](tf.constant(output), tf.constant(targets))
        return float(loss), None if gradient is None else tf.convert_to_tensor(gradient).numpy()

    def trains_heads(self) -> str:
        """Whatever returns them."""
        return ""

    def autocasts(self) -> str:
        """Models of Keras's layers alone."""
        return "it holds half precision itself" if self._masters else no_autocast(self._model)

    @property
    def formats(self) -> tuple[str, ...]:
        """Keras models are written in Keras's formats too."""
        return files.formats(self._model)

    def save(self, path: Path, file_format: str | None = None) -> Path:
        """Write the weights as ``.weights.h5``, or as a checkpoint if the model is not Keras's, or as told."""
        return files.save(self._model, path, file_format or self.formats[0])

    def export_onnx(
        self, path: Path, inputs: Sequence[Array], batch_axes: Sequence[int]
    ) -> Mapping[str, str]:
        """Write the model with tf2onnx."""

        def call(tensors: Sequence[Any]) -> tuple[Any, ...]:
            returned = call_model(self._model, self._way, list(tensors), training=False)
            return tuple(leaf for _, leaf in outputs_of(returned))

        with self._masters.inside():
            return export_onnx(call, self._variables, _tensors(inputs), batch_axes, path)

    @property
    def lite_format(self) -> str:
        """LiteRT's models."""
        return "tflite"

    def export_lite(self, path: Path, inputs: Sequence[Array], batch_axes: Sequence[int]) -> LiteModel:
        """Write the model for LiteRT."""
        names = [port.name for port in self._description.schema.inputs]
        call, autograph = self._plain_outputs, wants_autograph(self._model)
        with self._masters.inside():
            return export_lite(call, _tensors(inputs), names, batch_axes, path, autograph=autograph)

    def _plain_outputs(self, inputs: Sequence[Any]) -> tuple[Any, ...]:
        return self._call(inputs, training=False)

    def _plain_gradients(self, given: Sequence[Any]) -> tuple[Any, ...]:
        """Gradients for inputs and, behind them, cotangents."""
        count = len(self._declared)
        with tf.GradientTape() as tape:
            pairs = zip(self._call(given[:count], training=False), given[count:], strict=True)
            total = tf.add_n([tf.reduce_sum(output * cotangent) for output, cotangent in pairs])
        return tuple(_gradients(tape, total, self._trainable().values()))

    def _call(self, inputs: Sequence[Any], *, training: bool) -> tuple[Any, ...]:
        returned = call_model(self._model, self._way, _tensors(inputs), training=training)
        leaves = outputs_of(returned)
        return tuple(leaves[place][1] for place in self._order)

    def _trainable(self) -> dict[str, Any]:
        shared = self._description.binding.owners
        return {n: raw(v) for n, v in self._variables.items() if trainable(v) and n in shared}

    def _still(self, config: TrainConfig) -> dict[str, Any]:
        """Statistics that are frozen."""
        names = config.frozen - self._trainable().keys()
        return {name: raw(variable) for name, variable in self._variables.items() if name in names}

    def _trained(self, config: TrainConfig) -> dict[str, Any]:
        return {name: value for name, value in self._trainable().items() if name not in config.frozen}

    def _steps_of(self, config: TrainConfig, given: Sequence[Any], *, single: bool) -> Callable[..., Any]:
        """Training steps as a graph, or one step; traced anew only when the configuration changes.

        A graph for batches of one size rounds otherwise than one for batches of any. So it is one of any from the first call, or what was trained
        before would decide about bits.
        """
        key = f"train {single} {config!r}"
        if key not in self._steps:
            made: Any = self._trace(config, single=single)
            self._steps[key] = made
            inputs, targets, numbers, *others = given
            # Some models take batches of one size only.
            with suppress(ValueError, TypeError, tf.errors.OpError):
                made.get_concrete_function(
                    *tf.nest.map_structure(of_any_size, (inputs, targets)),
                    tf.TensorSpec((None, *numbers.shape[1:]), numbers.dtype),
                    *others,
                )
        return self._steps[key]

    def _trace(self, config: TrainConfig, *, single: bool) -> Callable[..., Any]:
        trainable = self._trained(config)
        values = list(trainable.values())
        masks = _masks(config, trainable)
        # Plain arithmetic: AutoGraph need not rewrite it.
        update = tf.autograph.experimental.do_not_convert(config.optimizer.update)
        loss_of = tf.autograph.experimental.do_not_convert(batch_loss)
        rule = None
        if config.rule is not None:
            rule = tf.autograph.experimental.do_not_convert(config.rule.gradient)

        def step(inputs: Any, targets: Any, numbers: Any, slots: Any, constants: Any) -> Any:
            with tf.GradientTape() as tape:
                outputs = [tf.cast(o, tf.float32) for o in self._call(inputs, training=True)]
                loss, counted = loss_of(outputs, targets, config, mean_loss)
            counted = tf.cast(counted, tf.float64)
            sums = tf.stack([tf.cast(loss, tf.float64) * counted, counted])
            grads = _gradients(tape, loss, values)
            pairs = zip(trainable, grads, strict=True)
            grads = [g * masks[n] if n in masks else g for n, g in pairs]
            scale = _clip_scale(grads, config.clip_norm)
            if rule is not None:
                grads = [
                    rule(grad * scale, variable.value(), row) if row else grad * scale
                    for variable, grad, row in zip(values, grads, constants, strict=True)
                ]
                scale = 1.0
            given = StepNumbers(*tf.unstack(numbers))
            if config.optimizer.plain and not config.optimizer.weight_decay:
                _descend(values, grads, given.lr * scale)
                return sums
            if config.clip_norm is not None and rule is None:
                grads = [grad * scale for grad in grads]
            for variable, grad, row in zip(values, grads, slots, strict=True):
                state = tuple(slot.value() for slot in row)
                value, state = update(variable, grad, state, given, tf.sqrt)
                variable.assign(value)
                for slot, new in zip(row, state, strict=True):
                    slot.assign(new)
            return sums

        def steps(inputs: Any, targets: Any, numbers: Any, slots: Any, constants: Any) -> Any:
            def one(index: Any, total: Any) -> Any:
                given, wanted = tf.nest.map_structure(lambda item: item[index], (inputs, targets))
                return index + 1, total + step(given, wanted, numbers[index], slots, constants)

            count = tf.shape(numbers)[0]
            start = (tf.constant(0), tf.zeros(2, tf.float64))
            return tf.while_loop(lambda index, _: index < count, one, start, parallel_iterations=1)[1]

        def one_step(inputs: Any, targets: Any, numbers: Any, slots: Any, constants: Any) -> Any:
            given, wanted = tf.nest.map_structure(lambda item: item[0], (inputs, targets))
            return step(given, wanted, numbers[0], slots, constants)

        compiled: Callable[..., Any] = tf.function(
            one_step if single else steps, autograph=wants_autograph(self._model), reduce_retracing=True
        )
        return compiled


def _build(model: Any, given: Given, told: Declared) -> None:
    """Give a model without variables those of its own precision: a description of it in float32 says how it is called."""
    with layers_kept(model), unbuilt_kept(model), Masters(model).inside():
        described = describe(model, given, told)
    batch = [np.concatenate([array[:1]] * 2) for array in given.arrays]
    call_once(model, described.way, described.description.binding.native_inputs(batch))


def _tensors(inputs: Sequence[Any]) -> list[Any]:
    return [tf.convert_to_tensor(item) for item in inputs]


def _gradients(tape: Any, total: Any, variables: Iterable[Any]) -> list[Any]:
    grads = tape.gradient(total, list(variables), unconnected_gradients=tf.UnconnectedGradients.ZERO)
    return [tf.convert_to_tensor(grad) for grad in grads]


def _clip_scale(grads: list[Any], limit: float | None) -> Any:
    """What brings gradients to a global norm of at most ``limit``; ``l2_loss`` reads them without a copy of their squares."""
    if limit is None:
        return 1.0
    norm = tf.sqrt(2.0 * tf.add_n([tf.nn.l2_loss(grad) for grad in grads]))
    return tf.minimum(limit / (norm + 1e-6), 1.0)


def _descend(variables: Sequence[Any], grads: Sequence[Any], rate: Any) -> None:
    """Plain SGD, one pass over memory per variable: scaling, multiplying, subtracting and assigning would be six."""
    for variable, grad in zip(variables, grads, strict=True):
        tf.raw_ops.ResourceApplyGradientDescent(var=variable.handle, alpha=rate, delta=grad)


def _masks(config: TrainConfig, trainable: Mapping[str, Any]) -> dict[str, Any]:
    masks: dict[str, Array] = {}
    for leaf in config.masked:
        if leaf.tensor in trainable:
            mask = masks.setdefault(leaf.tensor, np.ones(leaf.full_shape, np.float32))
            mask[leaf.index] = 0
    return masks
