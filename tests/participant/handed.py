"""The good data as the data sets and loaders of PyTorch, and as Hugging Face's."""

from __future__ import annotations

from typing import Any

import datasets
import torch
from torch.utils.data import DataLoader, TensorDataset

from tests.participant import loaders


def arrays() -> Any:
    return loaders.good()["train"]


def items() -> Any:
    inputs, targets = arrays()
    return TensorDataset(torch.from_numpy(inputs), torch.from_numpy(targets))


def hugging_face() -> Any:
    inputs, targets = arrays()
    return datasets.Dataset.from_dict({"x": inputs, "label": targets}).with_format("numpy")


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
