"""The same function twice, written as two teams would, with the inputs that it takes."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import keras
import numpy as np
import tensorflow as tf
import torch
from torch import nn


@dataclass(frozen=True)
class Pair:
    """Two models and an example of their inputs in ONNX layout."""

    name: str
    torch: Callable[[], nn.Module]
    keras: Callable[[], Any]
    inputs: tuple[Any, ...]

    def example(self) -> tuple[np.ndarray[Any, Any], ...]:
        generator = np.random.default_rng(0)
        return tuple(_drawn(item, generator) for item in self.inputs)


def _drawn(item: Any, generator: np.random.Generator) -> np.ndarray[Any, Any]:
    """A shape of floats, ids below a number, or 0 and 1."""
    if isinstance(item, tuple):
        return generator.standard_normal(item).astype(np.float32)
    shape, vocabulary, dtype = item["shape"], item["below"], item.get("dtype", "int64")
    return generator.integers(0, vocabulary, shape).astype(dtype)


def ids(*shape: int, below: int = 9, dtype: str = "int64") -> dict[str, Any]:
    return {"shape": shape, "below": below, "dtype": dtype}


class Forward(nn.Module):
    """A forward function over named layers and parameters."""

    def __init__(self, call: Callable[..., Any], **parts: Any) -> None:
        super().__init__()
        for name, part in parts.items():
            if isinstance(part, nn.Module):
                self.add_module(name, part)
            else:
                setattr(self, name, nn.Parameter(part) if isinstance(part, torch.Tensor) else part)
        self._call = call

    def forward(self, *inputs: torch.Tensor) -> Any:
        return self._call(self, *inputs)


class Wrapped(keras.layers.Layer):
    """A Keras layer of the user's own: a function over layers and weights."""

    def __init__(self, call: Callable[..., Any], layers: Any = (), **weights: tuple[int, ...]) -> None:
        super().__init__()
        self.inner = list(layers)
        self._call = call
        for name, shape in weights.items():
            setattr(self, name, self.add_weight(shape=shape, name=name))

    def build(self, *_: Any, **__: Any) -> None:
        """Its weights are there already; inner layers are built when they are called."""

    def call(self, *inputs: Any) -> Any:
        return self._call(self, *inputs)


def keras_model(build: Callable[..., Any], *shapes: Any) -> Any:
    """A functional model of inputs given by shape, or by shape and dtype."""
    inputs = [
        keras.Input(shape[0], dtype=shape[1]) if isinstance(shape[0], tuple) else keras.Input(shape)
        for shape in shapes
    ]
    return keras.Model(inputs, build(*inputs))


def function(call: Callable[..., Any], *inputs: Any) -> Any:
    """What TensorFlow's own functions compute, inside a Keras model."""
    return keras.layers.Lambda(lambda given: call(*given) if isinstance(given, list) else call(given))(
        inputs[0] if len(inputs) == 1 else list(inputs)
    )


__all__ = ["Forward", "Pair", "Wrapped", "function", "ids", "keras_model", "tf"]
