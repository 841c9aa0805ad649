"""Lends a model to a training loop that is not the toolkit's."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from contextlib import ExitStack, contextmanager
from typing import Any, final

import keras
import numpy as np
import tensorflow as tf

from xbackend_fl.adapter.asking import Asked
from xbackend_fl.adapter.contract import Array, TrainConfig
from xbackend_fl.adapter.optimizers import Optimizer
from xbackend_fl.adapter.preserve import settings_kept
from xbackend_fl.errors import UpdateRefused
from xbfl_tensorflow.gradients import fixed, same
from xbfl_tensorflow.preserve import layers_kept, parts_of, structure_kept
from xbfl_tensorflow.variables import raw, variable_names

_SETTINGS = (
    (keras.config.floatx, keras.config.set_floatx),
    (keras.config.epsilon, keras.config.set_epsilon),
    (keras.config.image_data_format, keras.config.set_image_data_format),
    (keras.config.dtype_policy, keras.config.set_dtype_policy),
    (tf.config.functions_run_eagerly, tf.config.run_functions_eagerly),
    (tf.config.optimizer.get_jit, tf.config.optimizer.set_jit),
    (
        tf.config.experimental.tensor_float_32_execution_enabled,
        tf.config.experimental.enable_tensor_float_32_execution,
    ),
)
"""What Keras and TensorFlow have for a whole process: how it is read, and set."""


@contextmanager
def lent(
    model: Any,
    trainable: Mapping[str, Any],
    frozen: Mapping[str, Any],
    config: TrainConfig,
    masks: Mapping[str, Array],
    algorithm: str,
) -> Iterator[LentModel]:
    """A model whose optimizers are watched; afterwards all but its weights is as it was before, and it is compiled as it was before.

    Args:
        model: The model.
        trainable: Its ``tf.Variable`` objects that train, by native name.
        frozen: Its variables that the course keeps as they are.
        config: Native: the rule and its slots; its optimizer is compared.
        masks: Zeros where a variable stays silent, by native name.
        algorithm: Whose rule it is, for messages.
    """
    with ExitStack() as stack:
        stack.enter_context(settings_kept(_SETTINGS))
        stack.enter_context(structure_kept(model))
        stack.enter_context(layers_kept(model))
        _compile_anew(model)
        for variable in frozen.values():
            if isinstance(variable, keras.Variable) and variable.trainable:
                stack.callback(setattr, variable, "trainable", True)  # noqa: FBT003  as setattr
                variable.trainable = False
        found = LentModel(model, trainable, config, masks, algorithm)
        stack.enter_context(found.watched())
        yield found


def _compile_anew(model: Any) -> None:
    """Give a model that its author compiled an optimizer without a past, and no graphs that were traced with the values of another round."""
    held = vars(model)
    optimizer = held.get("optimizer")
    if isinstance(optimizer, keras.optimizers.Optimizer):
        held["optimizer"] = type(optimizer).from_config(optimizer.get_config())
    held |= {name: None for name in ("train_function", "test_function", "predict_function") if name in held}


@final
class LentModel:
    """See :class:`~xbackend_fl.adapter.lending.Lent`."""

    device = "cpu"

    def __init__(
        self,
        model: Any,
        trainable: Mapping[str, Any],
        config: TrainConfig,
        masks: Mapping[str, Array],
        algorithm: str,
    ) -> None:
        self.model, self.asked = model, Asked(algorithm, adds=config.rule is not None)
        self._trainable, self._config = trainable, config
        self._masks = {id(trainable[name]): tf.constant(mask) for name, mask in masks.items()}
        self._built = _structure(model)
        self._seen: list[tuple[keras.optimizers.Optimizer, int]] = []
        self._exchanged: dict[int, tuple[Any, Any]] = {}
        rule = config.rule
        self._constants = {
            name: [tf.constant(config.slots[slot][name]) for slot in rule.slots]
            for name in trainable
            if rule is not None and all(name in config.slots[slot] for slot in rule.slots)
        }

    def tensor(self, array: Array) -> Any:
        """A tensor."""
        return tf.convert_to_tensor(array)

    def array(self, value: object) -> Array | None:
        """The values of a tensor or variable."""
        if isinstance(value, tf.Tensor | tf.Variable | keras.Variable):
            return np.array(raw(value).numpy())
        return None

    def penalty(self) -> Any:
        """See :meth:`~xbackend_fl.adapter.lending.Lent.penalty`."""
        rule = self._config.rule
        self._called(self.asked.penalty)
        if rule is None:
            return tf.zeros(())

        def watched(term: Any) -> tuple[Any, Callable[[Any], Any]]:
            def gradient(upstream: Any) -> Any:
                self._called(self.asked.added)
                return upstream

            return tf.identity(term), gradient

        return tf.custom_gradient(watched)(
            tf.add_n(
                [
                    tf.reduce_sum(rule.term(self._trainable[name].value(), slots))
                    for name, slots in self._constants.items()
                ]
            )
        )

    def _called(self, note: Callable[[], None]) -> None:
        note()
        if not tf.executing_eagerly():
            # A graph runs without this from then on.
            self.asked.compiled()

    def corrected(self, gradients: Any) -> list[Any]:
        """Gradients in the order of ``model.trainable_variables``, as the rule changes them."""
        variables = [raw(variable) for variable in self.model.trainable_variables]
        if gradients is None or len(gradients) != len(variables):
            raise UpdateRefused(
                f"called task.correct_gradients() with {'nothing' if gradients is None else f'{len(gradients)} gradients'}, "
                f"and the model has {len(variables)} trainable variables",
                hint="gradients = task.correct_gradients(tape.gradient(loss, task.model.trainable_variables))",
            )
        if self._config.rule is not None and gradients and all(gradient is None for gradient in gradients):
            raise UpdateRefused(
                "called task.correct_gradients() with no gradient at all: None for every variable",
                hint="compute the loss with task.model inside of the tape",
            )
        self._called(self.asked.corrected)
        rule, names = self._config.rule, {id(variable): name for name, variable in self._trainable.items()}
        found = []
        self._exchanged.clear()
        for gradient, variable in zip(gradients, variables, strict=True):
            slots = self._constants.get(names.get(id(variable), ""))
            if rule is None or slots is None:
                found.append(gradient)
                continue
            value = variable.value()
            whole = tf.zeros_like(value) if gradient is None else tf.convert_to_tensor(gradient)
            found.append(rule.gradient(whole, value, slots))
            self._exchanged[id(variable)] = fixed(gradient), found[-1]
        return found

    @property
    def steps(self) -> int | None:
        """As Keras's optimizers count them; of the one that made most."""
        return max((int(one.iterations.numpy()) - start for one, start in self._seen), default=None)

    @property
    def unlike(self) -> str:
        """See :attr:`~xbackend_fl.adapter.lending.Lent.unlike`."""
        found = (_unlike(optimizer, self._config.optimizer) for optimizer, _ in self._seen)
        return next(filter(None, found), "")

    def read(self) -> dict[str, Array]:
        """Copies of all variables of a model that has its layers still."""
        found = _structure(self.model)
        changed = sorted(
            name for name in self._built.keys() | found.keys() if self._built.get(name) != found.get(name)
        )
        if changed:
            raise UpdateRefused(
                f"has changed the model: {changed[0]} was {self._built.get(changed[0], 'not there')}, "
                f"and is {found.get(changed[0], 'not there any more')}",
                hint="every participant of a course trains the model that was proven: keep layers and shapes as they are",
            )
        return {
            name: np.array(raw(variable).numpy()) for name, variable in variable_names(self.model).items()
        }

    @contextmanager
    def watched(self) -> Iterator[None]:
        """Masked parts have no gradient in steps of Keras's optimizers inside, and their steps are counted."""
        original, scaled = keras.optimizers.Optimizer.apply, keras.optimizers.LossScaleOptimizer.apply
        keras.optimizers.Optimizer.apply = self._applied(original)
        keras.optimizers.LossScaleOptimizer.apply = self._scaled(scaled)
        try:
            yield
        finally:
            keras.optimizers.Optimizer.apply = original
            keras.optimizers.LossScaleOptimizer.apply = scaled

    def _scaled(self, original: Callable[..., Any]) -> Callable[..., Any]:
        def apply(optimizer: Any, grads: Any, trainable_variables: Any = None) -> Any:
            # It divides them, and hands them to another optimizer.
            if self._exchanged:
                raise UpdateRefused(
                    "called task.correct_gradients() for gradients that a LossScaleOptimizer divides afterwards, the algorithm's term too",
                    hint="loss = optimizer.scale_loss(loss + task.penalty()), and no task.correct_gradients()",
                )
            return original(optimizer, grads, trainable_variables)

        return apply

    def _applied(self, original: Callable[..., Any]) -> Callable[..., Any]:
        def apply(optimizer: Any, grads: Any, trainable_variables: Any = None) -> Any:
            # A graph that is traced calls it once for all of its steps.
            with tf.init_scope():
                if all(optimizer is not one for one, _ in self._seen):
                    self._seen.append((optimizer, int(optimizer.iterations.numpy())))
            variables = list(trainable_variables or ())
            ruled = {id(self._trainable[name]) for name in self._constants}
            if not variables or any(id(raw(variable)) in ruled for variable in variables):
                self.asked.check(optimizer)
                self._check_used(list(grads), variables)
            grads = (
                [self._masked(grad, variable) for grad, variable in zip(grads, variables, strict=True)]
                if variables
                else grads
            )
            return original(optimizer, grads, trainable_variables)

        return apply

    def _check_used(self, gradients: list[Any], variables: list[Any]) -> None:
        """Look whether a step has the gradients that the rule has changed.

        Raises:
            UpdateRefused: It has those that were to be changed.
        """
        every = [raw(variable) for variable in variables or self.model.trainable_variables]
        if len(every) != len(gradients):
            return
        steps = [
            (gradient, *self._exchanged.pop(id(variable)))
            for gradient, variable in zip(gradients, every, strict=True)
            if id(variable) in self._exchanged
        ]
        # What was returned is most often the same tensor, and then no values are compared.
        if steps and all(not same(one, changed) and same(one, given) for one, given, changed in steps):
            raise UpdateRefused(
                "called task.correct_gradients(gradients), and the optimizer was given those gradients and not what it returned",
                hint="use what it returns: gradients = task.correct_gradients(gradients)",
            )

    def _masked(self, gradient: Any, variable: Any) -> Any:
        mask = self._masks.get(id(raw(variable)))
        return gradient if mask is None or gradient is None else tf.convert_to_tensor(gradient) * mask


def _structure(model: Any) -> dict[str, str]:
    """The class of every layer and the shape of every variable, by a name of each."""
    parts = {
        f"layer {index} ({getattr(part, 'name', type(part).__name__)})": f"a {type(part).__name__}"
        for index, part in enumerate(parts_of(model))
    }
    return parts | {n: f"{list(v.shape)}" for n, v in variable_names(model).items()}


def _unlike(optimizer: Any, wanted: Optimizer) -> str:
    """How an optimizer differs from plain steps of the course's; empty if it does not, or if these are not plain."""
    if not wanted.plain:
        return ""
    if not isinstance(optimizer, keras.optimizers.SGD):
        return f"{type(optimizer).__name__} instead of SGD"
    plain = {
        "learning_rate": (optimizer.learning_rate, wanted.lr),
        "weight_decay": (optimizer.weight_decay or 0.0, wanted.weight_decay),
        "momentum": (optimizer.momentum, 0.0),
    }
    for name, (value, expected) in plain.items():
        found = float(keras.ops.convert_to_numpy(value))
        if not np.isclose(found, expected, rtol=1e-6, atol=0):
            return f"SGD with {name} {found:g} instead of {expected:g}"
    return ""
