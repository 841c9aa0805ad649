"""Gradients of dense layers as factors: the same norm, the same steps, no gradient in memory."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis.extra.numpy import arrays
from hypothesis.strategies import floats
from torch import nn

import xbfl_torch
from xbackend_fl.adapter import OPTIMIZERS, Batch, TrainConfig
from xbfl_torch.local_stepper import LocalStepper
from xbfl_torch.outer_product import OuterProduct
from xbfl_torch.trainer import TorchTrainer

EXAMPLE = (np.zeros((1, 6), np.float32),)


def opened(build: Callable[[], nn.Module]) -> TorchTrainer:
    torch.manual_seed(0)
    return xbfl_torch.adapter.load_model(build(), EXAMPLE)


def batches(count: int = 4) -> list[Batch]:
    generator = np.random.default_rng(0)
    return [
        Batch((generator.standard_normal((8, 6)).astype(np.float32),), generator.integers(0, 64, 8))
        for _ in range(count)
    ]


class Shared(nn.Module):
    """One dense layer, called twice."""

    def __init__(self) -> None:
        super().__init__()
        self.inner, self.outer = nn.Linear(6, 6), nn.Linear(6, 64)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return self.outer(torch.tanh(self.inner(torch.tanh(self.inner(x)))))


def dense() -> nn.Module:
    return nn.Sequential(
        nn.Linear(6, 64), nn.Tanh(), nn.Linear(64, 96, bias=False), nn.ReLU(inplace=True), nn.Linear(96, 64)
    )


def mixed() -> nn.Module:
    return nn.Sequential(nn.Linear(6, 64), nn.LayerNorm(64), nn.ReLU(), nn.Linear(64, 64))


def sgd(decay: float = 0.0, clip: float | None = None) -> TrainConfig:
    return TrainConfig(OPTIMIZERS["sgd"](lr=0.1, weight_decay=decay), clip_norm=clip)


@pytest.mark.one_in(2)
@pytest.mark.parametrize("build", [dense, mixed, Shared])
@pytest.mark.parametrize("config", [sgd(), sgd(0.01), sgd(clip=0.3), sgd(0.01, 0.3)], ids=repr)
def test_the_same_numbers(
    build: Callable[[], nn.Module], config: TrainConfig, monkeypatch: pytest.MonkeyPatch
) -> None:
    fast, plain = opened(build), opened(build)
    one = fast.train(batches(), config)
    monkeypatch.setattr("xbfl_torch.outer_product.suits", lambda _: False)
    two = plain.train(batches(), config)
    assert one.mean == pytest.approx(two.mean, rel=1e-6)
    left, right = fast.read(), plain.read()
    for name in left:
        np.testing.assert_allclose(left[name], right[name], rtol=2e-5, atol=1e-7, err_msg=name)
    assert any(np.abs(left[name] - opened(build).read()[name]).max() > 1e-3 for name in left)


@given(
    arrays(np.float32, (4, 7), elements=floats(-8, 8, width=32)),
    arrays(np.float32, (4, 5), elements=floats(-8, 8, width=32)),
)
def test_norm_against_the_whole_gradient_in_float64(columns: Any, rows: Any) -> None:
    found = OuterProduct(torch.zeros(5, 7), torch.from_numpy(rows), torch.from_numpy(columns)).norm()
    whole = rows.T.astype(np.float64) @ columns.astype(np.float64)
    # A sum of squares of float32: what cancels in it is bounded by the factors' own norms.
    scale = float(np.linalg.norm(rows) * np.linalg.norm(columns))
    assert float(found) ** 2 == pytest.approx(
        np.linalg.norm(whole) ** 2, rel=1e-5, abs=2e-6 * scale**2 + 1e-37
    )


def test_which_layers_give_factors() -> None:
    def count(build: Callable[[], nn.Module], config: TrainConfig, frozen: str = "") -> int:
        trainer = opened(build)
        trainable = {n: t for n, t in trainer._trainable().items() if n != frozen}
        return LocalStepper(trainable, trainer._model, trainer._dense, config).dense

    assert count(dense, sgd()) == 3
    assert count(dense, sgd(), frozen="2.weight") == 2
    assert count(Shared, sgd()) == 1, "a layer that is called twice has the sum of two gradients"
    assert count(dense, TrainConfig(OPTIMIZERS["momentum"](lr=0.1))) == 0, "momentum keeps the gradient"


def test_nothing_is_left_behind() -> None:
    trainer = opened(dense)
    trainer.train(batches(), sgd())
    model = trainer._model
    assert all("forward" not in vars(module) for module in model.modules())
    assert all(parameter.grad is None for parameter in model.parameters())


@pytest.mark.parametrize("clip", [None, 1.0])
def test_the_largest_gradient_is_never_stored(clip: float | None) -> None:
    def peak(config: TrainConfig) -> int:
        trainer = opened(
            lambda: nn.Sequential(nn.Linear(6, 2048), nn.Linear(2048, 2048), nn.Linear(2048, 64))
        )
        trainer.train(batches(1), config)
        with torch.profiler.profile(profile_memory=True) as profile:
            trainer.train(batches(1), config)
        return max(event.self_cpu_memory_usage for event in profile.key_averages())

    whole = 2048 * 2048 * 4
    assert peak(sgd(clip=clip)) < whole / 8
    assert peak(TrainConfig(OPTIMIZERS["momentum"](lr=0.1), clip_norm=clip)) >= whole
