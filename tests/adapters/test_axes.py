"""Orders of axes: every model gets the example as it is, unless its user declares another order."""

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
from tests.adapters.row import Lambda, chain
from xbackend_fl import with_axes
from xbackend_fl.errors import MismatchError, RefusedInput

SHAPES = [(1, 6, 4), (3, 4, 4), (2, 1, 4)]
"""Also with as many steps as features, or as probes have examples: shapes then tell nothing."""


def bound(reference: Any, candidate: Any, shape: tuple[int, ...]) -> Any:
    example = (np.random.default_rng(0).standard_normal(shape).astype(np.float32),)
    schema, evidence = xbackend_fl.describe_reference(reference, example)
    return xbackend_fl.bind(candidate, schema, example, evidence)


def reading(call: Callable[..., Any], kind: Any = nn.LSTM, **options: Any) -> nn.Module:
    return Lambda(call, r=kind(4, 5, **options), o=nn.Linear(5, 3))


def sequence(m: Any, x: torch.Tensor) -> torch.Tensor:
    return m.o(m.r(x)[0])


def turned(m: Any, x: torch.Tensor) -> torch.Tensor:
    return m.o(m.r(x.transpose(0, 1))[0].transpose(0, 1))


def last_in_time(m: Any, x: torch.Tensor) -> torch.Tensor:
    return m.o(m.r(x)[0][-1])


def attending(m: Any, x: torch.Tensor) -> torch.Tensor:
    return m.o(m.r(x, x, x, need_weights=False)[0])


def keras_sequence(kind: Any = K.LSTM) -> Any:
    return chain(kind(5, return_sequences=True), K.Dense(3), shape=(None, 4))


class Turned(keras.Model):
    """Takes and returns ``[time, batch, features]``."""

    def __init__(self) -> None:
        super().__init__()
        self.r, self.o = K.LSTM(5, return_sequences=True), K.Dense(3)

    def call(self, x: Any) -> Any:
        return tf.transpose(self.o(self.r(tf.transpose(x, (1, 0, 2)))), (1, 0, 2))


@pytest.mark.one_in(4)
@pytest.mark.parametrize(
    ("kind", "ours", "shape"),
    [
        *(pytest.param(nn.LSTM, K.LSTM, shape, marks=pytest.mark.slow) for shape in SHAPES),
        (nn.GRU, K.GRU, SHAPES[1]),
        (nn.RNN, K.SimpleRNN, SHAPES[1]),
    ],
)
def test_a_layer_that_reads_time_first_is_not_one_that_reads_the_batch_first(
    kind: Any, ours: Any, shape: tuple[int, ...]
) -> None:
    with pytest.raises(MismatchError):
        bound(reading(sequence, kind), keras_sequence(ours), shape)


@pytest.mark.parametrize("shape", [(1, 6, 4), (1, 4, 4)])
def test_nor_is_its_last_step(shape: tuple[int, ...]) -> None:
    with pytest.raises(MismatchError):
        bound(reading(last_in_time), chain(K.LSTM(5), K.Dense(3), shape=(None, 4)), shape)


def test_nor_is_attention() -> None:
    batch_first = Lambda(attending, r=nn.MultiheadAttention(4, 2, batch_first=True), o=nn.Linear(4, 3))
    time_first = Lambda(attending, r=nn.MultiheadAttention(4, 2), o=nn.Linear(4, 3))
    with pytest.raises(MismatchError):
        bound(batch_first, time_first, (1, 6, 4))
    assert bound(batch_first, with_axes(time_first, inputs=[(1, 0, 2)]), (1, 6, 4)).proof.proven


@pytest.mark.parametrize("shape", [SHAPES[0], pytest.param(SHAPES[1], marks=pytest.mark.slow)])
def test_twins_that_turn_by_themselves_are_proven(shape: tuple[int, ...]) -> None:
    assert bound(reading(sequence), Turned(), shape).proof.proven
    assert bound(reading(turned), keras_sequence(), shape).proof.proven


@pytest.mark.one_in(2)
@pytest.mark.parametrize("shape", [pytest.param((1, 6, 4), marks=pytest.mark.slow), (1, 4, 4)])
def test_declared_orders_are_carried_out_and_said(shape: tuple[int, ...]) -> None:
    reference = with_axes(reading(sequence), inputs=[(1, 0, 2)], outputs=[(1, 0, 2)])
    assert bound(reference, keras_sequence(), shape).proof.proven
    found = bound(reading(sequence, batch_first=True), with_axes(Turned(), inputs=[(1, 0, 2)]), shape)
    assert [axes.perm for axes in found.binding.inputs] == [(1, 0, 2)]
    assert found.binding.inputs[0].note == "declared"
    assert [axes.perm for axes in found.binding.outputs] == [(1, 0, 2)]


def test_a_declaration_that_fits_no_axes() -> None:
    model = with_axes(reading(sequence), inputs=[(1, 0)])
    with pytest.raises(RefusedInput, match=r"\(1, 0\), which is no order of 3 axes"):
        xbackend_fl.describe(model, (np.zeros((1, 6, 4), np.float32),))


class Bare(keras.Model):
    """A convolution over time of a kernel of its own: no layer says in which order it reads its data."""

    def __init__(self) -> None:
        super().__init__()
        self.kernel = self.add_weight(shape=(3, 4, 5), name="kernel")

    def call(self, x: Any) -> Any:
        return tf.nn.conv1d(x, self.kernel, 1, "VALID")


def test_a_model_that_takes_one_order_alone_gets_it() -> None:
    kernel = Lambda(lambda m, x: m.c(x), c=nn.Conv1d(4, 5, 3, bias=False))
    found = bound(kernel, Bare(), (1, 4, 7))
    assert found.proof.proven
    assert [axes.perm for axes in found.binding.inputs] == [(0, 2, 1)]


def test_a_model_that_takes_no_order_is_refused_for_the_usual_one() -> None:
    with pytest.raises(RefusedInput, match=r"float32 \[2, 6, 7\]"):
        bound(Lambda(lambda m, x: m.c(x), c=nn.Conv1d(6, 5, 3, bias=False)), Bare(), (1, 6, 7))


def grid(m: Any, x: torch.Tensor) -> torch.Tensor:
    y = m.c(x)
    n, _, h, w = y.shape
    return y.view(n, 3, 7, h, w).permute(0, 1, 3, 4, 2)


def keras_grid() -> Any:
    inside = keras.Input((6, 5, 8))
    return keras.Model(inside, K.Permute((3, 1, 2, 4))(K.Reshape((6, 5, 3, 7))(K.Conv2D(21, 1)(inside))))


def test_outputs_that_both_return_in_one_order_agree_in_it() -> None:
    reference = Lambda(grid, c=nn.Conv2d(8, 21, 1))
    found = bound(reference, keras_grid(), (1, 8, 6, 5))
    assert found.proof.proven
    assert found.schema.outputs[0].shape == (2, 3, 6, 5, 7)
    assert all(axes.note for axes in (*found.binding.inputs, *found.binding.outputs))
