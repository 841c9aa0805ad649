"""Series are also compared one step longer, where both models take them: a step may be counted from either end."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import keras
import numpy as np
import pytest
import torch
from keras import layers as K
from keras import ops
from torch import nn

import xbackend_fl

SERIES = (np.random.default_rng(1).standard_normal((2, 5, 6)).astype(np.float32),)
IDS = (np.random.default_rng(1).integers(0, 9, (2, 5)),)
Function = Callable[[Any], Any]


class Read(nn.Module):
    def __init__(self, read: Function, *, table: bool = False) -> None:
        super().__init__()
        self.table = nn.Embedding(9, 6) if table else nn.Identity()
        self.head, self.read = nn.Linear(6, 4), read

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return self.head(self.read(self.table(x)))


def keras_reading(read: Function, length: int | None = None, *, table: bool = False) -> Any:
    x = keras.Input((length,), dtype="int64") if table else keras.Input((length, 6))
    return keras.Model(x, K.Dense(4)(read(K.Embedding(9, 6)(x) if table else x)))


def bound(reference: Any, candidate: Any, example: Any) -> xbackend_fl.BoundModel:
    schema = xbackend_fl.describe(reference, example)
    evidence = xbackend_fl.gather_evidence(reference, example)
    return xbackend_fl.bind(candidate, schema, example, evidence)


@pytest.mark.one_in(2)
@pytest.mark.parametrize("table", [False, True], ids=["features", "ids"])
@pytest.mark.parametrize(
    ("left", "right"),
    [
        (lambda x: x[:, 4], lambda x: x[:, -1]),
        (lambda x: x[:, :5].mean(1), lambda x: ops.mean(x, 1)),
        (lambda x: x.sum(1) / 5, lambda x: ops.mean(x, 1)),
    ],
    ids=["last", "first five", "divided by five"],
)
def test_a_step_counted_from_the_other_end_is_said(left: Function, right: Function, *, table: bool) -> None:
    found = bound(Read(left, table=table), keras_reading(right, table=table), IDS if table else SERIES)
    assert found.proof.proven
    (note,) = [note for note in found.proof.notes if "one step longer" in note]
    assert note in found.notes
    assert note.startswith("draw 19, 6")
    assert "the map holds at the example's length" in note


def test_what_is_one_function_at_every_length_is_proven_at_two() -> None:
    found = bound(Read(lambda x: x.sum(1) / x.shape[1]), keras_reading(lambda x: ops.mean(x, 1)), SERIES)
    assert found.proof.proven
    assert any("draw 19, 6×6" in check.case for check in found.proof.checks)
    assert not any("one step longer" in note for note in found.proof.notes)


def test_a_model_of_one_length_is_compared_at_that_length_with_a_note() -> None:
    found = bound(Read(lambda x: x[:, 4]), keras_reading(lambda x: x[:, -1], 5), SERIES)
    assert found.proof.proven
    assert any("one size only" in note for note in found.proof.notes)


def test_channels_are_no_length() -> None:
    model = nn.Sequential(nn.Conv1d(6, 4, 3), nn.ReLU())
    candidate = keras.Sequential([keras.Input((None, 6)), K.Conv1D(4, 3, activation="relu")])
    example = (np.zeros((2, 6, 5), np.float32),)
    found = bound(model, candidate, example)
    assert found.proof.proven
    assert not any("draw 19" in note for note in found.proof.notes)


class Averaged(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.conv, self.head = nn.Conv1d(6, 4, 3, padding=1), nn.Linear(4, 2)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return self.head(self.conv(x).sum(2) / x.shape[2])


def averaged_keras(steps: float) -> Any:
    x = keras.Input((None, 6))
    return keras.Model(x, K.Dense(2)(ops.sum(K.Conv1D(4, 3, padding="same")(x), 1) / steps))


@pytest.mark.slow
def test_a_length_behind_channels_is_said_as_well() -> None:
    example = (np.random.default_rng(1).standard_normal((2, 6, 5)).astype(np.float32),)
    found = bound(Averaged(), averaged_keras(5.0), example)
    assert found.proof.proven
    (note,) = [note for note in found.proof.notes if "one step longer" in note]
    assert note.startswith("draw 5, 6×6")
    with pytest.raises(xbackend_fl.errors.MismatchError):
        bound(Averaged(), averaged_keras(6.0), example)
