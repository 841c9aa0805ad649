"""The good data as the data sets and loaders of PyTorch."""

from __future__ import annotations

from typing import Any

import torch
from torch.utils.data import DataLoader, TensorDataset

from tests.participant import loaders


def arrays() -> Any:
    return loaders.good()["train"]


def items() -> Any:
    inputs, targets = arrays()
    return TensorDataset(torch.from_numpy(inputs), torch.from_numpy(targets))


def loader() -> Any:
    return DataLoader(items(), batch_size=20)


def every_split() -> Any:
    return {name: loader() for name in loaders.SIZES}


def evaluated() -> Any:
    found = loaders.good()
    for name in ("validation", "test"):
        inputs, targets = map(torch.from_numpy, found[name])
        found[name] = DataLoader(TensorDataset(inputs, targets), batch_size=5)
    return found
