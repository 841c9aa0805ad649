"""A weight that a file holds in parts is named with what to do, and that helps."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch
from torch import nn
from torch.nn.utils import parametrizations, parametrize

import xbfl_torch
from xbackend_fl import weights
from xbackend_fl.convert import convert, open_side
from xbackend_fl.errors import SchemaError


class Net(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.one, self.two = nn.Linear(4, 6), parametrizations.weight_norm(nn.Linear(6, 2))

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return self.two(torch.tanh(self.one(x)))


def test_weights_in_parts_are_named_and_read_when_whole(tmp_path: Path) -> None:
    torch.manual_seed(0)
    net, example = Net().eval(), (np.zeros((2, 4), np.float32),)
    reader = open_side(xbfl_torch.adapter, Net().eval(), example)
    torch.save(net.state_dict(), tmp_path / "net.pt")
    with pytest.raises(SchemaError, match=r"holds 'two\.weight' in parts") as caught:
        convert(weights.open_weights(tmp_path / "net.pt"), tmp_path / "net.npz", reader=reader)
    assert "remove_parametrizations(model.two, 'weight')" in str(caught.value.hint)
    expected = net.two.weight.detach().numpy().copy()
    parametrize.remove_parametrizations(net.two, "weight")
    torch.save(net.state_dict(), tmp_path / "whole.pt")
    convert(weights.open_weights(tmp_path / "whole.pt"), tmp_path / "net.npz", reader=reader)
    assert np.array_equal(weights.open_weights(tmp_path / "net.npz")["two.weight"], expected)
