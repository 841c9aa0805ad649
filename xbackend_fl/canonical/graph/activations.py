"""Activations by the words that frameworks have for them, each in its one form."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping

from xbackend_fl.canonical.graph import axes_ops
from xbackend_fl.canonical.graph.builder import GraphBuilder
from xbackend_fl.canonical.graph.operands import Operand, combine, native_shape, scalar, unary
from xbackend_fl.canonical.value import Value

SELU = {"alpha": 1.6732632423543772, "gamma": 1.0507009873554805}


def clip(builder: GraphBuilder, name: str, value: Value, low: float | None, high: float | None) -> Value:
    """``value`` between two bounds; bounded below by zero alone it is a ReLU."""
    low = None if low is None or low == -math.inf else float(low)
    high = None if high is None or high == math.inf else float(high)
    if low == 0.0 and high is None:
        return builder.elementwise("Relu", name, value)
    bounds = {"min": low, "max": high}
    given = {word: bound for word, bound in bounds.items() if bound is not None}
    return builder.elementwise("Clip", name, value, **given) if given else value


def softplus(builder: GraphBuilder, name: str, value: Value, beta: float = 1.0) -> Value:
    """``log(1 + exp(beta · x)) / beta``."""
    if beta == 1.0:
        return builder.elementwise("Softplus", name, value)
    steep = builder.elementwise("Mul", name, value, constant=float(beta))
    return builder.elementwise("Mul", name, builder.elementwise("Softplus", name, steep), constant=1.0 / beta)


def log_sigmoid(builder: GraphBuilder, name: str, value: Value) -> Value:
    """``-softplus(-x)``."""
    turned = builder.elementwise("Mul", name, value, constant=-1.0)
    return builder.elementwise("Mul", name, builder.elementwise("Softplus", name, turned), constant=-1.0)


def elu(
    builder: GraphBuilder, name: str, value: Value, alpha: float, scale: float = 1.0, input_scale: float = 1.0
) -> Value:
    """``scale · (x if x > 0 else alpha · (exp(input_scale · x) - 1))``."""
    if input_scale == 1.0:
        made = builder.elementwise("Elu", name, value, alpha=float(alpha))
        return made if scale == 1.0 else builder.elementwise("Mul", name, made, constant=float(scale))
    # celu(x; 1/s) is x if x > 0 else (exp(s · x) - 1) / s.
    made = builder.elementwise("Celu", name, value, alpha=1.0 / input_scale)
    rest = alpha * input_scale
    return made if rest == 1.0 == scale else _two_sided(builder, name, value, made, scale, scale * rest)


def _two_sided(
    builder: GraphBuilder, name: str, value: Value, made: Value, above: float, below: float
) -> Value:
    positive = builder.elementwise("Mul", name, builder.elementwise("Relu", name, value), constant=above)
    negative = builder.elementwise(
        "Mul", name, builder.elementwise("Clip", name, made, max=0.0), constant=below
    )
    return builder.binary("Add", name, positive, negative)


def celu(builder: GraphBuilder, name: str, value: Value, alpha: float = 1.0) -> Value:
    """``x if x > 0 else alpha · (exp(x / alpha) - 1)``; with alpha one it is ELU."""
    operator = "Elu" if alpha == 1.0 else "Celu"
    return builder.elementwise(operator, name, value, alpha=float(alpha))


def soft_shrink(builder: GraphBuilder, name: str, value: Value, limit: float = 0.5) -> Value:
    """Zero within the limit, and the rest closer to zero by it."""
    return builder.elementwise("Shrink", name, value, lambd=float(limit), bias=float(limit))


def hard_shrink(builder: GraphBuilder, name: str, value: Value, limit: float = 0.5) -> Value:
    """Zero within the limit."""
    return builder.elementwise("Shrink", name, value, lambd=float(limit), bias=0.0)


def threshold(builder: GraphBuilder, name: str, value: Value, limit: float, fill: float) -> Value:
    """``x`` above the limit, else a fill."""
    if fill == 0.0:
        if limit == 0.0:
            return builder.elementwise("Relu", name, value)
        return builder.elementwise("ThresholdedRelu", name, value, alpha=float(limit))
    above = builder.elementwise("Greater", name, value, constant=float(limit))
    hidden = builder.elementwise("Not", name, above)
    return builder.broadcast("Masked", name, [value, hidden], value=float(fill))


def glu(builder: GraphBuilder, name: str, operand: Operand, axis: int) -> Operand:
    """The first half of an axis times the sigmoid of the second."""
    half = native_shape(operand)[axis] // 2
    content = axes_ops.cut(builder, name, operand, axis, 0, half)
    gate = axes_ops.cut(builder, name, operand, axis, half, 2 * half)
    return combine(builder, "Mul", name, content, unary(builder, "Sigmoid", name, gate))


def tanh_shrink(builder: GraphBuilder, name: str, value: Value) -> Value:
    """``x - tanh(x)``."""
    return builder.binary("Sub", name, value, builder.elementwise("Tanh", name, value))


def _plain(operator: str, **attributes: float | str) -> Callable[[GraphBuilder, str, Value], Value]:
    return lambda builder, name, value: builder.elementwise(operator, name, value, **attributes)


def _clipped(low: float, high: float) -> Callable[[GraphBuilder, str, Value], Value]:
    return lambda builder, name, value: clip(builder, name, value, low, high)


def _squareplus(builder: GraphBuilder, name: str, value: Value) -> Value:
    square = builder.elementwise("Pow", name, value, constant=2.0)
    root = builder.elementwise("Sqrt", name, builder.elementwise("Add", name, square, constant=4.0))
    return builder.elementwise("Mul", name, builder.binary("Add", name, value, root), constant=0.5)


PLAIN: Mapping[str, Callable[[GraphBuilder, str, Value], Value]] = {
    "relu": _plain("Relu"),
    "relu6": _clipped(0.0, 6.0),
    "elu": _plain("Elu", alpha=1.0),
    "celu": celu,
    "selu": _plain("Selu", **SELU),
    "sigmoid": _plain("Sigmoid"),
    "hard_tanh": _clipped(-1.0, 1.0),
    "tanh": _plain("Tanh"),
    "tanh_shrink": tanh_shrink,
    "soft_shrink": soft_shrink,
    "hard_shrink": hard_shrink,
    "softplus": softplus,
    "softsign": _plain("Softsign"),
    "log_sigmoid": log_sigmoid,
    "squareplus": _squareplus,
    "silu": _plain("Swish"),
    "mish": _plain("Mish"),
    "gelu": _plain("Gelu", approximate="none"),
    "hard_sigmoid": _plain("HardSigmoid", alpha=1 / 6, beta=0.5),
    "hard_silu": _plain("HardSwish"),
    "exponential": _plain("Exp"),
}
"""Activations without arguments, by the word that Keras has for each."""


def square(builder: GraphBuilder, name: str, operand: Operand) -> Operand:
    """The square of each element."""
    return unary(builder, "Pow", name, operand, constant=2.0)


def expm1(builder: GraphBuilder, name: str, operand: Operand) -> Operand:
    """``exp(x) - 1``."""
    return combine(builder, "Sub", name, unary(builder, "Exp", name, operand), 1.0)


def log1p(builder: GraphBuilder, name: str, operand: Operand) -> Operand:
    """``log(1 + x)``."""
    return unary(builder, "Log", name, combine(builder, "Add", name, operand, 1.0))


def lerp(builder: GraphBuilder, name: str, start: Operand, end: Operand, weight: Operand) -> Operand:
    """``start + weight · (end - start)``."""
    way = combine(builder, "Sub", name, end, start)
    return combine(builder, "Add", name, start, combine(builder, "Mul", name, weight, way))


def exp2(builder: GraphBuilder, name: str, operand: Operand) -> Operand:
    """Two to the power of each element."""
    return unary(builder, "Exp", name, combine(builder, "Mul", name, operand, math.log(2.0)))


def log2(builder: GraphBuilder, name: str, operand: Operand) -> Operand:
    """The logarithm to base 2."""
    return combine(builder, "Mul", name, unary(builder, "Log", name, operand), 1.0 / math.log(2.0))


def log10(builder: GraphBuilder, name: str, operand: Operand) -> Operand:
    """The logarithm to base 10."""
    return combine(builder, "Mul", name, unary(builder, "Log", name, operand), 1.0 / math.log(10.0))


def power(builder: GraphBuilder, name: str, base: Operand, exponent: Operand) -> Operand:
    """``base`` to the power ``exponent``; of a number it is an exponential, and a root is one word for itself."""
    number = scalar(base)
    if number is not None and scalar(exponent) is None and number > 0:
        return unary(builder, "Exp", name, combine(builder, "Mul", name, exponent, math.log(number)))
    written = scalar(exponent)
    if written == 1.0:
        return base
    words = {0.5: "Sqrt", -1.0: "Reciprocal"}
    if written in words:
        return unary(builder, words[written], name, base)
    return combine(builder, "Pow", name, base, exponent)
