"""How a TensorFlow model of any kind is called with the arrays of an example."""

from __future__ import annotations

import inspect
import re
import sys
from collections.abc import Callable, Iterator, Sequence
from typing import Any

import keras
import tensorflow as tf

from xbackend_fl.adapter.calling import Failed, Parameters, Way, by_names, likeliest, not_callable, way_of
from xbackend_fl.adapter.structure import Given, Leaf
from xbackend_fl.errors import UnsupportedError

_NUMBERED = re.compile(r"output_\d+")
_MADE_UP = re.compile(r"(keras_tensor|input|input_layer)(_\d+)?")
"""Names that Keras gives to inputs without one."""


def is_keras(model: Any) -> bool:
    """Whether ``model`` is a Keras model, of version 3 or of the legacy package."""
    legacy = sys.modules.get("tf_keras")
    return isinstance(model, keras.Model) or (legacy is not None and isinstance(model, legacy.Model))


def is_signature(model: Any) -> bool:
    """Whether ``model`` is a function of a SavedModel."""
    return hasattr(model, "structured_input_signature")


def declares_inputs(model: Any) -> bool:
    """Whether a model was made of symbolic inputs, which say their shapes."""
    return is_keras(model) and bool(getattr(model, "inputs", None))


def takes_training(model: Any) -> bool:
    """Whether a callable that is no Keras model has a training mode."""
    return "training" in _signature(model)


def call_model(model: Any, way: Way, inputs: Sequence[Any], *, training: bool) -> Any:
    """Call a model the way its kind is called, with its inputs in its own order."""
    if is_signature(model):
        return _numbered(way.call(model, inputs))
    if is_keras(model) or takes_training(model):
        return way.call(model, inputs, training=training)
    return way.call(model, inputs)


def likely_ways(model: Any, given: Given) -> Iterator[Way]:
    """Ways to call a model with an example, the likeliest first.

    Raises:
        UnsupportedError: It has another number of inputs.
    """
    if declares_inputs(model):
        return _declared_ways(model, given)
    if is_signature(model):
        _, names = model.structured_input_signature
        return by_names(
            list(names), given, lambda leaves: way_of([], list(zip(names, leaves, strict=True)), list(names))
        )
    return likeliest(_callee(model), _parameters(model), given)


def refusal_of(model: Any) -> Callable[[Failed], UnsupportedError] | None:
    """How a model is refused that takes its inputs in containers; ``None`` if it declares how it takes them."""
    if declares_inputs(model) or is_signature(model):
        return None
    return lambda failed: not_callable(_callee(model), _parameters(model), failed)


def _declared_ways(model: Any, given: Given) -> Iterator[Way]:
    structure = getattr(model, "_inputs_struct", getattr(model, "_nested_inputs", model.inputs))
    pack = keras.tree.pack_sequence_as if isinstance(model, keras.Model) else tf.nest.pack_sequence_as
    count = len(model.inputs)
    own = [str(tensor.name).partition(":")[0] for tensor in model.inputs]
    if count != len(given.arrays):
        raise UnsupportedError(
            f"the model has {count} inputs; received {len(given.arrays)}",
            hint="give one --input per input of the model",
        )

    def made(leaves: Sequence[Leaf]) -> Way:
        tree = pack(structure, list(leaves)) if count > 1 or isinstance(structure, dict) else leaves[0]
        way = way_of([("", tree)])
        at = dict(zip(way.order, zip(way.names, way.keyed, strict=True), strict=True))
        # Its graph, and what it declares, have them in the order of its inputs.
        order = tuple(leaf.index for leaf in leaves)
        names = (at[index][0] or word for index, word in zip(order, own, strict=True))
        named = tuple("" if _MADE_UP.fullmatch(name) else name for name in names)
        return Way(way.arguments, {}, order, named, tuple(at[index][1] for index in order))

    names = made([Leaf(index) for index in range(count)]).names
    return by_names(list(names), given, made, keyed=isinstance(structure, dict))


def _parameters(model: Any) -> Parameters:
    function = model.call if is_keras(model) else model.__call__ if isinstance(model, tf.Module) else model
    return Parameters.from_function(function, _is_no_data)


def _is_no_data(parameter: inspect.Parameter) -> bool:
    optional = parameter.default is not parameter.empty
    return parameter.name == "training" or (parameter.name == "mask" and optional)


def _callee(model: Any) -> str:
    return f"{'call' if is_keras(model) else '__call__'} of {type(model).__name__}"


def _signature(model: Any) -> Any:
    try:
        return inspect.signature(model.__call__ if isinstance(model, tf.Module) else model).parameters
    except (TypeError, ValueError):
        return {}


def _numbered(returned: Any) -> Any:
    """What a signature returned; TensorFlow numbers what had no names."""
    if all(_NUMBERED.fullmatch(key) for key in returned):
        return tuple(returned[key] for key in sorted(returned, key=lambda key: int(key.rpartition("_")[2])))
    return returned
