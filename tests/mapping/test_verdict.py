"""What is said of two graphs that differ is what was measured, and no more."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from torch import nn

import xbackend_fl
from xbackend_fl.errors import MismatchError

EXAMPLE = (np.random.default_rng(0).standard_normal((2, 6)).astype(np.float32),)


class Gate(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.a, self.b = nn.Linear(6, 4), nn.Linear(6, 4)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return torch.where(x[:, :1] < -10, self.a(x) - self.b(x), self.a(x) + self.b(x))


class NoGate(Gate):
    """The same function only where no first feature is below -10, as in normal data."""

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        b = self.b(x)
        return self.a(x) + b - (x[:, :1] > 1e30).float() * b


def test_outputs_that_agree_on_normal_data_are_not_called_one_function() -> None:
    reference, candidate = Gate(), NoGate()
    schema = xbackend_fl.describe(reference, EXAMPLE)
    with pytest.raises(MismatchError) as caught:
        xbackend_fl.bind(candidate, schema, EXAMPLE, xbackend_fl.gather_evidence(reference, EXAMPLE))
    assert "with the parameters paired by their gradients, outputs agree in" in str(caught.value)
    assert "and differ by" in str(caught.value)
    assert "one function" not in str(caught.value)
