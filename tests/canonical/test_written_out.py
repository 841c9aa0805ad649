"""What a model writes out for every example of its batch, and pads behind pads: the graph runs for any number of examples."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from torch import nn

import xbackend_fl
from tests.adapters.glue.pair import Forward
from xbackend_fl.mapping.probe.draw import BATCH
from xbackend_fl.mapping.probe.runtime import Runtime


def _windows(m: nn.Module, x: torch.Tensor) -> torch.Tensor:
    """A mask for each of three windows, for every example."""
    mask = torch.arange(3.0).reshape(1, 3, 1, 1) * torch.eye(4)
    apart = m.layer(x.reshape(-1, 4, 6))
    return (apart + mask.expand(x.shape[0], -1, -1, -1).reshape(-1, 4, 4)).reshape(-1, 3, 4, 4)


def _with_table(m: nn.Module, x: torch.Tensor) -> torch.Tensor:
    """The same with what a table adds for all of them, as Swin has it."""
    mask = torch.arange(3.0).reshape(1, 3, 1, 1) * torch.eye(4)
    table = m.table(torch.arange(4)).unsqueeze(0)
    apart = m.layer(x.reshape(-1, 4, 6))
    return (apart + (table + mask.expand(x.shape[0], -1, -1, -1).reshape(-1, 4, 4))).reshape(-1, 3, 4, 4)


def _one_for_all(m: nn.Module, x: torch.Tensor) -> torch.Tensor:
    return m.layer(x) + torch.eye(4).expand(x.shape[0], 3, -1, -1)


def _places(m: nn.Module, x: torch.Tensor) -> torch.Tensor:
    """Rows of a table for the places of every example."""
    places = torch.arange(3).unsqueeze(0).repeat(x.shape[0], 1)
    return m.layer(x) + m.table(places).unsqueeze(2)


@pytest.mark.parametrize("call", [_windows, _with_table, _one_for_all, _places])
def test_the_graph_takes_any_number_of_examples(call: object) -> None:
    torch.manual_seed(0)
    rng = np.random.default_rng(0)
    model = Forward(call, layer=nn.Linear(6, 4), table=nn.Embedding(4, 4))
    schema = xbackend_fl.describe(model, (rng.standard_normal((2, 3, 4, 6)).astype(np.float32),))
    held = dict(model.named_parameters())
    named = {
        one.name: held[next(name for name in held if one.name.startswith(name))] for one in schema.parameters
    }
    weights = {name: value.detach().numpy() for name, value in named.items()}
    data = rng.standard_normal((BATCH + 1, 3, 4, 6)).astype(np.float32)
    (found,) = Runtime(schema).outputs(weights, [data])
    with torch.no_grad():
        np.testing.assert_allclose(found, model(torch.from_numpy(data)).numpy(), rtol=1e-5, atol=1e-6)


def _padded(m: nn.Module, x: torch.Tensor) -> torch.Tensor:
    x = nn.functional.pad(x, (0, 0, 0, 0))
    return m.layer(nn.functional.pad(nn.functional.pad(x, (0, 1, 0, 1)), (1, 0, 2, 0)))


def test_pads_behind_pads_are_one_and_no_pad_is_none() -> None:
    model = Forward(_padded, layer=nn.Conv2d(2, 3, 3))
    schema = xbackend_fl.describe(model, (np.zeros((1, 2, 6, 6), np.float32),))
    (node,) = schema.nodes
    assert node.attributes["pads"] == (2, 1, 1, 1)


def test_pads_with_other_numbers_stay_apart() -> None:
    def call(m: nn.Module, x: torch.Tensor) -> torch.Tensor:
        return m.layer(nn.functional.pad(nn.functional.pad(x, (0, 1), value=1.0), (1, 0)))

    schema = xbackend_fl.describe(Forward(call, layer=nn.Conv1d(2, 3, 3)), (np.zeros((1, 2, 6), np.float32),))
    assert [node.operator for node in schema.nodes] == ["Pad", "Conv"]
