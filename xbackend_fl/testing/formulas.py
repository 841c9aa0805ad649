"""The optimizers as papers and PyTorch's documentation write them, in float64 and apart from the arithmetic that is shipped."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

import numpy as np
from numpy.typing import NDArray

from xbackend_fl.adapter import Optimizer

Values = dict[str, NDArray[np.float64]]


def descend(
    rule: Optimizer,
    start: Mapping[str, NDArray[Any]],
    gradient: Callable[[Values], Values],
    steps: int,
    clip_norm: float | None = None,
) -> Values:
    """Parameters after some steps.

    Args:
        rule: The optimizer and its constants.
        start: Parameters by name.
        gradient: Gradients at given parameters.
        steps: How many steps.
        clip_norm: Largest norm of all gradients together; ``None`` for no clipping.
    """
    values = {name: value.astype(np.float64) for name, value in start.items()}
    first = {name: np.zeros_like(value) for name, value in values.items()}
    second = {name: np.zeros_like(value) for name, value in values.items()}
    for step in range(1, steps + 1):
        found = gradient(values)
        norm = np.sqrt(sum(float(np.square(g).sum()) for g in found.values()))
        factor = 1.0 if clip_norm is None else min(1.0, clip_norm / (norm + 1e-6))
        for name, value in values.items():
            values[name] = _step(rule, value, factor * found[name], first[name], second[name], step)
    return values


def _step(
    rule: Optimizer,
    value: NDArray[np.float64],
    gradient: NDArray[np.float64],
    first: NDArray[np.float64],
    second: NDArray[np.float64],
    step: int,
) -> NDArray[np.float64]:
    """One parameter's step; ``first`` and ``second`` are its state, changed in place."""
    decayed = gradient if rule.name == "adamw" else gradient + rule.weight_decay * value
    if rule.name == "sgd":
        return value - rule.lr * decayed
    if rule.name in {"momentum", "nesterov"}:
        first *= rule.momentum
        first += decayed
        return value - rule.lr * (first if rule.name == "momentum" else decayed + rule.momentum * first)
    if rule.name == "adagrad":
        second += decayed**2
        return value - rule.lr * decayed / (np.sqrt(second) + rule.eps)
    if rule.name == "rmsprop":
        second *= rule.alpha
        second += (1 - rule.alpha) * decayed**2
        return value - rule.lr * decayed / (np.sqrt(second) + rule.eps)
    first *= rule.beta1
    first += (1 - rule.beta1) * decayed
    second *= rule.beta2
    second += (1 - rule.beta2) * decayed**2
    mean, spread = first / (1 - rule.beta1**step), second / (1 - rule.beta2**step)
    shrunk = value * (1 - rule.lr * rule.weight_decay) if rule.name == "adamw" else value
    return shrunk - rule.lr * mean / (np.sqrt(spread) + rule.eps)
