"""Both adapters pass the shipped conformance kit; a trainer that cheats does not."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from typing import Any

import keras
import numpy as np
import pytest
import torch
from keras import layers as K
from torch import nn

import xbfl_torch.local_stepper
from xbackend_fl.adapter import OPTIMIZERS, Optimizer, TrainConfig, Trainer
from xbackend_fl.testing import TrainerConformance
from xbfl_tensorflow.trainer import TensorFlowTrainer
from xbfl_torch.trainer import TorchTrainer

Arrays = tuple[np.ndarray[Any, Any], ...]


class TestTorch(TrainerConformance):
    def example(self) -> Arrays:
        return (np.ones((2, 3, 6, 6), np.float32),)

    def load_model(self) -> Trainer:
        torch.manual_seed(0)
        layers = (
            nn.Conv2d(3, 4, 3),
            nn.BatchNorm2d(4),
            nn.Tanh(),
            nn.Dropout(0.5),
            nn.Flatten(),
            nn.Linear(64, 2),
        )
        return TorchTrainer(nn.Sequential(*layers), self.example())


class TestTensorFlow(TrainerConformance):
    def example(self) -> Arrays:
        return (np.ones((2, 3, 6, 6), np.float32),)

    def load_model(self) -> Trainer:
        keras.utils.set_random_seed(0)
        layers = (
            K.Conv2D(4, 3, activation="tanh"),
            K.BatchNormalization(),
            K.Dropout(0.5),
            K.Flatten(),
            K.Dense(2),
        )
        return TensorFlowTrainer(keras.Sequential([keras.Input((6, 6, 3)), *layers]), self.example())


class _Forgetful(TestTorch):
    """A trainer whose reset does nothing."""

    __test__ = False

    def load_model(self) -> Trainer:
        trainer = super().load_model()
        trainer.reset = lambda _: None
        return trainer


def test_the_kit_catches_a_trainer_that_does_not_reset() -> None:
    with pytest.raises(AssertionError):
        _Forgetful().test_reset_makes_training_repeatable()


class _Inside(TestTorch):
    """A trainer whose optimizer has a constant elsewhere: the epsilon inside the root, or no decay."""

    __test__ = False
    wrong: tuple[str, Callable[[Optimizer], Optimizer]]

    def load_model(self) -> Trainer:
        trainer = super().load_model()
        name, change = self.wrong
        train = trainer.train

        def other(batches: Any, config: TrainConfig) -> Any:
            rule = change(config.optimizer) if config.optimizer.name == name else config.optimizer
            return train(batches, replace(config, optimizer=rule))

        trainer.train = other
        return trainer


@pytest.mark.parametrize(
    ("name", "change"),
    [
        ("adam", lambda rule: replace(rule, eps=2 * rule.eps)),
        ("adamw", lambda rule: OPTIMIZERS["adam"](**(vars(rule) | {"name": "adam"}))),
        ("momentum", lambda rule: replace(rule, weight_decay=0.0)),
        ("nesterov", lambda rule: OPTIMIZERS["momentum"](**(vars(rule) | {"name": "momentum"}))),
        ("adagrad", lambda rule: replace(rule, lr=1.01 * rule.lr)),
        ("rmsprop", lambda rule: replace(rule, alpha=0.9)),
        ("sgd", lambda rule: replace(rule, weight_decay=0.09) if rule.weight_decay else rule),
    ],
)
def test_the_kit_catches_an_optimizer_with_another_formula(name: str, change: Any) -> None:
    kit = _Inside()
    kit.wrong = (name, change)
    with pytest.raises(AssertionError, match=f"^{name}, clip_norm None"):
        kit.test_one_step_is_the_formula()


def test_the_kit_catches_clipping_by_another_norm(monkeypatch: pytest.MonkeyPatch) -> None:
    clip = xbfl_torch.local_stepper._clip
    monkeypatch.setattr(
        xbfl_torch.local_stepper,
        "_clip",
        lambda grads, found, limit: clip(grads, found, limit and 1.1 * limit),
    )
    with pytest.raises(AssertionError, match=r"^sgd, clip_norm \d"):
        TestTorch().test_one_step_is_the_formula()


def test_the_kit_catches_a_gradient_that_is_not_that_of_the_loss(monkeypatch: pytest.MonkeyPatch) -> None:
    step = xbfl_torch.local_stepper.LocalStepper.step
    monkeypatch.setattr(
        xbfl_torch.local_stepper.LocalStepper,
        "step",
        lambda self, output, cotangent=None: step(self, 1.2 * output, cotangent),
    )
    with pytest.raises(AssertionError):
        TestTorch().test_training_follows_the_slope_of_its_loss()
