"""What the operation handlers share while one graph is walked."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from typing import Any, TypeAlias

import keras

from xbackend_fl.canonical import GraphBuilder, Value
from xbackend_fl.canonical.layout import Native
from xbackend_fl.errors import UnsupportedError


class Context:
    """State of one walk.

    Attributes:
        builder: Receives the nodes.
        values: Symbolic tensor (by identity) to the value it stands for.
        names: Variable (by identity) to its native name.
        layers: Node name to the layer it came from.
        prefix: Path of the nested model that is being walked.
    """

    def __init__(self, builder: GraphBuilder, names: dict[int, str]) -> None:
        self.builder = builder
        self.values: dict[int, Value] = {}
        self.names = names
        self.layers: dict[str, Any] = {}
        self.prefix = ""

    def get(self, argument: Any) -> Any:
        """An argument with symbolic tensors replaced by their values."""
        if isinstance(argument, keras.KerasTensor):
            return self.values[id(argument)]
        if isinstance(argument, list | tuple):
            return [self.get(item) for item in argument]
        return argument

    def name(self, layer: Any) -> str:
        """Node name of a layer."""
        name = f"{self.prefix}{layer.name}"
        self.layers[name] = layer
        return name

    def native(self, variable: Any) -> Native:
        """The layout leaf of a variable."""
        if id(variable) not in self.names:
            raise UnsupportedError(f"the variable {variable.path!r} belongs to no layer of the model")
        return Native(self.names[id(variable)], tuple(variable.shape))


def require(condition: bool, where: str, reason: str) -> None:  # noqa: FBT001  reads as an assertion
    """Refuse the layer ``where`` for ``reason`` unless ``condition`` holds."""
    if not condition:
        raise UnsupportedError(f"keras layer {where!r}: {reason}")


def channel_axis(layer: Any) -> int:
    """Native channel axis of a layer with a ``data_format``."""
    return 1 if layer.data_format == "channels_first" else -1


def spatial(layer: Any, value: Value) -> tuple[int, ...]:
    """Native spatial sizes in front of a layer."""
    shape = value.native_shape
    return shape[2:] if channel_axis(layer) == 1 else shape[1:-1]


def same_pads(
    sizes: Sequence[int], kernel: Sequence[int], strides: Sequence[int], dilations: Sequence[int]
) -> tuple[int, ...]:
    """ONNX pads (begins, then ends) of TensorFlow's SAME rule at these input sizes."""
    begin, end = [], []
    for n, k, s, d in zip(sizes, kernel, strides, dilations, strict=True):
        total = max((math.ceil(n / s) - 1) * s + d * (k - 1) + 1 - n, 0)
        begin.append(total // 2)
        end.append(total - total // 2)
    return (*begin, *end)


Handler: TypeAlias = Callable[[Context, Any, Value], Value]
"""A layer with one data input."""

_FUNCTIONS: dict[str, tuple[str, dict[str, float | str]]] = {
    "relu": ("Relu", {}),
    "relu6": ("Clip", {"min": 0.0, "max": 6.0}),
    "leaky_relu": ("LeakyRelu", {"alpha": 0.2}),
    "elu": ("Elu", {"alpha": 1.0}),
    "selu": ("Selu", {"alpha": 1.6732632423543772, "gamma": 1.0507009873554805}),
    "sigmoid": ("Sigmoid", {}),
    "tanh": ("Tanh", {}),
    "softplus": ("Softplus", {}),
    "softsign": ("Softsign", {}),
    "silu": ("Swish", {}),
    "mish": ("Mish", {}),
    "gelu": ("Gelu", {"approximate": "none"}),
    "hard_sigmoid": ("HardSigmoid", {"alpha": 1 / 6, "beta": 0.5}),
    "hard_silu": ("HardSwish", {}),
    "exponential": ("Exp", {}),
}


def activation(context: Context, name: str, function: Any, value: Value) -> Value:
    """An activation function given by name or as a Keras function; ``linear`` adds nothing."""
    word = getattr(function, "__name__", type(function).__name__)
    if function is None or word == "linear":
        return value
    if word in {"softmax", "log_softmax"}:
        operator = {"softmax": "Softmax", "log_softmax": "LogSoftmax"}[word]
        return context.builder.along(operator, f"{name}.{word}", value, -1)
    known = word in _FUNCTIONS and function is getattr(keras.activations, word, None)
    require(known, name, f"the activation {word!r} has no canonical form")
    operator, attributes = _FUNCTIONS[word]
    return context.builder.elementwise(operator, f"{name}.{word}", value, **attributes)
