"""Activations and other functions of single elements."""

from __future__ import annotations

from collections.abc import Callable, Mapping

import numpy as np
from torch.fx import Node

from xbackend_fl.adapter import walk
from xbackend_fl.canonical import GraphBuilder, Value
from xbackend_fl.canonical.graph import activations
from xbackend_fl.canonical.graph.operands import Operand, combine, scalar
from xbfl_torch.graph import Context, Handler, operand_handler, require


def _given(function: Callable[..., Operand], **names: str) -> Handler:
    """A function whose arguments have other names here; an argument of one number may be a tensor."""

    def handle(context: Context, node: Node) -> Operand:
        a = context.arguments(node)
        numbers = {ours: _number(context, node, a[theirs]) for ours, theirs in names.items()}
        return function(context.builder, context.name(node), context.data(a["self"]), **numbers)

    return handle


def _number(context: Context, node: Node, argument: object) -> float | None:
    if argument is None or isinstance(argument, bool | int | float):
        return None if argument is None else float(argument)
    found = scalar(argument) if isinstance(argument, np.ndarray) else None
    require(found is not None, context.name(node), "an argument that depends on the data")
    return found


def _gelu(context: Context, node: Node) -> Value:
    a = context.arguments(node)
    mode = {"approximate": a["approximate"]}
    return context.builder.elementwise("Gelu", context.name(node), context.data(a["self"]), **mode)


def _glu(context: Context, node: Node) -> Operand:
    a = context.arguments(node)
    return activations.glu(context.builder, context.name(node), a["self"], a["dim"])


def _clamp(context: Context, node: Node) -> Operand:
    """Between two bounds, which may be tensors."""
    a = context.arguments(node)
    value: Operand = a["self"]
    name = context.name(node)
    bounds = [(operator, a.get(word)) for operator, word in (("Max", "min"), ("Min", "max"))]
    numbers = [bound is None or scalar(bound) is not None for _, bound in bounds]
    if all(numbers) and isinstance(value, Value):
        low, high = (None if bound is None else scalar(bound) for _, bound in bounds)
        return activations.clip(context.builder, name, value, low, high)
    for operator, bound in bounds:
        if bound is not None:
            value = combine(context.builder, operator, name, value, bound)
    return value


def _rrelu(context: Context, node: Node) -> Value:
    """In evaluation the mean of its slopes; the rehearsal says that it draws them in training."""
    a = context.arguments(node)
    slope = (float(a["lower"]) + float(a["upper"])) / 2
    return context.builder.elementwise("LeakyRelu", context.name(node), context.data(a["self"]), alpha=slope)


def _leaky(builder: GraphBuilder, name: str, value: Value, alpha: float) -> Value:
    return builder.elementwise("LeakyRelu", name, value, alpha=alpha)


def _lerp(context: Context, node: Node) -> Operand:
    a = context.arguments(node)
    return activations.lerp(context.builder, context.name(node), a["self"], a["end"], a["weight"])


def _times(context: Context, node: Node) -> Operand:
    """``addcmul`` and ``addcdiv``."""
    a = context.arguments(node)
    name, builder = context.name(node), context.builder
    operator = "Div" if "div" in str(node.target) else "Mul"
    product = combine(builder, operator, name, a["tensor1"], a["tensor2"])
    scaled = product if a["value"] == 1 else combine(builder, "Mul", name, product, float(a["value"]))
    return combine(builder, "Add", name, a["self"], scaled)


HANDLERS: Mapping[str, Handler] = {
    **{
        name.lower(): operand_handler(walk.unary(name)) for name in (*walk.NAMED_FUNCTIONS, "Sigmoid", "Tanh")
    },
    **{f"special_{name}": operand_handler(walk.unary(name.capitalize())) for name in ("erf", "round")},
    "special_expit": operand_handler(walk.unary("Sigmoid")),
    **{
        alias: operand_handler(walk.unary(name))
        for alias, name in (("absolute", "Abs"), ("negative", "Neg"), ("sgn", "Sign"))
    },
    **{
        f"arc{name}": operand_handler(walk.unary(f"A{name}"))
        for name in ("sin", "cos", "tan", "sinh", "cosh", "tanh")
    },
    "rsqrt": operand_handler(walk.unary("Pow", constant=-0.5)),
    "square": operand_handler(walk.unary("Pow", constant=2.0)),
    **dict.fromkeys(("expm1", "special_expm1"), operand_handler(activations.expm1)),
    **dict.fromkeys(("log1p", "special_log1p"), operand_handler(activations.log1p)),
    **dict.fromkeys(("exp2", "special_exp2"), operand_handler(activations.exp2)),
    "log2": operand_handler(activations.log2),
    "log10": operand_handler(activations.log10),
    **{
        name: operand_handler(walk.activation(word))
        for name, word in (
            ("relu", "relu"),
            ("relu6", "relu6"),
            ("selu", "selu"),
            ("silu", "silu"),
            ("mish", "mish"),
            ("hardswish", "hard_silu"),
            ("hardsigmoid", "hard_sigmoid"),
            ("log_sigmoid", "log_sigmoid"),
            ("softsign", "softsign"),
        )
    },
    "gelu": _gelu,
    "glu": _glu,
    "hardtanh": _given(activations.clip, low="min_val", high="max_val"),
    **dict.fromkeys(("clamp", "clip", "clamp_min", "clamp_max"), _clamp),
    "leaky_relu": _given(_leaky, alpha="negative_slope"),
    "elu": _given(activations.elu, alpha="alpha", scale="scale", input_scale="input_scale"),
    "celu": _given(activations.celu, alpha="alpha"),
    "softplus": _given(activations.softplus, beta="beta"),
    "softshrink": _given(activations.soft_shrink, limit="lambd"),
    "hardshrink": _given(activations.hard_shrink, limit="lambd"),
    "threshold": _given(activations.threshold, limit="threshold", fill="value"),
    "rrelu": _rrelu,
    "lerp": _lerp,
    **dict.fromkeys(("addcmul", "addcdiv"), _times),
}
"""Names of operations, without their overloads, to their handlers."""
