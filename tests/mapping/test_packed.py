"""Sequences that one model packs by their lengths and another one masks."""

from __future__ import annotations

from typing import Any

import keras
import numpy as np
import pytest
import torch
from keras import layers as K
from torch import nn
from torch.nn.utils.rnn import pack_padded_sequence, pad_packed_sequence

import xbackend_fl
from xbackend_fl.errors import MismatchError

TEXTS = np.array([[3, 5, 2, 0, 0], [7, 1, 4, 6, 2], [8, 0, 0, 0, 0]])
SERIES = np.random.default_rng(0).standard_normal((3, 5, 4)).astype(np.float32)
LENGTHS = np.array([3, 5, 1])


class Texts(nn.Module):
    """The last state of each text, whose length is counted."""

    def __init__(self, layer: type[nn.RNNBase], **options: Any) -> None:
        super().__init__()
        self.table = nn.Embedding(9, 4, padding_idx=0)
        self.layer, self.out = layer(4, 3, batch_first=True, **options), nn.Linear(3, 2)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        lengths = (x != 0).sum(1)
        packed = pack_padded_sequence(self.table(x), lengths.cpu(), batch_first=True, enforce_sorted=False)
        state = self.layer(packed)[1]
        return self.out((state[0] if isinstance(state, tuple) else state)[-1])


def texts_keras(*layers: Any, masked: bool = True) -> Any:
    table = K.Embedding(9, 4, mask_zero=masked)
    return keras.Sequential([keras.Input((5,), dtype="int32"), table, *layers, K.Dense(2)])


class Series(nn.Module):
    """All steps of series whose lengths are given, zero behind their ends."""

    def __init__(self) -> None:
        super().__init__()
        self.layer, self.out = nn.LSTM(4, 3, batch_first=True), nn.Linear(3, 2)

    def forward(self, x: torch.Tensor, lengths: torch.Tensor) -> torch.Tensor:
        packed = pack_padded_sequence(x, lengths, batch_first=True, enforce_sorted=False)
        return self.out(
            pad_packed_sequence(self.layer(packed)[0], batch_first=True, total_length=5)[0].sum(1)
        )


class KerasSeries(keras.Model):
    """The same with a mask that is made of the lengths."""

    def __init__(self) -> None:
        super().__init__()
        self.layer, self.out = K.LSTM(3, return_sequences=True), K.Dense(2)

    def call(self, x: Any, lengths: Any) -> Any:
        mask = keras.ops.arange(5)[None] < keras.ops.cast(lengths, "int32")[:, None]
        steps = self.layer(x, mask=mask) * keras.ops.cast(mask, "float32")[..., None]
        return self.out(keras.ops.sum(steps, 1))


def bound(reference: Any, candidate: Any, example: Any) -> Any:
    keras.utils.clear_session()
    schema = xbackend_fl.describe(reference, example)
    return xbackend_fl.bind(candidate(), schema, example, xbackend_fl.gather_evidence(reference, example))


@pytest.mark.parametrize(
    ("reference", "layers"),
    [
        (lambda: Texts(nn.RNN), lambda: [K.SimpleRNN(3)]),
        pytest.param(
            lambda: Texts(nn.LSTM, num_layers=2),
            lambda: [K.LSTM(3, return_sequences=True), K.LSTM(3)],
            marks=pytest.mark.slow,
        ),
    ],
    ids=["simple", "two layers"],
)
def test_lengths_that_are_counted(reference: Any, layers: Any) -> None:
    found = bound(reference(), lambda: texts_keras(*layers()), TEXTS)
    assert found.proof.proven
    assert any("ends in zeros" in note for note in found.proof.notes)


@pytest.mark.slow
def test_lengths_that_are_given() -> None:
    assert bound(Series(), KerasSeries, (SERIES, LENGTHS)).proof.proven


def test_padding_that_is_read_is_another_function() -> None:
    with pytest.raises(MismatchError):
        bound(Texts(nn.RNN), lambda: texts_keras(K.SimpleRNN(3), masked=False), TEXTS)
