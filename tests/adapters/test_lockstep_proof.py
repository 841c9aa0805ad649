"""What the proof before a cohort in lockstep finds: examples that depend on each other, models that change, batches and examples it cannot use."""

from __future__ import annotations

import subprocess
from functools import partial
from typing import Any

import numpy as np
import pytest
import torch
from torch import nn
from torch.nn import functional

from tests.adapters.lockstep_models import (
    Attention,
    Chained,
    Ids,
    Padded,
    Recurrent,
    grouped,
    normalised,
    pooled,
    wide,
)
from tests.adapters.test_lockstep import IMAGES, PLACES, apart, clients, opened, start_of
from xbackend_fl.adapter import OPTIMIZERS, ClientWork, TrainConfig
from xbfl_torch.stacked import trial

SGD = TrainConfig(OPTIMIZERS["sgd"](lr=0.1))
FLOAT32 = ("cpu", torch.float32)


class Less(nn.Module):
    """Takes a share of the batch's mean away."""

    def __init__(self, share: float) -> None:
        super().__init__()
        self.share, self.first, self.head = share, nn.Linear(64, 32), nn.Linear(32, 4)

    def forward(self, images: torch.Tensor) -> torch.Tensor:
        hidden = torch.relu(self.first(images.flatten(1)))
        return self.head(hidden - self.share * hidden.mean(0))


class Spread(nn.Module):
    """Has how much the examples of a batch differ as one feature more, as discriminators have."""

    def __init__(self) -> None:
        super().__init__()
        self.first, self.head = nn.Linear(64, 32), nn.Linear(33, 4)

    def forward(self, images: torch.Tensor) -> torch.Tensor:
        hidden = torch.tanh(self.first(images.flatten(1)))
        spread = (hidden - hidden.mean(0)).square().mean().expand(len(hidden), 1)
        return self.head(torch.cat([hidden, spread], 1))


def averaging() -> nn.Module:
    """Its statistics are averages over all images of a batch."""
    layer = nn.InstanceNorm2d(1, track_running_stats=True)
    return nn.Sequential(layer, nn.Flatten(), nn.Linear(64, 4))


@pytest.mark.parametrize("place", [*PLACES, FLOAT32])
@pytest.mark.parametrize(
    "build", [*(partial(Less, share) for share in (0.3, 0.01, 0.001)), Spread, averaging]
)
def test_examples_that_depend_on_each_other(build: Any, place: Any) -> None:
    lockstep, _ = opened(build, place)
    assert "examples of a batch depend on each other" in str(lockstep.refusal(SGD))


@pytest.mark.parametrize("place", [FLOAT32, *PLACES[1:]])
@pytest.mark.parametrize(
    "build",
    [
        partial(Less, 0.0),
        normalised,
        pooled,
        Chained,
        grouped,
        wide,
        Attention,
        Ids,
        Padded,
        partial(Recurrent, nn.LSTM, num_layers=2, bidirectional=True),
        partial(Recurrent, nn.GRU),
        partial(Recurrent, nn.RNN, nonlinearity="relu"),
    ],
)
def test_examples_that_do_not(build: Any, place: Any) -> None:
    """In float32, with more places that do not count than examples that do."""
    lockstep, _ = opened(build, place)
    assert lockstep.takes([*clients(), ClientWork((np.arange(37),), 37)], SGD) is None


@pytest.mark.parametrize("place", PLACES)
def test_a_row_of_padding_stays_however_many_train_at_a_time(place: Any) -> None:
    lockstep, model = opened(Padded, place)
    start, found = start_of(model), []
    for slots in (None, 2, 1):
        lockstep._upper = slots or lockstep._upper
        sums = lockstep.train(start, clients(), SGD).sums
        found.append({name: array.copy() for name, array in sums.items()})
        assert not sums["one.weight"][4].any()
        assert not sums["two.weight"][5].any()
        assert sums["one.weight"][5].any()
    assert max(apart(other, found[0]) for other in found) < (1e-12 if place[0] == "cpu" else 1e-6)


@pytest.mark.parametrize(
    ("options", "why"),
    [
        ({"max_norm": 0.5}, "max_norm"),
        ({"scale_grad_by_freq": True}, "scale_grad_by_freq"),
        ({"sparse": True}, "sparse"),
    ],
)
def test_tables_without_a_stacked_form(options: Any, why: str) -> None:
    class Looking(Ids):
        def forward(self, images: torch.Tensor) -> torch.Tensor:
            ids = (images.flatten(1)[:, :5] * 2).clamp(-4, 4).long() + 4
            return self.head(functional.embedding(ids, self.table.weight, **options).sum(1))

    lockstep, _ = opened(Looking, PLACES[0])
    assert str(lockstep.refusal(SGD)).startswith(f"model Looking: {why}")


class Hooked(nn.Module):
    """Halves a gradient by a hook."""

    def __init__(self) -> None:
        super().__init__()
        self.first, self.head = nn.Linear(64, 8), nn.Linear(8, 4)

    def forward(self, images: torch.Tensor) -> torch.Tensor:
        hidden = torch.tanh(self.first(images.flatten(1)))
        if hidden.requires_grad:
            hidden.register_hook(lambda grad: grad * 0.5)
        return self.head(hidden)


class Counting(nn.Module):
    """Grows with every step that it was called in."""

    def __init__(self) -> None:
        super().__init__()
        self.head = nn.Linear(64, 4)
        self.register_buffer("calls", torch.zeros((), dtype=torch.long))

    def forward(self, images: torch.Tensor) -> torch.Tensor:
        self.calls += 1
        return self.head(images.flatten(1)) * (1 + 0.1 * self.calls)


@pytest.mark.parametrize("build", [Hooked, Counting])
def test_what_is_otherwise_for_another_reason(build: Any) -> None:
    reason = str(opened(build, PLACES[0])[0].refusal(SGD))
    assert "changes otherwise than one by one" in reason
    assert "examples" not in reason


class Inverting(nn.Module):
    """Inverts a matrix, of which PyTorch asks the device whether it could."""

    def __init__(self) -> None:
        super().__init__()
        self.first, self.head = nn.Linear(64, 8), nn.Linear(8, 4)

    def forward(self, images: torch.Tensor) -> torch.Tensor:
        weight = self.first.weight[:, :8] + 4 * torch.eye(8, device=images.device, dtype=images.dtype)
        return self.head(torch.tanh(self.first(images.flatten(1)) @ torch.linalg.inv(weight)))


def test_a_layer_that_waits_for_the_device() -> None:
    """On a processor nothing is recorded, and it trains; on a GPU it is refused before, and others are recorded after it."""
    assert opened(Inverting, PLACES[0])[0].refusal(SGD) is None
    if torch.cuda.is_available():
        assert "synchronizing" in str(opened(Inverting, PLACES[1])[0].refusal(SGD))
        assert opened(wide, PLACES[1])[0].refusal(SGD) is None


@pytest.mark.parametrize("error", [FileNotFoundError("gcc"), subprocess.CalledProcessError(1, ["gcc"])])
def test_a_compiler_that_fails_is_a_reason(monkeypatch: pytest.MonkeyPatch, error: Exception) -> None:
    def fail(*_: Any) -> None:
        raise error

    monkeypatch.setattr(trial, "Graphs", fail)
    assert "gcc" in str(opened(wide, PLACES[0])[0].refusal(SGD))


def test_examples_without_a_number() -> None:
    images = IMAGES.copy()
    images[[0, 5]] = np.nan
    assert opened(wide, PLACES[0], images)[0].refusal(SGD) is None
    images[:] = np.inf
    reason = str(opened(wide, PLACES[0], images)[0].refusal(SGD))
    assert reason == (
        "the examples that were looked at (rows 0, 1, 2, 3, 4, 5, 6, 7, 8, 9) make no number of loss or gradient, one by one either"
    )


@pytest.mark.parametrize(
    ("layers", "alone"),
    [
        ([nn.Flatten(), nn.Linear(64, 4), nn.BatchNorm1d(4)], False),
        ([nn.Conv2d(1, 5, 8), nn.BatchNorm2d(5), nn.Flatten(), nn.Linear(5, 4)], False),
        (
            [
                nn.Unflatten(3, (1, 8)),
                nn.Conv3d(1, 5, (8, 1, 8)),
                nn.BatchNorm3d(5),
                nn.Flatten(),
                nn.Linear(5, 4),
            ],
            False,
        ),
        ([nn.Flatten(2), nn.BatchNorm1d(1), nn.Flatten(), nn.Linear(64, 4)], True),
        ([nn.BatchNorm2d(1), nn.Flatten(), nn.Linear(64, 4)], True),
    ],
)
def test_a_batch_of_one_example(layers: Any, alone: bool) -> None:  # noqa: FBT001
    """It has no variance where a channel is one number."""
    lockstep, _ = opened(lambda: nn.Sequential(*layers), PLACES[0])
    assert lockstep.takes(clients(2), SGD) is None
    reason = lockstep.takes([ClientWork((np.arange(1),), 1)], SGD)
    assert reason is None if alone else "has no variance" in str(reason)
