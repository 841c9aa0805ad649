"""What one row of the table is, and torchvision's definitions as fixtures."""

from __future__ import annotations

import functools
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from torch import nn

Arrays = tuple[np.ndarray[Any, Any], ...]


@dataclass(frozen=True)
class Network:
    """The same network twice, and an example of its inputs in ONNX layout."""

    name: str
    torch: Callable[[], nn.Module]
    tensorflow: Callable[[], Any]
    example: Callable[[], Arrays]
    same: bool = True


def images(*shapes: tuple[int, ...]) -> Callable[[], Arrays]:
    """Random float arrays."""
    return lambda: tuple(
        np.random.default_rng(i).standard_normal(shape).astype(np.float32) for i, shape in enumerate(shapes)
    )


def tokens(vocabulary: int, *shapes: tuple[int, ...]) -> Callable[[], Arrays]:
    """Random token ids."""
    return lambda: tuple(
        np.random.default_rng(i).integers(0, vocabulary, shape) for i, shape in enumerate(shapes)
    )


def torchvision_models() -> Any:
    """torchvision's model definitions; its compiled operators are missing here and are not needed."""
    _declared_operators()
    import torchvision.models

    return torchvision.models


@functools.cache
def _declared_operators() -> torch.library.Library:
    """Declarations of what torchvision looks up on import; they live as long as the library is held."""
    library = torch.library.Library("torchvision", "DEF")
    for name in ("nms", "qnms"):
        library.define(f"{name}(Tensor dets, Tensor scores, float iou_threshold) -> Tensor")
    return library


def with_epsilon(model: nn.Module, epsilon: float) -> nn.Module:
    """Set the epsilon of every batch normalisation."""
    for module in model.modules():
        if isinstance(module, nn.BatchNorm2d):
            module.eps = epsilon
    return model


def with_uneven_padding(model: nn.Module) -> nn.Module:
    """Pad convolutions of stride 2 as TensorFlow does at even sizes: less in front, more behind."""
    for parent in list(model.modules()):
        for name, child in list(parent.named_children()):
            if isinstance(child, nn.Conv2d) and child.stride == (2, 2) and child.kernel_size[0] > 1:
                low = (child.kernel_size[0] - 2) // 2
                high = child.kernel_size[0] - 2 - low
                child.padding = (0, 0)
                setattr(parent, name, nn.Sequential(nn.ZeroPad2d((low, high, low, high)), child))
    return model
