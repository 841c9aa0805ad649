"""What a row of the conversion catalogue is made of."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import keras
import numpy as np
import torch
from torch import nn


@dataclass(frozen=True)
class Row:
    """One row: the same function twice, and the shape of its input in ONNX layout."""

    name: str
    torch: Callable[[], nn.Module]
    keras: Callable[[], Any]
    shape: tuple[int, ...]
    vocabulary: int = 0

    def example(self) -> tuple[np.ndarray[Any, Any], ...]:
        generator = np.random.default_rng(0)
        if self.vocabulary:
            return (generator.integers(0, self.vocabulary, self.shape),)
        return (generator.standard_normal(self.shape).astype(np.float32),)


class Lambda(nn.Module):
    """A forward function over named layers."""

    def __init__(self, call: Callable[..., torch.Tensor], **layers: nn.Module) -> None:
        super().__init__()
        for name, layer in layers.items():
            self.add_module(name, layer)
        self._call = call

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return self._call(self, x)


def chain(*layers: Any, dtype: str | None = None, shape: tuple[int | None, ...]) -> Any:
    return keras.Sequential([keras.Input(shape, dtype=dtype), *layers])


IMAGE = (None, None, 4)
SERIES = (None, 4)
VOLUME = (None, None, None, 4)
