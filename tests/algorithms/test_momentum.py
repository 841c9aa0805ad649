"""Server optimizers against torch.optim where it has the rule."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from tests.algorithms.test_fedopt import pair
from xbackend_fl.aggregation import MODEL, Merged
from xbackend_fl.algorithms import SERVERS


@pytest.mark.parametrize(("name", "nesterov"), [("fedavgm", False), ("nesterov", True)])
def test_momentum_over_rounds_is_that_of_torch(name: str, *, nesterov: bool) -> None:
    """The way back from the mean is the gradient."""
    rule, generator = SERVERS[name](lr=0.7, momentum=0.8), np.random.default_rng(2)
    current = pair(generator)
    state = rule.init(current)
    theirs = torch.nn.Parameter(torch.tensor(current["w"], dtype=torch.float64))
    optimizer = torch.optim.SGD([theirs], 0.7, momentum=0.8, nesterov=nesterov)
    for _ in range(4):
        mean = pair(generator)
        theirs.grad = theirs.detach() - torch.tensor(mean["w"], dtype=torch.float64)
        optimizer.step()
        current, state = rule.apply(current, Merged({MODEL: mean}, 1), state)
        np.testing.assert_allclose(current["w"], theirs.detach().numpy(), rtol=0, atol=5e-6)
