"""Models that run and that ``torch.export`` cannot trace are read as they are executed, if every execution is the same."""

from __future__ import annotations

from typing import Any

import keras
import numpy as np
import pytest
import torch
from keras import layers as K
from torch import nn

import xbackend_fl
from xbackend_fl.errors import UnsupportedError

ROWS = np.random.default_rng(2).standard_normal((3, 4, 6)).astype(np.float32)


class Base(nn.Module):
    """Two layers and something between them."""

    def __init__(self) -> None:
        super().__init__()
        self.a, self.b = nn.Linear(6, 5), nn.Linear(5, 2)
        self.register_buffer("count", torch.tensor(3), persistent=False)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return self.b(self.between(torch.tanh(self.a(x))))

    def between(self, x: torch.Tensor) -> torch.Tensor:
        return x


class Lists(Base):
    """Steps go through Python numbers of a tensor that never changes."""

    def between(self, x: torch.Tensor) -> torch.Tensor:
        for place in torch.arange(self.count.item()).tolist():
            x = x * (1.0 + place)
        return x


class Loop(Base):
    """A loop that ends by a number which is read from a tensor, and a largest index read by NumPy."""

    def between(self, x: torch.Tensor) -> torch.Tensor:
        left = torch.tensor(float(x.shape[1]))
        while bool(left > 1):
            x, left = x * 2.0 ** int(left > 2), left - 1
        return x * float(np.arange(3)[self.count.numpy() - 1]) * 0.75


class Guard(Base):
    """A look at the data that decides nothing."""

    def between(self, x: torch.Tensor) -> torch.Tensor:
        if x.abs().max().item() > 1e6:
            raise ValueError("too large")
        return x * 6.0


class Branch(Base):
    """The data decide."""

    def between(self, x: torch.Tensor) -> torch.Tensor:
        return x * 6.0 if x.mean().item() > 0 else x * 5.0


class Scaled(Base):
    """A number of the data, read outside of the graph, scales it."""

    def between(self, x: torch.Tensor) -> torch.Tensor:
        return x * float(x.abs().mean().item())


def candidate() -> Any:
    data = keras.Input((4, 6))
    return keras.Model(data, K.Dense(2)(K.Dense(5, "tanh")(data) * 6.0))


@pytest.mark.one_in(2)
@pytest.mark.parametrize("model", [Lists, Loop, Guard])
def test_one_execution_is_every_execution(model: type[nn.Module]) -> None:
    reference = model()
    before = {name: tensor.clone() for name, tensor in reference.state_dict().items()}
    schema, evidence = xbackend_fl.describe(reference, ROWS), xbackend_fl.gather_evidence(reference, ROWS)
    assert xbackend_fl.bind(candidate(), schema, ROWS, evidence).proof.proven
    assert all(torch.equal(tensor, before[name]) for name, tensor in reference.state_dict().items())
    assert all(isinstance(item, nn.Parameter) for item in (reference.a.weight, reference.b.bias))


@pytest.mark.parametrize("model", [Branch, Scaled])
def test_what_the_data_decide_is_refused(model: type[nn.Module]) -> None:
    torch.manual_seed(0)
    with pytest.raises(UnsupportedError, match="cannot trace") as caught:
        xbackend_fl.describe(model(), ROWS)
    assert "test_execution.py" in str(caught.value)
