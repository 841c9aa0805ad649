"""Both adapters pass the shipped conformance kit; a trainer that cheats does not."""

from __future__ import annotations

from typing import Any

import keras
import numpy as np
import pytest
import torch
from keras import layers as K
from torch import nn

from xbackend_fl.adapter import Trainer
from xbackend_fl.testing import TrainerConformance
from xbfl_tensorflow.trainer import TensorFlowTrainer
from xbfl_torch.trainer import TorchTrainer

Arrays = tuple[np.ndarray[Any, Any], ...]


class TestTorch(TrainerConformance):
    def example(self) -> Arrays:
        return (np.ones((2, 3, 6, 6), np.float32),)

    def open(self) -> Trainer:
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

    def open(self) -> Trainer:
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

    def open(self) -> Trainer:
        trainer = super().open()
        trainer.reset = lambda _: None
        return trainer


def test_the_kit_catches_a_trainer_that_does_not_reset() -> None:
    with pytest.raises(AssertionError):
        _Forgetful().test_reset_makes_training_repeatable()
