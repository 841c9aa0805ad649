"""A table of one row in a sum of tables is a part of one of them; ONNX Runtime and PyTorch agree on what is left."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from torch import nn

import xbackend_fl
from xbackend_fl.mapping.probe.runtime import Runtime

IDS = (np.random.default_rng(3).integers(0, 9, (2, 5)),)


class Embedded(nn.Module):
    """Words, places and one kind of token, added up in one of three orders."""

    def __init__(self, order: str = "wkp", *, padded: bool = False, again: bool = False) -> None:
        super().__init__()
        self.words, self.places = nn.Embedding(9, 6), nn.Embedding(7, 6)
        self.kinds = nn.Embedding(1, 6, padding_idx=0 if padded else None)
        self.norm, self.order, self.again = nn.LayerNorm(6), order, again

    def forward(self, ids: torch.Tensor) -> torch.Tensor:
        kinds = self.kinds(torch.zeros_like(ids))
        terms = {"w": self.words(ids), "p": self.places(torch.arange(ids.shape[1]))[None], "k": kinds}
        found = self.norm(sum(terms[name] for name in self.order))
        return found * kinds if self.again else found


def described(model: nn.Module) -> tuple[xbackend_fl.Schema, dict[str, np.ndarray]]:
    schema = xbackend_fl.describe(model, IDS)
    return schema, dict(xbackend_fl.bind(model, schema, IDS).read())


@pytest.mark.parametrize("order", ["wkp", "wpk", "kwp"])
def test_the_row_goes_into_the_smallest_table(order: str) -> None:
    model = Embedded(order)
    schema, weights = described(model)
    tables = {array.shape: array for array in weights.values() if array.ndim == 2}
    assert set(tables) == {(9, 6), (7, 6)}
    expected = (model.places.weight + model.kinds.weight).detach().numpy()
    np.testing.assert_array_equal(tables[7, 6], expected)
    np.testing.assert_array_equal(tables[9, 6], model.words.weight.detach().numpy())
    (output,) = Runtime(schema).outputs(weights, IDS)
    np.testing.assert_allclose(output, model(torch.from_numpy(IDS[0])).detach().numpy(), atol=1e-5)


@pytest.mark.parametrize("model", [Embedded(padded=True), Embedded(again=True), Embedded("wk"[1:] * 2)])
def test_a_row_that_is_more_than_a_part_of_a_sum_stays(model: nn.Module) -> None:
    schema = xbackend_fl.describe(model, IDS)
    assert any(parameter.shape == (1, 6) for parameter in schema.parameters)
