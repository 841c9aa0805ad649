"""Every framework's operations are NumPy's in float64, and so are their gradients, whichever axis holds the classes."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
import tensorflow as tf
import torch

from xbackend_fl.losses import NumpyOperations, Operations
from xbfl_tensorflow.losses import TensorFlowOperations
from xbfl_torch.losses import TorchOperations

DRAW = np.random.default_rng(0)
SIGNED = DRAW.standard_normal((3, 4, 5)) * 30
POSITIVE = np.abs(SIGNED) + 0.01
SHARES = DRAW.random((3, 4, 5))

FORMULAS: dict[str, tuple[Any, Callable[[Any, Any, Operations], Any]]] = {
    "exp": (SIGNED / 30, lambda x, _, ops: ops.exp(x)),
    "log": (POSITIVE, lambda x, _, ops: ops.log(x)),
    "log1p": (POSITIVE, lambda x, _, ops: ops.log1p(x)),
    "abs": (SIGNED, lambda x, _, ops: ops.abs(x)),
    "sqrt": (POSITIVE, lambda x, _, ops: ops.sqrt(x)),
    "maximum": (SIGNED, lambda x, y, ops: ops.maximum(ops.maximum(x, 0.5), y)),
    "maximum of a number": (SIGNED, lambda x, _, ops: ops.maximum(-2, x)),
    "where": (SIGNED, lambda x, y, ops: ops.where(x > y, ops.where(y < 0.3, 0, x * x), 1.5 * x)),
    "squared_error": (SIGNED, lambda x, y, ops: ops.squared_error(x, y)),
    "sigmoid_cross_entropy": (SIGNED, lambda x, y, ops: ops.sigmoid_cross_entropy(x, y)),
    "means and sums": (SIGNED, lambda x, y, ops: ops.mean(x * x) + ops.total(y * x)),
    "counts": (SIGNED, lambda x, _, ops: x / ops.as_float(ops.count(x > 0), x)),
    "powers": (POSITIVE, lambda x, y, _: (1 + x) ** 0.5 + (1 - y) ** 2 * x),
}  # fmt: skip

OF_CLASSES: dict[str, Callable[[Any, Any, Operations], Any]] = {
    "softmax_cross_entropy": lambda x, y, ops: ops.softmax_cross_entropy(x, y),
    "log_softmax": lambda x, _, ops: ops.log_softmax(x),
    "gather": lambda x, y, ops: ops.gather(x * x, y),
    "sum": lambda x, _, ops: ops.sum(x * x),
    "row": lambda x, y, ops: ops.gather(x * ops.row([1.0, -2.0, 0.5, 3.0], x), y),
}


def agree(formula: Callable[[Any, Any, Operations], Any], x: Any, y: Any, axis: int) -> None:
    """The value in each framework against float64; the gradient of its weighted sum against differences in float64."""
    expected = np.asarray(formula(x, y, NumpyOperations(axis)))
    weights = np.random.default_rng(1).random(expected.shape)
    direction = np.random.default_rng(2).standard_normal(x.shape)
    step = 1e-6
    up, down = (formula(x + s * step * direction, y, NumpyOperations(axis)) for s in (1, -1))
    slope = ((up - down) * weights).sum() / (2 * step)

    given = torch.tensor(x, requires_grad=True)
    found = formula(given, torch.tensor(y), TorchOperations(axis))
    np.testing.assert_allclose(found.detach().numpy(), expected, rtol=1e-12, atol=1e-12)
    (found * torch.tensor(weights)).sum().backward()  # type: ignore[no-untyped-call]
    assert given.grad is not None
    assert (given.grad.numpy() * direction).sum() == pytest.approx(slope, rel=1e-5, abs=1e-6)

    variable = tf.Variable(x)
    with tf.GradientTape() as tape:
        answer = formula(tf.convert_to_tensor(variable), tf.constant(y), TensorFlowOperations(axis))
        total = tf.reduce_sum(answer * weights)
    np.testing.assert_allclose(answer.numpy(), expected, rtol=1e-12, atol=1e-12)
    gradient = tf.convert_to_tensor(tape.gradient(total, variable)).numpy()
    assert (gradient * direction).sum() == pytest.approx(slope, rel=1e-5, abs=1e-6)


@pytest.mark.parametrize("name", FORMULAS)
def test_operations_of_numbers(name: str) -> None:
    x, formula = FORMULAS[name]
    agree(formula, x, SHARES, -1)


@pytest.mark.parametrize("axis", [1, 2, 3, -1])
@pytest.mark.parametrize("name", OF_CLASSES)
def test_operations_over_classes(name: str, axis: int) -> None:
    x = np.moveaxis(DRAW.standard_normal((3, 5, 6, 4)) * 5, -1, axis)
    agree(OF_CLASSES[name], x, DRAW.integers(0, 4, (3, 5, 6)), axis)
