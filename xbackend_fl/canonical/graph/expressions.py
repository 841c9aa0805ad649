"""Parameters behind arithmetic, and the batch normalisation that hides in it.

``tf.nn.batch_normalization`` is ``x · inv + (beta - mean · inv)`` with ``inv = rsqrt(variance + epsilon) · gamma``.
A SavedModel holds nothing else of the layer, so the roles are read off the formula, never off names.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TypeAlias

import numpy as np

from xbackend_fl.canonical.layout import Array, Layout, Shape, Step
from xbackend_fl.canonical.value import Value


@dataclass(frozen=True, eq=False)
class ComputedParameter:
    """Arithmetic on parameters that no layout step expresses, such as ``rsqrt(variance + epsilon)``.

    Attributes:
        operator: The operator.
        operands: What it is applied to.
        shape: Native shape.
        constant: Its ``constant`` attribute, if it has one.
    """

    operator: str
    operands: tuple[Expression, ...]
    shape: Shape
    constant: float | None = None


@dataclass(frozen=True, eq=False)
class Scaled:
    """Data times computed parameters, before anything is added to it."""

    value: Value
    factor: ComputedParameter

    @property
    def shape(self) -> Shape:
        """Native shape."""
        return self.value.native_shape


Expression: TypeAlias = Layout | Array | ComputedParameter | float | int
"""What parameters are computed from."""


@dataclass(frozen=True)
class Normalisation:
    """The parameters of a batch normalisation, in native shapes."""

    mean: Layout
    variance: Layout
    weight: Layout | None
    bias: Layout | None
    epsilon: float


def spelled_normalisation(factor: ComputedParameter, shift: object, sign: float) -> Normalisation | None:
    """Read ``x · factor + sign · shift`` as a batch normalisation; ``None`` if it is not one."""
    inverse, weight = _split(factor)
    root = _pow(inverse)
    if root is None:
        return None
    variance, epsilon = _sum_with_constant(root)
    mean, bias = _centre(factor, shift, sign)
    if variance is None or mean is None:
        return None
    return Normalisation(mean, variance, weight, bias, epsilon)


def _split(factor: ComputedParameter) -> tuple[Expression, Layout | None]:
    """``rsqrt(…)`` and gamma of ``rsqrt(…) · gamma``."""
    if factor.operator != "Mul":
        return factor, None
    layouts = [item for item in factor.operands if isinstance(item, Step)]
    others = [item for item in factor.operands if isinstance(item, ComputedParameter)]
    return (others[0], layouts[0]) if len(layouts) == len(others) == 1 else (factor, None)


def _pow(expression: Expression) -> Expression | None:
    """What ``expression`` is the inverse square root of."""
    if (
        isinstance(expression, ComputedParameter)
        and expression.operator == "Pow"
        and expression.constant == -0.5
    ):
        return expression.operands[0]
    return None


def _sum_with_constant(expression: Expression) -> tuple[Layout | None, float]:
    if not isinstance(expression, ComputedParameter) or expression.operator != "Add":
        return None, 0.0
    layouts = [item for item in expression.operands if isinstance(item, Step)]
    numbers = [item for item in expression.operands if isinstance(item, np.ndarray | float | int)]
    if len(layouts) != 1 or len(numbers) != 1 or np.size(numbers[0]) != 1:
        return None, 0.0
    # A float32 constant of the graph, rounded to what its author wrote.
    return layouts[0], float(f"{float(np.asarray(numbers[0]).item()):.6g}")


def _centre(factor: ComputedParameter, shift: object, sign: float) -> tuple[Layout | None, Layout | None]:
    """Mean and beta of ``beta - mean · factor``, or mean alone."""
    if not isinstance(shift, ComputedParameter):
        return None, None
    if shift.operator == "Sub" and sign > 0:
        bias, product = shift.operands
        return (_mean(factor, product), bias) if isinstance(bias, Step) else (None, None)
    if shift.operator == "Mul":
        negated = [
            item for item in shift.operands if isinstance(item, ComputedParameter) and item.operator == "Neg"
        ]
        if sign > 0 and negated:
            plain = [item for item in shift.operands if item is not negated[0]]
            mean = negated[0].operands[0]
            return (mean, None) if plain == [factor] and isinstance(mean, Step) else (None, None)
        return (_mean(factor, shift), None) if sign < 0 else (None, None)
    return None, None


def _mean(factor: ComputedParameter, product: object) -> Layout | None:
    if not isinstance(product, ComputedParameter) or product.operator != "Mul":
        return None
    others = [item for item in product.operands if item is not factor]
    return others[0] if len(others) == 1 and isinstance(others[0], Step) else None
