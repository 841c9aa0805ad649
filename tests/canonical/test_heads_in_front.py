"""Heads that a model stacks in front of the examples are heads, whatever the number of examples."""

from __future__ import annotations

import numpy as np
import torch
from torch import nn

import xbackend_fl
from xbackend_fl.mapping.probe.draw import BATCH, draw_weights
from xbackend_fl.mapping.probe.runtime import Runtime


class Stacked(nn.Module):
    """Two heads, split and stacked in front as TensorFlow's users do."""

    def __init__(self) -> None:
        super().__init__()
        self.q, self.k, self.v = (nn.Linear(6, 8, bias=False) for _ in range(3))

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        q, k, v = (torch.stack(layer(x).split(4, 2)) for layer in (self.q, self.k, self.v))
        read = torch.softmax(q @ k.transpose(-1, -2) / 2, -1) @ v
        return torch.cat(read.split(1), -1).squeeze(0)


def test_the_graph_takes_any_number_of_examples() -> None:
    rng = np.random.default_rng(0)
    model = Stacked()
    schema = xbackend_fl.describe(model, (rng.standard_normal((5, 3, 6)).astype(np.float32),))
    (node,) = [node for node in schema.nodes if node.operator == "Attention"]
    assert node.attributes["num_heads"] == 2
    weights, data = draw_weights(schema, 0), rng.standard_normal((BATCH, 3, 6)).astype(np.float32)
    with torch.no_grad():
        for name in "qkv":
            parts = [weights[f"{name}[{part}].weight"] for part in ("0:4", "4:8")]
            getattr(model, name).weight.copy_(torch.from_numpy(np.concatenate(parts)))
        expected = model(torch.from_numpy(data)).numpy()
    (found,) = Runtime(schema).outputs(weights, [data])
    np.testing.assert_allclose(found, expected, rtol=1e-5, atol=1e-6)


class Unsqueezed(nn.Module):
    """Examples that are merged with windows behind a head, and taken apart with an axis more."""

    def __init__(self) -> None:
        super().__init__()
        self.weight = nn.Parameter(torch.ones(2, 5))

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        heads = x.unflatten(2, (3, 2)).permute(2, 0, 1, 3)
        merged = torch.tanh(heads.reshape(3, -1, 2))
        return (merged.view(3, -1, 4, 2, 1) * self.weight).sum((0, 2))


def test_examples_are_taken_apart_beside_an_axis_of_one() -> None:
    rng = np.random.default_rng(0)
    model = Unsqueezed()
    schema = xbackend_fl.describe(model, (rng.standard_normal((2, 4, 6)).astype(np.float32),))
    data = rng.standard_normal((BATCH, 4, 6)).astype(np.float32)
    expected = model(torch.from_numpy(data)).detach().numpy()
    (name,) = schema.by_name
    (found,) = Runtime(schema).outputs({name: np.ones(schema.by_name[name].shape, np.float32)}, [data])
    np.testing.assert_allclose(found, expected, rtol=1e-5, atol=1e-6)
