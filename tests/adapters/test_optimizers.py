"""The one optimizer arithmetic against torch.optim, step by step, in float64, and against Keras's where its formula is the same."""

from __future__ import annotations

from typing import Any

import keras
import numpy as np
import pytest
import torch

from xbackend_fl.adapter import OPTIMIZERS

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
    "adadelta": lambda p, o: torch.optim.Adadelta(p, o.lr, o.rho, o.eps, o.weight_decay),
}


@pytest.mark.parametrize("decay", [0.0, 0.1])
@pytest.mark.parametrize("name", TORCH)
def test_ten_steps_of_ten_rates(name: str, decay: float) -> None:
    rule = OPTIMIZERS[name](lr=0.05, weight_decay=decay)
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


def test_every_optimizer_has_an_oracle() -> None:
    assert TORCH.keys() == OPTIMIZERS.keys()


def test_ten_steps_of_adadelta_are_those_of_keras() -> None:
    rule = OPTIMIZERS["adadelta"](rho=0.8)
    optimizer, draw = (
        keras.optimizers.Adadelta(rule.lr, rule.rho, rule.eps),
        np.random.default_rng(1).standard_normal,
    )
    start = value = draw(20)
    variable = keras.Variable(value, dtype="float64")
    slots: tuple[Any, ...] = tuple(np.zeros(20) for _ in range(rule.num_slots))
    for step in range(1, 11):
        gradient = draw(20)
        optimizer.apply([keras.ops.convert_to_tensor(gradient, "float64")], [variable])
        value, slots = rule.update(value, gradient, slots, rule.numbers(step), np.sqrt)
        # Keras keeps its constants in float32.
        np.testing.assert_allclose(variable.numpy(), value, rtol=0, atol=1e-7)
    assert np.abs(value - start).max() > 0.01
