"""The one optimizer arithmetic against torch.optim, step by step, in float64."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
import torch

from xbackend_fl.adapter import Optimizer

TORCH: dict[str, Any] = {
    "sgd": lambda p, o: torch.optim.SGD(p, o.lr, weight_decay=o.weight_decay),
    "momentum": lambda p, o: torch.optim.SGD(p, o.lr, momentum=o.momentum, weight_decay=o.weight_decay),
    "nesterov": lambda p, o: torch.optim.SGD(
        p, o.lr, momentum=o.momentum, nesterov=True, weight_decay=o.weight_decay
    ),
    "adam": lambda p, o: torch.optim.Adam(p, o.lr, (o.beta1, o.beta2), o.eps, o.weight_decay),
    "adamw": lambda p, o: torch.optim.AdamW(p, o.lr, (o.beta1, o.beta2), o.eps, o.weight_decay),
    "adagrad": lambda p, o: torch.optim.Adagrad(p, o.lr, weight_decay=o.weight_decay, eps=o.eps),
    "rmsprop": lambda p, o: torch.optim.RMSprop(p, o.lr, o.alpha, o.eps, o.weight_decay),
}


@pytest.mark.parametrize("decay", [0.0, 0.1])
@pytest.mark.parametrize("name", TORCH)
def test_ten_steps_of_ten_rates(name: str, decay: float) -> None:
    rule = Optimizer(name=name, lr=0.05, weight_decay=decay)
    generator = np.random.default_rng(0)
    value = generator.standard_normal(20)
    parameter = torch.nn.Parameter(torch.tensor(value))
    theirs = TORCH[name]([parameter], rule)
    slots: tuple[Any, ...] = tuple(np.zeros(20) for _ in range(rule.num_slots))
    for step in range(1, 11):
        rate = 0.05 / step
        theirs.param_groups[0]["lr"] = rate
        gradient = generator.standard_normal(20) * 10.0 ** generator.integers(-8, 1)
        parameter.grad = torch.tensor(gradient)
        theirs.step()
        value, slots = rule.update(value, gradient, slots, rule.numbers(step, rate), np.sqrt)
        np.testing.assert_allclose(value, parameter.detach().numpy(), rtol=1e-9)
