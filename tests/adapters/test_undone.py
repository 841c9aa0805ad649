"""Whatever a call does to a module's tensors is undone, and nothing is copied that no call changes."""

from __future__ import annotations

import pytest
import torch
from torch import nn
from torch.nn import functional as F

from xbfl_torch.undone import undone


class Changing(nn.Module):
    """Writes to its own tensors in every way: by an operation, behind autograd's back, to a part, as ``out``, inside a kernel."""

    def __init__(self) -> None:
        super().__init__()
        self.dense, self.vector = nn.Linear(3, 3), nn.Parameter(torch.ones(3))
        self.register_buffer("mean", torch.zeros(3))
        self.register_buffer("variance", torch.ones(3))
        self.still = nn.Parameter(torch.ones(3))

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        self.dense.weight.mul_(2)
        self.dense.bias.data[1:] = 7.0
        torch.add(self.vector, 1, out=self.vector.data)
        x = F.batch_norm(self.dense(x), self.mean, self.variance, training=True)
        return x * self.still


def test_tensors_have_their_values_again() -> None:
    model, before = Changing(), {}
    for name, value in model.state_dict().items():
        before[name] = value.clone()
    with undone(model), torch.no_grad():
        model(torch.arange(12.0).reshape(4, 3))
        changed = {name for name, value in model.state_dict().items() if not torch.equal(value, before[name])}
    assert changed == {"dense.weight", "dense.bias", "vector", "mean", "variance"}
    assert all(torch.equal(value, before[name]) for name, value in model.state_dict().items())


def test_parameters_that_no_call_changes_are_not_copied(monkeypatch: pytest.MonkeyPatch) -> None:
    model, copied, clone = Changing(), [], torch.Tensor.clone

    def counted(tensor: torch.Tensor) -> torch.Tensor:
        copied.append(tensor.data_ptr())
        return clone(tensor)

    monkeypatch.setattr(torch.Tensor, "clone", counted)
    with undone(model), torch.no_grad():
        model(torch.ones(2, 3))
    assert model.vector.data_ptr() in copied
    assert model.still.data_ptr() not in copied
