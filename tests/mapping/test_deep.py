"""Deep networks of residual branches: their last layers show in some draw, as their first ones do."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from torch import nn

import xbackend_fl
from tests.speed.binding import bert_keras, bert_torch
from xbackend_fl.adapter import adapter_of
from xbackend_fl.canonical import Schema
from xbackend_fl.mapping.probe.branches import calmed
from xbackend_fl.mapping.probe.draw import draw_inputs, draw_weights

IDS = (np.random.default_rng(0).integers(0, 50, (2, 8)),)


@pytest.mark.slow
def test_the_last_of_twelve_layers_shows() -> None:
    model = bert_torch(layers=12, width=32, heads=2, vocabulary=50)
    trainer = adapter_of(model).load_model(model, IDS)
    schema, binding = trainer.description.schema, trainer.description.binding

    def least(seed: int) -> float:
        """The smallest gradient of a query as a part of the largest of all, in one draw."""
        trainer.write(binding.restore(draw_weights(schema, seed)))
        model.zero_grad()
        outputs = model(torch.from_numpy(draw_inputs(schema, [IDS[0].shape], seed)[0]))
        directions = torch.Generator().manual_seed(0)
        sum((output * torch.randn(output.shape, generator=directions)).sum() for output in outputs).backward()
        largest = max(p.grad.abs().max().item() for p in model.parameters())
        return float(min(block.query.weight.grad.abs().max().item() for block in model.blocks) / largest)

    assert least(2) > 1e-4
    assert least(0) < 1e-6, "where all branches are large, nothing is left to tell apart"


@pytest.mark.slow
def test_twelve_layers_are_proven() -> None:
    schema, evidence = xbackend_fl.describe_reference(bert_torch(12, 32, 2, 50), IDS)
    assert xbackend_fl.bind(bert_keras(12, 32, 2, 50), schema, IDS, evidence).proof.proven


class Blocks(nn.Module):
    """Residual blocks over features; the branch ends in a layer, or in a normalisation behind it."""

    def __init__(self, count: int, *, normed: bool) -> None:
        super().__init__()
        self.count = count
        self.first = nn.ModuleList(nn.Linear(4, 6) for _ in range(count))
        self.second = nn.ModuleList(nn.Linear(6, 4) for _ in range(count))
        self.norms = nn.ModuleList(nn.LayerNorm(4) for _ in range(count)) if normed else None

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        for place, (one, two) in enumerate(zip(self.first, self.second, strict=True)):
            y = two(torch.tanh(one(x))).reshape(-1, 4)
            x = (self.norms[place](y) if self.norms else y) + x
        return x


def described(model: nn.Module) -> Schema:
    return xbackend_fl.describe(model, (np.zeros((2, 4), np.float32),))


@pytest.mark.parametrize(
    ("blocks", "names"),
    [
        (Blocks(8, normed=False), {f"second.{i}.{role}" for i in range(8) for role in ("weight", "bias")}),
        (Blocks(8, normed=True), set()),
        (Blocks(7, normed=False), set()),
    ],
    ids=["layers", "normalisations", "few"],
)
def test_what_ends_a_branch_of_a_deep_network_is_calmed(blocks: Blocks, names: set[str]) -> None:
    schema = described(blocks)
    found = calmed(schema)
    assert found == dict.fromkeys(names, 3 / 8)
    for seed in (1, 2, 3):
        weights = draw_weights(schema, seed)
        ends = np.concatenate([weights[f"second.{i}.weight"].ravel() for i in range(blocks.count)])
        spread = float(np.sqrt(np.mean(ends**2))) / np.sqrt(2 / 6)
        assert spread == pytest.approx(3 / 8 if names and seed > 1 else 1.0, rel=0.25)


def test_sums_of_layers_side_by_side_are_no_branches() -> None:
    class Sums(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.layers = nn.ModuleList(nn.Linear(4, 4) for _ in range(18))

        def forward(self, x: torch.Tensor) -> torch.Tensor:
            for one, two in zip(self.layers[::2], self.layers[1::2], strict=True):
                x = torch.tanh(one(x) + two(x))
            return x

    assert calmed(described(Sums())) == {}
