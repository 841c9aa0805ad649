"""Rows of the conversion catalogue for sequences: recurrent layers and attention."""

from __future__ import annotations

from typing import Any

import keras
import torch
from keras import layers as K
from torch import nn

from tests.adapters.row import Lambda, Row, chain
from xbackend_fl import with_axes


def _last(module: Any, x: torch.Tensor) -> torch.Tensor:
    return module.o(module.r(x)[0][:, -1])


def _ends(module: Any, x: torch.Tensor) -> torch.Tensor:
    state = module.r(x)[1]
    state = state[0] if isinstance(state, tuple) else state
    return module.o(torch.cat((state[-2], state[-1]), 1))


def _sequence(module: Any, x: torch.Tensor) -> torch.Tensor:
    return module.o(module.r(x)[0])


def _time_major(module: Any, x: torch.Tensor) -> torch.Tensor:
    return module.o(module.r(x)[0][-1])


def recurrent_rows() -> list[Row]:
    kinds: list[tuple[str, Any, Any]] = [
        ("LSTM", nn.LSTM, K.LSTM),
        ("GRU", nn.GRU, K.GRU),
        ("RNN", nn.RNN, K.SimpleRNN),
    ]
    rows = []
    for name, theirs, ours in kinds:
        rows += [
            Row(
                f"{name} last step",
                lambda t=theirs: Lambda(_last, r=t(4, 5, batch_first=True), o=nn.Linear(5, 3)),
                lambda k=ours: chain(k(5), K.Dense(3), shape=(None, 4)),
                (1, 6, 4),
            ),
            Row(
                f"{name} sequence",
                lambda t=theirs: Lambda(_sequence, r=t(4, 5, batch_first=True), o=nn.Linear(5, 3)),
                lambda k=ours: chain(k(5, return_sequences=True), K.Dense(3), shape=(None, 4)),
                (1, 6, 4),
            ),
            Row(
                f"{name} bidirectional ends",
                lambda t=theirs: Lambda(
                    _ends, r=t(4, 5, batch_first=True, bidirectional=True), o=nn.Linear(10, 3)
                ),
                lambda k=ours: chain(K.Bidirectional(k(5)), K.Dense(3), shape=(None, 4)),
                (1, 6, 4),
            ),
            Row(
                f"{name} two layers",
                lambda t=theirs: Lambda(_last, r=t(4, 5, num_layers=2, batch_first=True), o=nn.Linear(5, 3)),
                lambda k=ours: chain(k(5, return_sequences=True), k(5), K.Dense(3), shape=(None, 4)),
                (1, 6, 4),
            ),
            Row(
                f"{name} time-major",
                lambda t=theirs: with_axes(
                    Lambda(_time_major, r=t(4, 5), o=nn.Linear(5, 3)), inputs=[(1, 0, 2)]
                ),
                lambda k=ours: chain(k(5), K.Dense(3), shape=(None, 4)),
                (1, 6, 4),
            ),
            Row(
                f"{name} without bias",
                lambda t=theirs: Lambda(_last, r=t(4, 5, bias=False, batch_first=True), o=nn.Linear(5, 3)),
                lambda k=ours: chain(k(5, use_bias=False), K.Dense(3), shape=(None, 4)),
                (1, 6, 4),
            ),
        ]
    return rows


class KerasAttention(keras.Model):
    """Pre-norm self-attention as a subclassed model."""

    def __init__(self) -> None:
        super().__init__()
        self.norm = K.LayerNormalization(epsilon=1e-5)
        self.attention = K.MultiHeadAttention(num_heads=2, key_dim=4)
        self.head = K.Dense(3)

    def call(self, x: Any) -> Any:
        y = self.norm(x)
        return self.head(keras.ops.mean(x + self.attention(y, y), axis=1))


def attend(module: Any, x: torch.Tensor) -> torch.Tensor:
    y = module.norm(x)
    return module.head((x + module.mixer(y, y, y)[0]).mean(dim=1))


def _attention_time_major(module: Any, x: torch.Tensor) -> torch.Tensor:
    y = module.norm(x)
    return module.head((x + module.mixer(y, y, y, need_weights=False)[0]).mean(dim=0))


def attention_rows() -> list[Row]:
    return [
        Row(
            "MultiHeadAttention",
            lambda: Lambda(
                attend,
                norm=nn.LayerNorm(8),
                mixer=nn.MultiheadAttention(8, 2, batch_first=True),
                head=nn.Linear(8, 3),
            ),
            KerasAttention,
            (1, 5, 8),
        ),
        Row(
            "MultiHeadAttention time-major",
            lambda: with_axes(
                Lambda(
                    _attention_time_major,
                    norm=nn.LayerNorm(8),
                    mixer=nn.MultiheadAttention(8, 2),
                    head=nn.Linear(8, 3),
                ),
                inputs=[(1, 0, 2)],
            ),
            KerasAttention,
            (1, 5, 8),
        ),
    ]
