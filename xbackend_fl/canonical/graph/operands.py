"""Parameters and constants where a graph uses them as data: a position embedding, a mask, ``x @ w + b``.

An operand is what a framework's graph carries along one edge: data (:class:`Value`), a view of parameters
(a layout), or a constant array. Operators with slots take their parameters as layouts; everything else
goes through here and becomes a ``Parameter`` or ``Constant`` node.
"""

from __future__ import annotations

import math
from typing import TypeAlias

import numpy as np

from xbackend_fl.canonical import views
from xbackend_fl.canonical.graph.builder import GraphBuilder
from xbackend_fl.canonical.graph.expressions import ComputedParameter, Scaled, spelled_normalisation
from xbackend_fl.canonical.layout import (
    Array,
    Layout,
    Native,
    Reorder,
    Reshape,
    Shape,
    Step,
    Transpose,
    inverse,
    leaves,
)
from xbackend_fl.canonical.node import AttributeValue
from xbackend_fl.canonical.value import Value
from xbackend_fl.errors import UnsupportedError

Operand: TypeAlias = Value | Layout | Array | ComputedParameter | Scaled | float | int
"""What an edge of a native graph carries."""

LARGEST_CONSTANT = 1 << 18
"""Most values of a constant that a schema stores."""


def scalar(operand: Operand) -> float | None:
    """The number that a constant with one element stands for."""
    if isinstance(operand, bool | int | float):
        return float(operand)
    if isinstance(operand, np.ndarray) and operand.size == 1:
        return float(operand.reshape(()))
    return None


def finite(number: float) -> float:
    """A number that a schema can hold: the largest float32 in place of infinity, which hides as well in a mask."""
    largest = float(np.finfo(np.float32).max)
    return min(max(float(number), -largest), largest)


def uniform(operand: Operand, other: Operand) -> float | None:
    """The number that a constant stands for beside ``other``, if it is the same everywhere and adds no axis."""
    if not isinstance(operand, np.ndarray) or operand.size <= 1:
        return scalar(operand)
    fits = np.broadcast_shapes(operand.shape, native_shape(other)) == native_shape(other)
    first = operand.reshape(-1)[0]
    return float(first) if fits and operand.dtype.kind in "fiub" and bool((operand == first).all()) else None


def is_causal_mask(operand: object) -> bool:
    """Whether a constant hides exactly what lies above the diagonal.

    Boolean masks are true where position t sees position s (PyTorch's and Keras's meaning); others are added.
    """
    if not isinstance(operand, np.ndarray) or operand.ndim < 2 or min(operand.shape) < 1:
        return False
    every = operand.reshape((-1, *operand.shape[-2:]))
    mask = every[0]
    # One row or column is broadcast over the steps, or there is one step, and no future.
    if min(mask.shape) < 2 or not (every == mask).all():
        return False
    below = np.tril(np.ones(mask.shape, bool))
    if mask.dtype == bool:
        return bool((mask == below).all())
    return bool((mask[below] == 0).all() and (mask[~below] <= -1e4).all())


def _hides_the_future(operand: Operand) -> bool:
    """Whether a constant, when it is added, is the causal mask."""
    return isinstance(operand, np.ndarray) and operand.dtype.kind == "f" and is_causal_mask(operand)


def native_shape(operand: Operand) -> Shape:
    """Shape of an operand in its own framework."""
    if isinstance(operand, Value):
        return operand.native_shape
    return tuple(np.shape(operand)) if isinstance(operand, np.ndarray | float | int) else operand.shape


def combine(builder: GraphBuilder, operator: str, name: str, left: Operand, right: Operand) -> Operand:
    """An elementwise operation of two operands with NumPy's broadcasting, at least one of them data."""
    if isinstance(left, Scaled) or isinstance(right, Scaled):
        return _normalised(builder, operator, name, left, right)
    if not isinstance(left, Value) and not isinstance(right, Value):
        shape = np.broadcast_shapes(native_shape(left), native_shape(right))
        if operator == "Mul" and any(isinstance(o, np.ndarray) and not o.any() for o in (left, right)):
            return np.zeros(shape, np.float32)
        return ComputedParameter(operator, (left, right), shape)
    for value, other in ((left, right), (right, left)):
        if operator == "Mul" and isinstance(value, Value) and isinstance(other, ComputedParameter):
            return Scaled(value, other)
        if operator == "Add" and isinstance(value, Value) and _hides_the_future(other):
            return builder.elementwise("CausalMask", name, value)
    for value, other in ((left, right), (right, left)):
        number = uniform(other, value)
        if number is None or not isinstance(value, Value):
            continue
        if number == 0.0 and operator == "Mul":
            return np.zeros(value.native_shape, np.float32)
        if number == 0.0 and operator == "Add":
            return value
        if value is left:
            return _with_constant(builder, operator, name, value, number)
        return _constant_first(builder, operator, name, number, value)
    one = left if isinstance(left, Value) else beside(builder, left, right)
    two = right if isinstance(right, Value) else beside(builder, right, left)
    return builder.binary(operator, name, one, two)


def unary(
    builder: GraphBuilder, operator: str, name: str, operand: Operand, **attributes: AttributeValue
) -> Operand:
    """An operation on every element of one operand."""
    if isinstance(operand, Step | ComputedParameter):
        constant = attributes.get("constant")
        number = float(constant) if isinstance(constant, float) else None
        return ComputedParameter(operator, (operand,), native_shape(operand), number)
    if operator == "Neg":
        return builder.elementwise("Mul", name, as_value(builder, operand), constant=-1.0)
    return builder.elementwise(operator, name, as_value(builder, operand), **attributes)


def _normalised(builder: GraphBuilder, operator: str, name: str, left: Operand, right: Operand) -> Value:
    """A batch normalisation that a model spells out."""
    scaled, shift = (left, right) if isinstance(left, Scaled) else (right, left)
    assert isinstance(scaled, Scaled)
    sign = {"Add": 1.0, "Sub": -1.0}.get(operator, 0.0) if scaled is left else float(operator == "Add")
    found = spelled_normalisation(scaled.factor, shift, sign)
    if found is None:
        one, two = (
            as_value(builder, item) if isinstance(item, Scaled | ComputedParameter) else item
            for item in (left, right)
        )
        return as_value(builder, combine(builder, operator, name, one, two))
    channels = [axis for axis, n in enumerate(scaled.factor.shape) if n != 1]
    axis = channels[0] - len(scaled.factor.shape) if channels else -1
    roles: dict[str, Layout | None] = {
        "weight": found.weight,
        "bias": found.bias,
        "mean": found.mean,
        "variance": found.variance,
    }
    flat = {
        role: None if layout is None else views.reshaped(layout, (math.prod(layout.shape),))
        for role, layout in roles.items()
    }
    builder.inference_only(f"{name!r} normalises with stored statistics and never updates them")
    # The momentum is no part of the function, and nothing in a graph tells it; this is the default of Keras.
    return builder.channelwise(
        "BatchNormalization", name, scaled.value, axis, layouts=flat, epsilon=found.epsilon, momentum=0.99
    )


def _carried_out(builder: GraphBuilder, computed: ComputedParameter) -> Value:
    """Arithmetic on parameters as nodes: what a layout step cannot say, the graph does."""
    first, *rest = computed.operands
    name = computed.operator.lower()
    if computed.operator == "Concat":
        shapes = [native_shape(item) for item in computed.operands]
        axis = next(
            i for i, sizes in enumerate(zip(*shapes, computed.shape, strict=True)) if sizes[0] != sizes[-1]
        )
        return builder.concat(name, [as_value(builder, item) for item in computed.operands], axis)
    value = as_value(builder, first)
    if not rest:
        options = {} if computed.constant is None else {"constant": computed.constant}
        return as_value(builder, unary(builder, computed.operator, name, value, **options))
    (second,) = rest
    other = second if scalar(second) is not None else as_value(builder, second)
    return as_value(builder, combine(builder, computed.operator, name, value, other))


def as_value(builder: GraphBuilder, operand: Operand) -> Value:
    """An operand as data, canonical axes in native order.

    A box of a parameter becomes the whole parameter and a Slice, so that nothing of it is left behind.
    """
    if isinstance(operand, Value):
        return operand
    if isinstance(operand, Scaled):
        return as_value(
            builder, combine(builder, "Mul", "scaled", operand.value, as_value(builder, operand.factor))
        )
    if isinstance(operand, ComputedParameter):
        return _carried_out(builder, operand)
    if isinstance(operand, np.ndarray | float | int):
        array = np.asarray(operand)
        if array.ndim > 1 and array.dtype.kind == "f" and bool((array == array.reshape(-1)[0]).all()):
            # One number, in as many places as the batch has: a state that starts at zero.
            return expand(builder, "constant", constant_value(builder, array.reshape(-1)[:1]), array.shape)
        if _repeats(builder, array):
            return expand(builder, "constant", constant_value(builder, array[:1]), array.shape)
        return constant_value(builder, array)
    if views.whole(operand):
        return parameter_value(builder, operand)
    match operand:
        case Native():
            value = parameter_value(builder, Native(operand.tensor, operand.full_shape))
            for axis, start, stop in operand.box:
                value = builder.slice(f"{operand.tensor}.slice", value, axis, start, stop)
            return value
        case Transpose():
            return builder.transpose(as_value(builder, operand.base), operand.perm)
        case Reshape():
            return _static_reshape(builder, as_value(builder, operand.base), operand.shape)
        case _:
            raise UnsupportedError(f"part of a parameter behind a {operand.step} step is used as data")


def expand(builder: GraphBuilder, name: str, value: Value, shape: Shape) -> Value:
    """Broadcast ``value`` to the native ``shape``; an axis 0 that grows to the size of the batch is the batch."""
    native = value.native_shape
    if len(native) < len(shape):
        lead = (1,) * (len(shape) - len(native))
        value = _static_reshape(builder, value, (*lead, *native))
    if value.native_shape == shape:
        return value
    value = builder.plain(value)
    # An axis that does not grow is 1, which leaves it as long as it is.
    sizes = [1 if n == m else n for n, m in zip(shape, value.shape, strict=True)]
    if sizes[0] != 1 and shape[0] == builder.batch:
        sizes[0] = 0
    (out,) = builder.add("Expand", name, [value], [shape], attributes={"shape": tuple(sizes)})
    return Value(out, shape, tuple(range(len(shape))))


def _with_constant(builder: GraphBuilder, operator: str, name: str, value: Value, number: float) -> Value:
    match operator:
        case "Sub":
            return builder.elementwise("Add", name, value, constant=-number)
        case "Div":
            return builder.elementwise("Mul", name, value, constant=1.0 / number if number else math.nan)
        case "Max":
            return builder.elementwise("Clip", name, value, min=number)
        case "Min":
            return builder.elementwise("Clip", name, value, max=number)
        case _:
            return builder.elementwise(operator, name, value, constant=number)


def _constant_first(builder: GraphBuilder, operator: str, name: str, number: float, value: Value) -> Value:
    match operator:
        case "Sub":
            turned = builder.elementwise("Mul", name, value, constant=-1.0)
            return builder.elementwise("Add", name, turned, constant=number)
        case "Div":
            turned = builder.elementwise("Reciprocal", name, value)
            return turned if number == 1.0 else builder.elementwise("Mul", name, turned, constant=number)
        case "Pow":
            raise UnsupportedError(f"{name!r}: a number to the power of data has no canonical form")
        case _:
            return _with_constant(builder, operator, name, value, number)


def _repeats(builder: GraphBuilder, array: Array) -> bool:
    """Whether a constant holds the same for every example of the batch that the graph was made with."""
    return array.ndim > 1 and array.shape[0] == builder.batch > 1 and bool((array == array[:1]).all())


def beside(builder: GraphBuilder, operand: Operand, other: Operand) -> Value:
    """A parameter or constant that is combined with ``other``, in the order of its canonical axes."""
    if isinstance(operand, np.ndarray) and operand.ndim == len(native_shape(other)):
        operand = operand[:1] if _repeats(builder, operand) else operand
    shape = native_shape(operand)
    fits = isinstance(other, Value) and len(shape) <= len(other.shape)
    if not (fits and isinstance(operand, np.ndarray | Step)) or not isinstance(other, Value):
        return as_value(builder, operand)
    rank = len(other.shape)
    full = (1,) * (rank - len(shape)) + shape
    turn = inverse(other.perm)
    if isinstance(operand, np.ndarray):
        made = _constant_node(builder, operand.reshape(full).transpose(turn))
    else:
        assert isinstance(operand, Step)
        layout: Layout = views.transposed(views.reshaped(operand, full), turn)
        if other.order is not None and full[-1] != 1:
            layout = Reorder(layout, rank - 1, other.order)
        made = _parameter_node(builder, layout)
    # The node yields fewer leading ones than this shape says; its reader broadcasts anyway.
    return Value(made, tuple(full[axis] for axis in turn), other.perm, other.order)


def _stripped(shape: Shape) -> Shape:
    """``shape`` without leading ones: broadcasting ignores them, and models disagree about them."""
    keep = next((i for i, n in enumerate(shape) if n != 1), max(len(shape) - 1, 0))
    return shape[keep:]


def parameter_value(builder: GraphBuilder, layout: Layout) -> Value:
    """A parameter as data, whatever part of a tensor its layout is: a node that yields it."""
    short = _stripped(layout.shape)
    value = Value(_parameter_node(builder, layout), short, tuple(range(len(short))))
    return _static_reshape(builder, value, layout.shape)


def _parameter_node(builder: GraphBuilder, layout: Layout) -> str:
    """A node that yields a parameter, without leading ones; the name of its value."""
    short = views.reshaped(layout, _stripped(layout.shape))
    name = next(leaves(layout)).tensor
    (out,) = builder.add("Parameter", name, [], [short.shape], layouts={"weight": short})
    return out


def constant_value(builder: GraphBuilder, array: Array) -> Value:
    """A constant as data: a node that yields it."""
    short = _stripped(array.shape)
    value = Value(_constant_node(builder, array), short, tuple(range(len(short))))
    return _static_reshape(builder, value, array.shape)


def _constant_node(builder: GraphBuilder, array: Array) -> str:
    """A node that yields a constant, without leading ones; the name of its value."""
    if array.size > LARGEST_CONSTANT:
        raise UnsupportedError(
            f"a constant tensor of {array.size} values enters the graph; the limit is {LARGEST_CONSTANT}",
            hint="compute it inside the model from smaller constants, or pass it as an input",
        )
    short = _stripped(array.shape)
    whole = array.dtype.kind in "iub"
    flat: AttributeValue = (
        tuple(int(n) for n in array.flat) if whole else tuple(finite(n) for n in array.flat)
    )
    dtype = "bool" if array.dtype.kind == "b" else "int64" if whole else "float32"
    attributes: dict[str, AttributeValue] = {"shape": short, "value": flat, "dtype": dtype}
    (out,) = builder.add("Constant", "constant", [], [short], attributes=attributes)
    return out


def _static_reshape(builder: GraphBuilder, value: Value, shape: Shape) -> Value:
    """A reshape whose sizes all belong to the model, not to the batch."""
    if value.native_shape == shape:
        return value
    value = builder.plain(value)
    (out,) = builder.add("Reshape", f"{value.name}.reshape", [value], [shape])
    return Value(out, shape, tuple(range(len(shape))))
