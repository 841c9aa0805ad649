"""Schedules against torch.optim.lr_scheduler and tf.keras.optimizers.schedules, number by number."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator
from typing import Any

import numpy as np
import pytest
import torch
from torch.optim import lr_scheduler

from xbackend_fl.schedules import SCHEDULES, Schedule
from xbackend_fl.schedules.kinds.cosine import Cosine
from xbackend_fl.schedules.kinds.exponential import Exponential
from xbackend_fl.schedules.kinds.plateau import Plateau
from xbackend_fl.schedules.kinds.step import Step
from xbackend_fl.schedules.kinds.warmup import Warmup

LR, COUNT = 0.3, 24
TORCH: dict[Schedule, Callable[[Any], Any]] = {
    Step(every=5, gamma=0.3): lambda o: lr_scheduler.StepLR(o, 5, 0.3),
    Exponential(gamma=0.9): lambda o: lr_scheduler.ExponentialLR(o, 0.9),
    Cosine(length=23, floor=0.1): lambda o: lr_scheduler.CosineAnnealingLR(o, 23, 0.1 * LR),
    Warmup(length=7, start=0.2): lambda o: lr_scheduler.LinearLR(o, 0.2, 1.0, 7),
}
KERAS: dict[Schedule, Callable[[Any], Any]] = {
    Step(every=5, gamma=0.3): lambda k: k.ExponentialDecay(LR, 5, 0.3, staircase=True),
    Exponential(gamma=0.9, every=4): lambda k: k.ExponentialDecay(LR, 4, 0.9),
    Cosine(length=12): lambda k: k.CosineDecay(LR, 12),
    Cosine(length=12, floor=0.2): lambda k: k.CosineDecay(LR, 12, 0.2),
    Warmup(length=7, start=0.2): lambda k: k.PolynomialDecay(LR * 0.2, 7, LR, power=1.0),
}


def _stepped(make: Callable[[Any], Any]) -> Iterator[float]:
    optimizer = torch.optim.SGD([torch.nn.Parameter(torch.zeros(1))], LR)
    schedule = make(optimizer)
    for _ in range(COUNT):
        yield optimizer.param_groups[0]["lr"]
        optimizer.step()
        schedule.step()


def test_every_schedule_is_compared() -> None:
    assert {schedule.name for schedule in TORCH} | {"plateau"} == SCHEDULES.keys()


@pytest.mark.parametrize("ours", TORCH, ids=repr)
def test_the_numbers_are_pytorchs(ours: Schedule) -> None:
    found = [LR * ours.factor(index) for index in range(COUNT)]
    np.testing.assert_allclose(found, list(_stepped(TORCH[ours])), rtol=1e-12)


@pytest.mark.parametrize("ours", KERAS, ids=repr)
def test_the_numbers_are_those_of_keras(ours: Schedule) -> None:
    import tensorflow as tf

    theirs = KERAS[ours](tf.keras.optimizers.schedules)
    found = [LR * ours.factor(index) for index in range(COUNT)]
    # Keras computes them in float32.
    np.testing.assert_allclose(found, [float(theirs(index)) for index in range(COUNT)], rtol=1e-5, atol=1e-8)


@pytest.mark.parametrize("cooldown", [0, 2])
def test_a_plateau_is_pytorchs(cooldown: int) -> None:
    draw = np.random.default_rng(1)
    losses = [2.0 / (1 + n) + 0.3 * draw.random() for n in range(60)]
    losses[20] = math.nan
    ours = Plateau(patience=3, gamma=0.5, min_delta=0.01, cooldown=cooldown, floor=0.05)
    optimizer = torch.optim.SGD([torch.nn.Parameter(torch.zeros(1))], LR)
    # PyTorch waits for one round more than it calls patience.
    theirs = lr_scheduler.ReduceLROnPlateau(
        optimizer, factor=0.5, patience=2, threshold=0.01, threshold_mode="abs", cooldown=cooldown,
        min_lr=0.05 * LR, eps=0,
    )  # fmt: skip
    for count, loss in enumerate(losses):
        assert LR * ours.reached(losses[:count]) == pytest.approx(optimizer.param_groups[0]["lr"], rel=1e-12)
        theirs.step(loss)
    assert ours.reached(losses) == 0.05
