"""A graph that runs for as many examples as the user's alone is a third opinion on so many."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from torch import nn

import xbackend_fl


class Repeated(nn.Module):
    """A table for each example and head, as DeBERTa has its relative places."""

    def __init__(self, *, computed: bool) -> None:
        super().__init__()
        self.computed = computed
        self.table, self.head = nn.Parameter(torch.randn(2, 3, 5)), nn.Linear(5, 4)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        heads = x.unflatten(2, (2, 3)).transpose(1, 2).reshape(-1, x.shape[1], 3)
        table = torch.tanh(self.table) if self.computed else self.table
        scores = torch.tanh(torch.bmm(torch.tanh(heads), table.repeat(x.shape[0], 1, 1)))
        return self.head(scores.unflatten(0, (-1, 2)).sum(1))


@pytest.mark.parametrize("computed", [True, False])
def test_as_many_examples_as_the_graph_takes_are_compared(*, computed: bool) -> None:
    model = Repeated(computed=computed)
    example = (np.random.default_rng(4).standard_normal((3, 4, 6)).astype(np.float32),)
    schema, evidence = xbackend_fl.describe_reference(model, example)
    found = xbackend_fl.bind(model, schema, example, evidence)
    assert found.proof.proven
    assert any(check.what == "onnx runtime" for check in found.proof.checks)
