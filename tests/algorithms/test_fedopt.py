"""Server optimizers against the formulas of Reddi et al. 2021, written out in float64."""

from __future__ import annotations

import numpy as np
import pytest

from xbackend_fl import Weights
from xbackend_fl.aggregation import MODEL, Merged
from xbackend_fl.algorithms import ServerOptimizer
from xbackend_fl.canonical import Kind

pytestmark = pytest.mark.quick

KINDS = {"w": Kind.TRAINABLE, "m": Kind.STATISTIC}


def pair(generator: np.random.Generator) -> Weights:
    arrays = {name: generator.standard_normal(50).astype(np.float32) for name in KINDS}
    return Weights(arrays, "s", KINDS)


@pytest.mark.parametrize("name", ["fedavg", "fedavgm", "fedadagrad", "fedadam", "fedyogi"])
def test_three_rounds(name: str) -> None:
    rule = ServerOptimizer(name=name, lr=0.3)
    generator = np.random.default_rng(0)
    current = pair(generator)
    state = rule.init(current)
    x = current["w"].astype(np.float64)
    m, v = np.zeros(50), np.full(50, rule.tau**2)
    for _ in range(3):
        mean = pair(generator)
        delta = mean["w"] - x
        if name == "fedavg":
            x = x + rule.lr * delta
        elif name == "fedavgm":
            m = rule.momentum * m + delta
            x = x + rule.lr * m
        else:
            m = rule.beta1 * m + (1 - rule.beta1) * delta
            if name == "fedadagrad":
                v = v + delta**2
            elif name == "fedadam":
                v = rule.beta2 * v + (1 - rule.beta2) * delta**2
            else:
                v = v - (1 - rule.beta2) * delta**2 * np.sign(v - delta**2)
            x = x + rule.lr * m / (np.sqrt(v) + rule.tau)
        current, state = rule.apply(current, Merged({MODEL: mean}, 1), state)
        np.testing.assert_allclose(current["w"], x, rtol=2e-5, atol=2e-6)
        np.testing.assert_array_equal(current["m"], mean["m"])


def test_fedavg_with_unit_rate_is_exactly_the_mean() -> None:
    generator = np.random.default_rng(1)
    start, mean = pair(generator), pair(generator)
    assert ServerOptimizer().apply(start, Merged({MODEL: mean}, 1), {})[0].digest == mean.digest
