"""Whether two gradients are the same one: by what they are, and where nothing is traced, by their values."""

from __future__ import annotations

from typing import Any

import numpy as np
import tensorflow as tf


def fixed(gradient: Any) -> Any:
    """A gradient as it is now: a variable or an array of NumPy may change, and a tensor does not."""
    if isinstance(gradient, np.ndarray):
        return gradient.copy()
    return gradient.numpy() if tf.executing_eagerly() and isinstance(gradient, tf.Variable) else gradient


def same(one: Any, other: Any) -> bool:
    """Whether two gradients are the same tensor, or have the same values where both have any now.

    Args:
        one: What a step is made with: a tensor, a variable, slices, an array or ``None``.
        other: What :func:`fixed` gave.
    """
    if one is other:
        return True
    values = [_values(gradient) for gradient in (one, other)]
    return all(value is not None for value in values) and np.array_equal(*values)


def _values(gradient: Any) -> Any:
    if isinstance(gradient, np.ndarray):
        return gradient
    eager = tf.executing_eagerly() and isinstance(gradient, tf.Tensor | tf.Variable)
    return gradient.numpy() if eager and hasattr(gradient, "numpy") else None
