"""Augmentations of 8 features, right and wrong."""

from __future__ import annotations

from typing import Any

import numpy as np


def noisy(inputs: np.ndarray, targets: np.ndarray, rng: np.random.Generator) -> Any:
    return inputs + rng.normal(0, 0.3, inputs.shape), targets


def longer(inputs: np.ndarray, targets: np.ndarray, _rng: np.random.Generator) -> Any:
    return np.concatenate([inputs, inputs], 1), targets


def alone(inputs: np.ndarray, _targets: np.ndarray, _rng: np.random.Generator) -> Any:
    return inputs


def raises(_inputs: np.ndarray, _targets: np.ndarray, _rng: np.random.Generator) -> Any:
    raise KeyError("brightness")


def twice(inputs: tuple[np.ndarray, ...], targets: np.ndarray, _rng: np.random.Generator) -> Any:
    first, second = inputs
    return (first * 2, second), targets[::-1].copy()


def beyond(inputs: np.ndarray, targets: np.ndarray, _rng: np.random.Generator) -> Any:
    return inputs, targets + 5


def not_numbers(inputs: np.ndarray, targets: np.ndarray, _rng: np.random.Generator) -> Any:
    inputs[3, 1] = np.nan
    return inputs, targets


def ignored(inputs: np.ndarray, targets: np.ndarray, _rng: np.random.Generator) -> Any:
    return inputs, np.full_like(targets, -100)


def some_ignored(inputs: np.ndarray, targets: np.ndarray, _rng: np.random.Generator) -> Any:
    return inputs, np.where(inputs[:, 0] > 0, -100, targets)


def far_words(inputs: np.ndarray, targets: np.ndarray, _rng: np.random.Generator) -> Any:
    return inputs + 20, targets


def below(inputs: np.ndarray, targets: np.ndarray, _rng: np.random.Generator) -> Any:
    return inputs, targets - 3


def no_targets(inputs: np.ndarray, targets: np.ndarray, _rng: np.random.Generator) -> Any:
    return inputs, targets * np.float32("nan")
