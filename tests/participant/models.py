"""Models of 8 features and 3 outputs, right and wrong."""

from __future__ import annotations

from typing import Any

import numpy as np
import torch
from torch import nn


def build() -> nn.Module:
    return nn.Sequential(nn.Linear(8, 16), nn.ReLU(), nn.Linear(16, 3))


def normalised() -> nn.Module:
    return nn.Sequential(nn.Linear(8, 16), nn.BatchNorm1d(16), nn.ReLU(), nn.Linear(16, 3))


def one_output() -> nn.Module:
    return nn.Linear(8, 1)


def nine_inputs() -> nn.Module:
    return nn.Linear(9, 3)


def ends_in_softmax() -> nn.Module:
    return nn.Sequential(nn.Linear(8, 3), nn.Softmax(1))


class Training(nn.Module):
    """Fails in training alone."""

    def __init__(self) -> None:
        super().__init__()
        self.layer = nn.Linear(8, 3)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        if self.training and not torch.compiler.is_compiling():
            raise ValueError("no training today")
        return self.layer(x)


def fails_in_training() -> nn.Module:
    return Training()


def answers_nan() -> nn.Module:
    """Every weight is a number, and their sums are none."""
    model = build()
    with torch.no_grad():
        model[0].weight.fill_(3e38)
    return model


def holds_nan() -> nn.Module:
    model = build()
    with torch.no_grad():
        model[0].weight[0, 0] = float("nan")
    return model


class Words(nn.Module):
    """Looks five words up."""

    def __init__(self) -> None:
        super().__init__()
        self.table, self.layer = nn.Embedding(20, 4), nn.Linear(4, 3)

    def forward(self, words: torch.Tensor) -> torch.Tensor:
        return self.layer(self.table(words).mean(1))


def words() -> nn.Module:
    return Words()


class Heads(nn.Module):
    """Two outputs, of which a loss reads the first."""

    def __init__(self) -> None:
        super().__init__()
        self.trunk, self.first = nn.Linear(8, 16), nn.Linear(16, 3)
        self.second = nn.Sequential(nn.Linear(16, 4), nn.ReLU(), nn.Linear(4, 2))

    def forward(self, x: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
        seen = torch.relu(self.trunk(x))
        return self.first(seen), self.second(seen)


def heads() -> nn.Module:
    return Heads()


def image() -> nn.Module:
    return nn.Sequential(nn.Conv2d(3, 4, 3), nn.ReLU(), nn.Flatten(), nn.Linear(4 * 4 * 3, 3))


def keras_model() -> Any:
    import keras

    return keras.Sequential([keras.Input((8,)), keras.layers.Dense(16, "relu"), keras.layers.Dense(3)])


def keras_normalised() -> Any:
    import keras

    return keras.Sequential(
        [
            keras.Input((8,)),
            keras.layers.Dense(16),
            keras.layers.BatchNormalization(momentum=0.9, epsilon=1e-5),
            keras.layers.ReLU(),
            keras.layers.Dense(3),
        ]
    )


def the_class() -> Any:
    return Words


def weights() -> Any:
    return build().state_dict()


def nothing() -> None:
    build()


def a_pair() -> Any:
    return build(), torch.optim.SGD(build().parameters(), 0.1)


def raises() -> Any:
    return torch.zeros(3) @ torch.zeros(4)


class Steps(nn.Module):
    """Reads the mean over the steps of a series, of the first ``length`` alone if that is given."""

    def __init__(self, length: int | None = None) -> None:
        super().__init__()
        self.layer, self.length = nn.Linear(8, 3), length

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return self.layer(torch.tanh(x[:, : self.length]).mean(1))


def mean_of_steps() -> nn.Module:
    return Steps()


def mean_of_six_steps() -> nn.Module:
    return Steps(6)


def series() -> dict[str, Any]:
    """Data for them."""
    rng = np.random.default_rng(0)
    return {
        name: (rng.standard_normal((size, 6, 8)).astype(np.float32), rng.integers(0, 3, size))
        for name, size in {"train": 60, "validation": 20, "test": 20}.items()
    }
