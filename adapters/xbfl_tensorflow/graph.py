"""What the operation handlers share while one graph is walked."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from functools import partial
from typing import Any, TypeAlias

import keras
import tensorflow as tf

from xbackend_fl.adapter import walk
from xbackend_fl.adapter.walk import Function, Walk
from xbackend_fl.canonical import GraphBuilder, Value
from xbackend_fl.canonical.graph import activations
from xbackend_fl.canonical.graph.operands import Operand
from xbackend_fl.canonical.layout import Native
from xbackend_fl.errors import UnsupportedError
from xbfl_tensorflow.variables import raw

require = partial(walk.require, "keras layer")
"""Refuses a layer unless a condition holds."""


class Context(Walk[str, Operand]):
    """State of one walk of a graph, whose tensors are told by their names.

    Attributes:
        handles: What each resource tensor, by name, gives access to; ``None`` for a stranger's variable.
        lookups: Resource tensors, by name, that are no variables: what a preprocessing layer looks up.
        names: Variable (by identity) to its native name.
        layers: Layer by native place: its name, and ``@2`` and so on for its further calls.
        active: Whether a marked call, by identity, drops or moves statistics in training.
        trains: The same of the call that is being told.
        prefix: Path of the nested model that is being walked.
        library: Functions that the graph calls, by name.
        refused: Layers that have no canonical form as a whole.
        as_data: Variables that are data wherever they are read.
    """

    def __init__(self, builder: GraphBuilder, names: dict[int, str]) -> None:
        super().__init__(builder)
        self.handles: dict[str, Native | None] = {}
        self.lookups: dict[str, Any] = {}
        self.names = names
        self.layers: dict[str, Any] = {}
        self.prefix = ""
        self.library: dict[str, Any] = {}
        self.active: dict[int, bool] = {}
        self.trains = True
        self.refused: list[Any] = []
        self.as_data: frozenset[str] = frozenset()

    def child(self, prefix: str) -> Context:
        """A context for a graph that this one calls: the same builder, its own tensors."""
        inner = Context(self.builder, self.names)
        inner.library = self.library
        inner.active = self.active
        inner.as_data = self.as_data
        inner.layers, inner.prefix = self.layers, f"{self.prefix}{prefix}/"
        return inner

    def tensor(self, tensor: Any) -> Operand:
        """What a tensor of the graph stands for."""
        if tensor.name not in self.values:
            raise UnsupportedError(
                f"tensorflow tensor {tensor.name!r} comes from an operation that has no value in a graph, such as one branch of a condition",
                hint="compute both and choose with tf.where(condition, a, b)",
            )
        return self.values[tensor.name]

    def knows(self, arguments: Any) -> bool:
        """Whether every tensor of the graph among some arguments stands for something."""
        tensors = (item for item in tf.nest.flatten(arguments) if tf.is_tensor(item))
        return all(hasattr(item, "numpy") or item.name in self.values for item in tensors)

    def get(self, argument: Any) -> Any:
        """An argument of a call with tensors replaced by what they stand for."""
        if isinstance(argument, tf.Variable | keras.Variable):
            return self.native(argument)
        if tf.is_tensor(argument):
            return argument.numpy() if hasattr(argument, "numpy") else self.tensor(argument)
        if isinstance(argument, list | tuple):
            return [self.get(item) for item in argument]
        return argument

    def name(self, layer: Any) -> str:
        """Node name of a layer."""
        return f"{self.prefix}{layer.name}"

    def register_call(self, layer: Any) -> str:
        """A new native place: a call of a layer whose training attributes the schema says."""
        name, count = self.name(layer), 1
        place = name
        while place in self.layers:
            count += 1
            place = f"{name}@{count}"
        self.layers[place] = layer
        return place

    def native(self, variable: Any) -> Native:
        """The layout leaf of a variable."""
        if not isinstance(variable, tf.Variable | keras.Variable):
            raise UnsupportedError(
                f"a layer computes one of its weights {list(variable.shape)} from others",
                hint="build the layer so that the weight is a variable of its own",
            )
        name = self.names.get(id(raw(variable)))
        if name is None:
            raise UnsupportedError(f"the variable {variable.name!r} belongs to no layer of the model")
        return Native(name, tuple(variable.shape))


def static_shape(tensor: Any) -> tuple[int, ...]:
    """Shape of a tensor of the graph.

    Raises:
        UnsupportedError: It depends on the data.
    """
    if not tensor.shape.is_fully_defined():
        raise UnsupportedError(f"the shape of tensorflow tensor {tensor.name!r} depends on the data")
    return tuple(int(n) for n in tensor.shape)


def family(layer: Any) -> str:
    """``keras`` or ``tf_keras`` for a layer that Keras itself defines; empty for anybody else's."""
    package, _, rest = type(layer).__module__.partition(".")
    return package if package in {"keras", "tf_keras"} and rest.startswith("src.") else ""


def channel_axis(layer: Any) -> int:
    """Native channel axis of a layer with a ``data_format``."""
    return 1 if layer.data_format == "channels_first" else -1


def spatial(layer: Any, value: Value) -> tuple[int, ...]:
    """Native spatial sizes in front of a layer."""
    shape = value.native_shape
    return shape[2:] if channel_axis(layer) == 1 else shape[1:-1]


def node_name(context: Context, node: Any) -> str:
    """Name of a graph operation."""
    return context.prefix + str(node.name)


Handler: TypeAlias = Callable[[Context, Any, Value], Value]
"""A layer with one data input."""

Operation: TypeAlias = Callable[[Context, Any, list[Operand]], "Operand | list[Operand]"]
"""A graph operation with what its inputs stand for, resources aside."""


def operand_handler(function: Function) -> Operation:
    """A handler that makes a function of all inputs."""
    return lambda context, node, arguments: function(context.builder, node_name(context, node), *arguments)


_WORDS: Mapping[str, Callable[[GraphBuilder, str, Value], Operand]] = {
    "leaky_relu": lambda builder, name, value: builder.elementwise("LeakyRelu", name, value, alpha=0.2),
    "threshold": lambda builder, name, value: activations.threshold(builder, name, value, 1.0, 0.0),
    "glu": lambda builder, name, value: activations.glu(builder, name, value, -1),
    "swish": activations.PLAIN["silu"],
    "tanh_shrink": activations.tanh_shrink,
}
_ALONG = {"softmax": "Softmax", "log_softmax": "LogSoftmax"}


def knows_activation(function: Any) -> bool:
    """Whether an activation is one of Keras's own that has a canonical form."""
    word = getattr(function, "__name__", type(function).__name__)
    package = getattr(function, "__module__", "").partition(".")[0]
    named = word in activations.PLAIN or word in _WORDS or word in _ALONG or word == "linear"
    return function is None or (named and package in {"keras", "tf_keras"})


def activation(context: Context, name: str, function: Any, value: Value) -> Value:
    """An activation function of Keras; ``linear`` adds nothing."""
    word = getattr(function, "__name__", type(function).__name__)
    require(knows_activation(function), name, f"the activation {word!r} has no canonical form")
    if function is None or word == "linear":
        return value
    if word in _ALONG:
        return context.builder.along(_ALONG[word], f"{name}.{word}", value, -1)
    where = f"{name}.{word}"
    if word == "hard_sigmoid" and function.__module__.startswith("tf_keras"):
        return context.builder.elementwise("HardSigmoid", where, value, alpha=0.2, beta=0.5)
    made = _WORDS.get(word) or activations.PLAIN[word]
    return context.data(made(context.builder, where, value))
