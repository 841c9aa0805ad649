"""Masks of dropout in lockstep are a participant's own, whoever else trains and wherever: Philox by its seed, step, call and place."""

from __future__ import annotations

import copy
from dataclasses import replace
from typing import Any

import numpy as np
import pytest
import torch
from torch import nn
from torch.nn import functional

from tests.adapters.test_lockstep import IMAGES, LABELS, PLACES, apart, check, clients, opened, start_of
from xbackend_fl.adapter import OPTIMIZERS, ClientWork, TrainConfig
from xbfl_torch.stacked.dropout import kept, philox

SGD = TrainConfig(OPTIMIZERS["sgd"](lr=0.1))


def dropping() -> nn.Module:
    return nn.Sequential(
        nn.Conv2d(1, 6, 3, padding=1),
        nn.Dropout2d(0.4),
        nn.Tanh(),
        nn.Flatten(),
        nn.Dropout(0.25),
        nn.Linear(384, 20),
        nn.Tanh(),
        nn.Dropout(0.0),
        nn.Dropout(0.5, inplace=True),
        nn.Linear(20, 4),
    )


def seeded() -> list[ClientWork]:
    return [replace(part, seed=1000 + index) for index, part in enumerate(clients())]


def numbers(seed: int, step: int, call: int, size: int) -> np.ndarray:
    """Once more, value by value in Python's integers, from the paper: ``[size]``."""
    found = []
    for quad in range(-(-size // 4)):
        c, k = [quad, step, call, 0], [seed & 0xFFFFFFFF, seed >> 32]
        for _ in range(10):
            high0, low0 = divmod(0xD2511F53 * c[0], 1 << 32)
            high1, low1 = divmod(0xCD9E8D57 * c[2], 1 << 32)
            c = [high1 ^ c[1] ^ k[0], low1, high0 ^ c[3] ^ k[1], low0]
            k = [(k[0] + 0x9E3779B9) % (1 << 32), (k[1] + 0xBB67AE85) % (1 << 32)]
        found += c
    return np.array(found[:size])


class Told(nn.Module):
    """Drops by those numbers."""

    def __init__(self, rate: float, call: int, *, whole: bool) -> None:
        super().__init__()
        self.rate, self.call, self.whole, self.seed, self.steps = rate, call, whole, 0, 0

    def forward(self, value: torch.Tensor) -> torch.Tensor:
        size = value.shape[:2].numel() if self.whole else value.numel()
        found = numbers(self.seed, self.steps, self.call, size) >= self.rate * 2**32
        self.steps += 1
        mask = torch.from_numpy(found).to(value.dtype)
        mask = mask.reshape(*value.shape[:2], 1, 1) if self.whole else mask.reshape(value.shape)
        return value * mask / (1 - self.rate)


def one_by_one(
    model: nn.Module, work: list[ClientWork], dtype: torch.dtype = torch.float64
) -> dict[str, Any]:
    sums: dict[str, Any] = {}
    for part in work:
        mine = copy.deepcopy(model).cpu().to(dtype).train()
        assert isinstance(mine, nn.Sequential)
        for place, told in (
            (1, Told(0.4, 0, whole=True)),
            (4, Told(0.25, 1, whole=False)),
            (8, Told(0.5, 2, whole=False)),
        ):
            told.seed = part.seed
            mine[place] = told
        stepper = torch.optim.SGD(mine.parameters(), lr=0.1)
        for rows in part.batches:
            stepper.zero_grad()
            images = torch.from_numpy(IMAGES[rows]).to(dtype)
            functional.cross_entropy(mine(images), torch.from_numpy(LABELS[rows])).backward()
            stepper.step()
        for (name, after), before in zip(mine.named_parameters(), model.parameters(), strict=True):
            change = after.detach().double() - before.detach().cpu().double()
            sums[name] = sums.get(name, 0.0) + change.numpy() * part.num_examples
    return sums


@pytest.mark.parametrize("place", PLACES)
def test_each_one_has_masks_of_its_own(place: Any) -> None:
    lockstep, model = opened(dropping, place)
    assert lockstep.takes(seeded(), SGD) is None
    found = lockstep.train(start_of(model), seeded(), SGD).sums
    check(found, place, lambda dtype=torch.float64: one_by_one(model, seeded(), dtype))


def test_whoever_else_trains() -> None:
    lockstep, model = opened(dropping, PLACES[0])
    start, work = start_of(model), seeded()
    whole = {name: array.copy() for name, array in lockstep.train(start, work, SGD).sums.items()}
    parts: dict[str, Any] = {}
    for some in (work[2:], work[:2]):
        for name, array in lockstep.train(start, some, SGD).sums.items():
            parts[name] = parts.get(name, 0.0) + array
    assert apart(parts, whole) < 1e-12
    others = [replace(part, seed=part.seed + 1) for part in work]
    assert apart(lockstep.train(start, others, SGD).sums, whole) > 0.01
    without = replace(SGD, dropout=False)
    still = {name: array.copy() for name, array in lockstep.train(start, work, without).sums.items()}
    assert apart(lockstep.train(start, others, without).sums, still) == 0


@pytest.mark.parametrize(
    ("counter", "key", "expected"),
    [
        (0x0, 0x0, "6627e8d5 e169c58d bc57ac4c 9b00dbd8"),
        (0xFFFFFFFF, 0xFFFFFFFF, "408f276d 41c83b0e a20bc7c6 6d5451fd"),
    ],
)
def test_the_authors_own_answers(counter: int, key: int, expected: str) -> None:
    """Of Random123's ``kat_vectors``."""
    found = philox((torch.tensor(counter),) * 4, (torch.tensor(key),) * 2)
    assert " ".join(f"{int(number):08x}" for number in found) == expected


@pytest.mark.parametrize("rate", [0.1, 0.5, 0.9])
def test_how_many_stay(rate: float) -> None:
    seeds = torch.arange(20) + (5 << 33)
    stays = kept(seeds, torch.tensor([3]), 1, 5003, rate).double()
    assert stays.shape == (20, 5003)
    assert abs(float(stays.mean()) - (1 - rate)) < 5 * (rate * (1 - rate) / stays.numel()) ** 0.5
    shared = np.corrcoef(stays.numpy())
    assert np.abs(shared - np.eye(20)).max() < 0.08


@pytest.mark.parametrize(
    "build",
    [
        lambda: nn.TransformerEncoderLayer(8, 2, 16, 0.1, batch_first=True),
        lambda: nn.LSTM(8, 4, 2, dropout=0.5, batch_first=True),
        lambda: nn.AlphaDropout(0.2),
    ],
)
def test_what_drops_in_another_way(build: Any) -> None:
    class Rows(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.layer, self.head = build(), nn.LazyLinear(4)

        def forward(self, images: torch.Tensor) -> torch.Tensor:
            found = self.layer(images[:, 0])
            return self.head((found[0] if isinstance(found, tuple) else found).flatten(1))

    lockstep, _ = opened(Rows, PLACES[0])
    assert "drops" in str(lockstep.refusal(SGD))
    assert lockstep.refusal(replace(SGD, dropout=False)) is None
