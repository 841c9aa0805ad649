"""Small models for images ``[1, 8, 8]`` and four classes, with the layers that lockstep has rules for."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch
from torch import nn
from torch.nn import functional


class Recurrent(nn.Module):
    """Reads rows of the image."""

    def __init__(self, layer: Callable[..., nn.Module], **options: Any) -> None:
        super().__init__()
        self.layer = layer(8, 32, **options)
        self.head = nn.Linear(64 if options.get("bidirectional") else 32, 4)
        self.beside = nn.Linear(32, 4)

    def forward(self, images: torch.Tensor) -> torch.Tensor:
        output, last = self.layer(images[:, 0].transpose(0, 1))
        last = last[-1] if isinstance(last, tuple) else last
        return self.head(output.mean(0)) + self.head(output[-1]) + self.beside(last.sum(0))


class Attention(nn.Module):
    """Attends to rows of the image."""

    def __init__(self) -> None:
        super().__init__()
        self.layer = nn.TransformerEncoderLayer(8, 2, 16, 0.0, "gelu", batch_first=True)
        self.head = nn.Linear(8, 4)

    def forward(self, images: torch.Tensor) -> torch.Tensor:
        return self.head(self.layer(images[:, 0]).mean(1))


class Chained(nn.Module):
    """Normalises, rectifies and pools: with windows that leave rows out, and with others who read what lies between."""

    def __init__(self) -> None:
        super().__init__()
        self.first, self.second = nn.Conv2d(1, 6, 3, padding=1), nn.Conv2d(6, 20, 2)
        self.one, self.two, self.three = (
            nn.BatchNorm2d(6),
            nn.BatchNorm2d(20, affine=False),
            nn.BatchNorm2d(20),
        )
        self.head = nn.Linear(26, 4)

    def forward(self, images: torch.Tensor) -> torch.Tensor:
        normal = self.one(self.first(images))
        rectified = torch.relu(normal)
        below = self.second(functional.max_pool2d(rectified, (3, 2)))
        beside = rectified.mean((2, 3)) + torch.tanh(normal).mean((2, 3))
        pooled = functional.max_pool2d(self.three(below), (1, 3)) + functional.relu(self.two(below)).mean(
            3, keepdim=True
        )
        return self.head(torch.cat([pooled.flatten(1), beside], 1))


class Ids(nn.Module):
    """Looks numbers up."""

    def __init__(self) -> None:
        super().__init__()
        self.table, self.head = nn.Embedding(9, 6), nn.Linear(6, 4)

    def forward(self, images: torch.Tensor) -> torch.Tensor:
        ids = (images.flatten(1)[:, :5] * 2).clamp(-4, 4).long() + 4
        return self.head(torch.tanh(self.table(ids)).sum(1))


class Padded(nn.Module):
    """Looks numbers up of which one is padding, in three tables."""

    def __init__(self) -> None:
        super().__init__()
        self.one, self.two = nn.Embedding(9, 6, padding_idx=4), nn.Embedding(9, 6)
        self.bag = nn.EmbeddingBag(9, 6, mode="mean", padding_idx=4)
        self.head = nn.Linear(6, 4)

    def forward(self, images: torch.Tensor) -> torch.Tensor:
        ids = (images.flatten(1)[:, :5] * 2).clamp(-4, 4).long() + 4
        two = functional.embedding(ids, self.two.weight, padding_idx=-4)
        return self.head(torch.tanh(self.one(ids) * two).sum(1) + self.bag(ids))


def normalised() -> nn.Module:
    return nn.Sequential(
        nn.Conv2d(1, 4, 3, padding=1),
        nn.BatchNorm2d(4),
        nn.Tanh(),
        nn.AvgPool2d(2),
        nn.Conv2d(4, 6, (3, 2), stride=(2, 1), padding=(0, 1), bias=False),
        nn.GroupNorm(3, 6),
        nn.Tanh(),
        nn.AdaptiveAvgPool2d(1),
        nn.Flatten(),
        nn.Linear(6, 4),
    )


def pooled() -> nn.Module:
    """Windows that leave a row out, and windows that overlap."""
    return nn.Sequential(
        nn.Conv2d(1, 20, 2),
        nn.Tanh(),
        nn.MaxPool2d((2, 3)),
        nn.Conv2d(20, 3, 1),
        nn.MaxPool2d(2, stride=1),
        nn.Flatten(),
        nn.Linear(6, 4),
    )


def grouped() -> nn.Module:
    return nn.Sequential(
        nn.Conv2d(1, 4, 3, padding="same"),
        nn.Conv2d(4, 8, 3, groups=2, dilation=2),
        nn.Tanh(),
        nn.Flatten(),
        nn.Linear(128, 4),
    )


def wide() -> nn.Module:
    """Two layers of which no participant needs a weight of its own."""
    return nn.Sequential(
        nn.Flatten(),
        nn.Linear(64, 96),
        nn.Tanh(),
        nn.Linear(96, 80),
        nn.LayerNorm(80),
        nn.Tanh(),
        nn.Linear(80, 4),
    )
