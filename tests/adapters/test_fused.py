"""Dense layers that step inside the backward pass: the same numbers, and only where nothing else sees the gradient."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
import pytest
import torch
from torch import nn

import xbfl_torch
from xbackend_fl.adapter import Batch, Optimizer, TrainConfig
from xbfl_torch.trainer import TorchTrainer

EXAMPLE = (np.zeros((1, 6), np.float32),)


def opened(build: Callable[[], nn.Module]) -> TorchTrainer:
    torch.manual_seed(0)
    return xbfl_torch.adapter.open(build(), EXAMPLE)


def batches(count: int = 4) -> list[Batch]:
    generator = np.random.default_rng(0)
    return [
        Batch((generator.standard_normal((8, 6)).astype(np.float32),), generator.integers(0, 5, 8))
        for _ in range(count)
    ]


class Shared(nn.Module):
    """One dense layer, called twice."""

    def __init__(self) -> None:
        super().__init__()
        self.inner, self.outer = nn.Linear(6, 6), nn.Linear(6, 5)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return self.outer(torch.tanh(self.inner(torch.tanh(self.inner(x)))))


def dense() -> nn.Module:
    return nn.Sequential(
        nn.Linear(6, 16), nn.Tanh(), nn.Linear(16, 16, bias=False), nn.Tanh(), nn.Linear(16, 5)
    )


def mixed() -> nn.Module:
    return nn.Sequential(nn.Linear(6, 16), nn.LayerNorm(16), nn.ReLU(), nn.Linear(16, 5))


@pytest.mark.parametrize("build", [dense, mixed, Shared])
def test_the_same_numbers(build: Callable[[], nn.Module], monkeypatch: pytest.MonkeyPatch) -> None:
    config = TrainConfig(Optimizer("sgd", lr=0.1))
    fast, plain = opened(build), opened(build)
    one = fast.train(batches(), config)
    monkeypatch.setattr("xbfl_torch.fused.suits", lambda _: False)
    two = plain.train(batches(), config)
    assert one.loss == pytest.approx(two.loss, rel=1e-6)
    left, right = fast.read(), plain.read()
    for name in left:
        np.testing.assert_allclose(left[name], right[name], rtol=2e-5, atol=1e-7, err_msg=name)
    assert any(np.abs(left[name] - opened(build).read()[name]).max() > 1e-3 for name in left)


def test_what_is_fused() -> None:
    config = TrainConfig(Optimizer("sgd", lr=0.1))

    def count(build: Callable[[], nn.Module], changed: TrainConfig = config) -> int:
        return len(opened(build)._alone(batches(1)[0], changed))

    assert count(dense) == 3
    assert count(Shared) == 1, "a layer that is called twice is left alone"
    assert count(dense, TrainConfig(Optimizer("sgd", lr=0.1), clip_norm=1.0)) == 0
    assert count(dense, TrainConfig(Optimizer("sgd", lr=0.1, weight_decay=0.1))) == 0
    assert count(dense, TrainConfig(Optimizer("momentum", lr=0.1))) == 0


def test_nothing_is_left_behind() -> None:
    trainer = opened(dense)
    trainer.train(batches(), TrainConfig(Optimizer("sgd", lr=0.1)))
    model = trainer._model
    assert all("forward" not in vars(module) for module in model.modules())
    assert all(parameter.grad is None for parameter in model.parameters())


def test_the_largest_gradient_is_never_stored() -> None:
    def peak(config: TrainConfig) -> int:
        trainer = opened(lambda: nn.Sequential(nn.Linear(6, 2048), nn.Linear(2048, 2048), nn.Linear(2048, 5)))
        trainer.train(batches(1), config)
        with torch.profiler.profile(profile_memory=True) as profile:
            trainer.train(batches(1), config)
        return max(event.self_cpu_memory_usage for event in profile.key_averages())

    whole = 2048 * 2048 * 4
    assert peak(TrainConfig(Optimizer("sgd", lr=0.1))) < whole
    assert peak(TrainConfig(Optimizer("sgd", lr=0.1), clip_norm=1.0)) >= whole
