"""The optimizers as papers and PyTorch's documentation write them, in float64 and apart from the arithmetic that is shipped."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any, TypeAlias

import numpy as np
from numpy.typing import NDArray

from xbackend_fl.adapter import Optimizer
from xbackend_fl.adapter.optimizers.kinds.adagrad import Adagrad
from xbackend_fl.adapter.optimizers.kinds.adam import Adam
from xbackend_fl.adapter.optimizers.kinds.adamw import AdamW
from xbackend_fl.adapter.optimizers.kinds.momentum import Momentum
from xbackend_fl.adapter.optimizers.kinds.nesterov import Nesterov
from xbackend_fl.adapter.optimizers.kinds.rmsprop import RMSprop
from xbackend_fl.adapter.optimizers.kinds.sgd import SGD

Array: TypeAlias = NDArray[np.float64]
Values: TypeAlias = dict[str, Array]


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
    state = {name: [np.zeros_like(value) for _ in range(rule.num_slots)] for name, value in values.items()}
    for step in range(1, steps + 1):
        found = gradient(values)
        norm = np.sqrt(sum(float(np.square(g).sum()) for g in found.values()))
        factor = 1.0 if clip_norm is None else min(1.0, clip_norm / (norm + 1e-6))
        for name, value in values.items():
            values[name] = _step(rule, value, factor * found[name], state[name], step)
    return values


def _step(rule: Optimizer, value: Array, gradient: Array, state: list[Array], step: int) -> Array:
    """One parameter's step; its state is changed in place."""
    decayed = gradient if rule.decoupled else gradient + rule.weight_decay * value
    match rule:
        case SGD():
            return value - rule.lr * decayed
        case Momentum() | Nesterov():
            (first,) = state
            first *= rule.momentum
            first += decayed
            ahead = decayed + rule.momentum * first
            return value - rule.lr * (ahead if isinstance(rule, Nesterov) else first)
        case Adagrad():
            (second,) = state
            second += decayed**2
            return value - rule.lr * decayed / (np.sqrt(second) + rule.eps)
        case RMSprop():
            (second,) = state
            second *= rule.alpha
            second += (1 - rule.alpha) * decayed**2
            return value - rule.lr * decayed / (np.sqrt(second) + rule.eps)
        case Adam() | AdamW():
            first, second = state
            first *= rule.beta1
            first += (1 - rule.beta1) * decayed
            second *= rule.beta2
            second += (1 - rule.beta2) * decayed**2
            mean, spread = first / (1 - rule.beta1**step), second / (1 - rule.beta2**step)
            shrunk = value * (1 - rule.lr * rule.weight_decay) if rule.decoupled else value
            moved: Array = shrunk - rule.lr * mean / (np.sqrt(spread) + rule.eps)
            return moved
    # Of an optimizer that is not written here, the adapter is held to its own arithmetic.
    new, after = rule.update(value, gradient, state, rule.numbers(step), np.sqrt)
    state[:] = after
    return np.asarray(new)
