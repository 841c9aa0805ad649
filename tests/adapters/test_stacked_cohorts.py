"""Cohorts in lockstep by kernels: the proof accepts them, what does not count changes no bit, and the sum is that of PyTorch in float64."""

from __future__ import annotations

from functools import partial
from typing import Any

import pytest
import torch
from torch import nn
from torch.nn import functional

from tests.adapters.lockstep_models import Padded, Recurrent, wide
from tests.adapters.test_lockstep import apart, clients, one_by_one, opened, start_of
from tests.adapters.triton_place import DEVICE
from xbackend_fl.adapter import OPTIMIZERS, TrainConfig
from xbfl_torch.stacked import devices, proof
from xbfl_torch.stacked.kernels import parted_images

SGD = TrainConfig(OPTIMIZERS["sgd"](lr=0.1), clip_norm=1.0)


@pytest.fixture(autouse=True)
def _kernels(monkeypatch: pytest.MonkeyPatch) -> None:
    """The interpreter's serve a processor, too."""

    def kernels(name: str, tensor: torch.Tensor) -> Any:
        return devices._module(name) if tensor.dtype == torch.float32 else None

    if DEVICE == "cpu":
        monkeypatch.setattr(devices, "kernels", kernels)


def images() -> nn.Module:
    return nn.Sequential(
        nn.Conv2d(1, 4, 3, padding=1),
        nn.BatchNorm2d(4),
        nn.ReLU(),
        nn.MaxPool2d(2),
        nn.Conv2d(4, 8, (3, 2), stride=(2, 1), bias=False),
        nn.GroupNorm(4, 8),
        nn.ReLU(),
        nn.MaxPool2d((1, 2)),
        nn.Flatten(),
        nn.Linear(8, 4),
    )


def parted() -> nn.Module:
    """With a convolution whose operands are parted, however small."""
    return nn.Sequential(
        nn.Conv2d(1, 16, 3, stride=2),
        nn.BatchNorm2d(16),
        nn.ReLU(),
        nn.Conv2d(16, 16, (2, 3), stride=(2, 1), padding=(0, 1)),
        nn.Tanh(),
        nn.Flatten(),
        nn.Linear(48, 4),
    )


def in_place() -> nn.Module:
    """As models of images are written: ReLU changes what a convolution made, and what was normalised."""
    return nn.Sequential(
        nn.Conv2d(1, 16, 3, stride=2, padding=1),
        nn.ReLU(inplace=True),
        nn.Conv2d(16, 16, 3, bias=False),
        nn.BatchNorm2d(16),
        nn.ReLU(inplace=True),
        nn.MaxPool2d(2),
        nn.Hardtanh(-0.5, 0.5, inplace=True),
        nn.Flatten(),
        nn.Linear(16, 4),
    )


class Residual(nn.Module):
    """A block of a residual network; its sum and its ReLUs are in place."""

    def __init__(self) -> None:
        super().__init__()
        self.first, self.second = nn.Conv2d(1, 4, 3, stride=2), nn.Conv2d(4, 4, 3, padding=1, bias=False)
        self.norms = nn.ModuleList([nn.GroupNorm(2, 4), nn.GroupNorm(2, 4)])
        self.relu, self.last = nn.ReLU(inplace=True), nn.Linear(4, 4)

    def forward(self, value: torch.Tensor) -> Any:
        identity = self.relu(self.norms[0](self.first(value)))
        out = self.norms[1](self.second(identity))
        out += identity
        return self.last(self.relu(out).mean((2, 3)))


class Changed(nn.Module):
    """What was normalised is changed before the next step, or only a view of it is."""

    def __init__(self) -> None:
        super().__init__()
        self.first, self.last = nn.Conv2d(1, 4, 3, stride=2, padding=1), nn.Linear(4, 4)
        self.batches, self.groups = nn.BatchNorm2d(4), nn.GroupNorm(2, 4)

    def forward(self, value: torch.Tensor) -> Any:
        known = self.first(value)
        scaled, shown = self.groups(known), self.batches(known)
        scaled *= -0.5
        shown[:, :, ::2] = 0.3
        return self.last(torch.relu(scaled).mean((2, 3)) + functional.max_pool2d(shown, 2).mean((2, 3)))


class Overwritten(nn.Module):
    """Changes what autograd will read: PyTorch refuses to differentiate it."""

    def __init__(self, norm: Any) -> None:
        super().__init__()
        self.first, self.norm, self.last = nn.Conv2d(1, 4, 3, stride=2), norm(4), nn.Linear(4, 4)

    def forward(self, value: torch.Tensor) -> Any:
        known = self.first(value)
        hidden = torch.relu(self.norm(known))
        known *= 2
        return self.last(hidden.mean((2, 3)))


@pytest.mark.parametrize("norm", [nn.BatchNorm2d, partial(nn.GroupNorm, 2)])
def test_what_pytorch_cannot_differentiate_is_not_taken(norm: Any) -> None:
    lockstep, _ = opened(partial(Overwritten, norm), (DEVICE, torch.float32))
    assert "modified by an inplace operation" in (lockstep.takes(clients(2), SGD) or "")


@pytest.mark.parametrize(
    "build",
    [
        images,
        parted,
        wide,
        Padded,
        partial(Recurrent, nn.LSTM),
        in_place,
        Residual,
        Changed,
    ],
)
def test_cohorts(build: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    seen: list[tuple[torch.Tensor, ...]] = []
    check = proof.check_independent

    def spied(*tensors: torch.Tensor) -> None:
        seen.append(tensors)
        check(*tensors)

    monkeypatch.setattr(proof, "check_independent", spied)
    called, forward = [], parted_images.forward

    def counted(*arguments: Any) -> Any:
        called.append(len(arguments))
        return forward(*arguments)

    monkeypatch.setattr(parted_images, "_LEAST", 0)
    monkeypatch.setattr(parted_images, "forward", counted)
    lockstep, model = opened(build, (DEVICE, torch.float32))
    start = start_of(model)
    assert lockstep.takes(clients(2), SGD) is None
    assert seen
    assert bool(called) == (build in {parted, in_place})
    if DEVICE == "cpu":
        for found, otherwise, again, _ in seen:
            assert torch.equal(found, otherwise)
            assert torch.equal(found, again)
    found = lockstep.train(start, clients(2), SGD).sums
    sgd = partial(torch.optim.SGD, lr=0.1)
    theirs = [
        one_by_one(model, clients(2), sgd, functional.cross_entropy, 1.0, dtype)
        for dtype in (torch.float64, torch.float32)
    ]
    assert apart(found, theirs[0]) < max(1e-5, 3 * apart(theirs[1], theirs[0]))
