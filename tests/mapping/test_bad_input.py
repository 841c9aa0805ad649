"""What cannot be described or proven is refused in one line, with the framework's own words and a way out."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import keras
import numpy as np
import pytest
import tensorflow as tf
import torch
from keras import layers as K
from torch import nn

import xbackend_fl
from tests.adapters.row import chain
from xbackend_fl.errors import MismatchError, RefusedInput, UnprovenError, UnsupportedError
from xbackend_fl.mapping.probe import memory

IMAGE = (np.zeros((1, 3, 8, 8), np.float32),)


class Failing(nn.Module):
    def forward(self, _: torch.Tensor) -> torch.Tensor:
        raise ValueError("a very particular reason " + "and many more words " * 100)


class KerasFailing(keras.Model):
    def call(self, _: Any) -> Any:
        raise ValueError("a very particular reason")


class KerasBranching(keras.Model):
    def call(self, x: Any) -> Any:
        return x if float(tf.reduce_sum(x)) > 0 else -x


BAD: list[tuple[str, Callable[[], Any], str]] = [
    ("a model that raises", Failing, "a very particular reason"),
    ("a Keras model that raises", KerasFailing, "a very particular reason"),
    ("data-dependent control flow in Keras", KerasBranching, "cannot trace"),
    ("another number of channels", lambda: nn.Conv2d(4, 2, 3), "expected input"),
    (
        "an image too small",
        lambda: chain(K.Conv2D(2, 9), shape=(None, None, 3)),
        "cannot be called with float32 [2, 8, 8, 3]",
    ),
]


@pytest.mark.parametrize(("name", "build", "words"), BAD, ids=[row[0] for row in BAD])
def test_refused_in_the_frameworks_own_words(name: str, build: Callable[[], Any], words: str) -> None:
    del name
    with pytest.raises(UnsupportedError) as caught:
        xbackend_fl.describe(build(), IMAGE)
    assert words in caught.value.message
    assert len(caught.value.message) < 500
    assert caught.value.hint


class TorchBranching(nn.Module):
    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return x if x.sum() > 0 else -x


def test_the_exporters_talk_stays_off_the_terminal(capfd: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(UnsupportedError, match="data-dependent"):
        xbackend_fl.describe(TorchBranching(), IMAGE)
    assert capfd.readouterr() == ("", "")


def test_the_number_of_inputs_counts() -> None:
    model = chain(K.Flatten(), K.Dense(2), shape=(8, 8, 3))
    with pytest.raises(UnsupportedError, match="1 inputs; received 2"):
        xbackend_fl.describe(model, IMAGE * 2)


def test_a_model_that_does_not_fit_is_refused_before_the_proof(monkeypatch: pytest.MonkeyPatch) -> None:
    model = nn.Sequential(nn.Flatten(), nn.Linear(192, 100))
    monkeypatch.setattr(memory, "available_bytes", lambda: 100_000)
    with pytest.raises(RefusedInput, match="19,300 values; a proof needs about"):
        xbackend_fl.gather_evidence(model, IMAGE)


def test_a_model_that_does_not_fit_is_matched_all_the_same(monkeypatch: pytest.MonkeyPatch) -> None:
    schema = xbackend_fl.describe(nn.Sequential(nn.Flatten(), nn.Linear(192, 10), nn.ReLU()), IMAGE)
    monkeypatch.setattr(memory, "available_bytes", lambda: 1_000)
    with pytest.raises(
        UnprovenError, match=r"structure pairs all 2 parameters.*a proof needs about"
    ) as alike:
        xbackend_fl.bind(nn.Sequential(nn.Flatten(), nn.Linear(192, 10), nn.ReLU()), schema, IMAGE)
    assert "on a larger machine" in str(alike.value.hint)
    with pytest.raises(MismatchError, match="Sigmoid"):
        xbackend_fl.bind(nn.Sequential(nn.Flatten(), nn.Linear(192, 10), nn.Sigmoid()), schema, IMAGE)


def test_a_saved_model_without_a_signature(tmp_path: Any) -> None:
    tf.saved_model.save(tf.Module(), tmp_path)
    with pytest.raises(UnsupportedError, match="no signature"):
        xbackend_fl.describe(tf.saved_model.load(tmp_path), IMAGE)
