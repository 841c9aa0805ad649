"""Server optimizers against the formulas of Reddi et al. 2021, written out in float64."""

from __future__ import annotations

import numpy as np
import pytest

from xbackend_fl import Weights
from xbackend_fl.aggregation import MODEL, Merged
from xbackend_fl.algorithms import SERVERS
from xbackend_fl.canonical import Kind

pytestmark = pytest.mark.quick

KINDS = {"w": Kind.TRAINABLE, "m": Kind.STATISTIC}


def pair(generator: np.random.Generator) -> Weights:
    arrays = {name: generator.standard_normal(50).astype(np.float32) for name in KINDS}
    return Weights(arrays, "s", KINDS)


@pytest.mark.parametrize("name", ["fedavg", "fedavgm", "fedadagrad", "fedadam", "fedyogi"])
def test_three_rounds(name: str) -> None:
    rule = SERVERS[name](lr=0.3)
    generator = np.random.default_rng(0)
    current = pair(generator)
    state = rule.init(current)
    x = current["w"].astype(np.float64)
    m, v = np.zeros(50), np.full(50, 1e-6)
    for _ in range(3):
        mean = pair(generator)
        delta = mean["w"] - x
        if name == "fedavg":
            x = x + rule.lr * delta
        elif name == "fedavgm":
            m = 0.9 * m + delta
            x = x + rule.lr * m
        else:
            m = 0.9 * m + (1 - 0.9) * delta
            if name == "fedadagrad":
                v = v + delta**2
            elif name == "fedadam":
                v = 0.99 * v + (1 - 0.99) * delta**2
            else:
                v = v - (1 - 0.99) * delta**2 * np.sign(v - delta**2)
            x = x + rule.lr * m / (np.sqrt(v) + 1e-3)
        current, state = rule.apply(current, Merged({MODEL: mean}, 1), state)
        np.testing.assert_allclose(current["w"], x, rtol=2e-5, atol=2e-6)
        np.testing.assert_array_equal(current["m"], mean["m"])


def test_fedavg_with_unit_rate_is_exactly_the_mean() -> None:
    generator = np.random.default_rng(1)
    start, mean = pair(generator), pair(generator)
    assert SERVERS["fedavg"]().apply(start, Merged({MODEL: mean}, 1), {})[0].digest == mean.digest


def test_every_server_optimizer_has_an_oracle() -> None:
    assert SERVERS.keys() == {"fedavg", "fedavgm", "fedadagrad", "fedadam", "fedyogi", "nesterov"}
