"""Models that are written in unusual ways are proven, or refused with one reason that is true; none ends in a traceback."""

from __future__ import annotations

import sys
from collections.abc import Callable
from typing import Any

import keras
import numpy as np
import pytest
import tensorflow as tf
import tf_keras
import torch
from keras import layers as K
from torch import nn
from torch.nn import functional

import xbackend_fl
from tests.adapters.row import Lambda
from xbackend_fl.errors import RefusedInput

GENERATOR = np.random.default_rng(0)
VECTOR = GENERATOR.standard_normal((1, 6)).astype(np.float32)
SERIES = GENERATOR.standard_normal((1, 5, 6)).astype(np.float32)
IMAGE = GENERATOR.standard_normal((1, 3, 16, 16)).astype(np.float32)
MASK = np.array([[1, 1, 1, 0, 0]])
WORDS = np.array([[0, 3, 1, 4, 2]])


class ByKeyword(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.l = nn.Linear(6, 4)

    def forward(self, x: torch.Tensor, *, gate: torch.Tensor) -> torch.Tensor:
        return self.l(x) * gate[:, :4]


class Masked(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.l = nn.Linear(6, 4)

    def forward(self, x: torch.Tensor, kept: torch.Tensor) -> torch.Tensor:
        return self.l(x) + ((1 - kept) * -1e4)[:, :, None]


class Holding(nn.Module):
    """Holds a tensor that is neither parameter nor buffer."""

    def __init__(self) -> None:
        super().__init__()
        self.l, self.t = nn.Linear(6, 4), torch.randn(4)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return self.l(x) + self.t


class Complex(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.p = nn.Parameter(torch.ones(6) * 1j)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return (x * self.p).real


class Looking(nn.Module):
    """Asserts on its data, and keeps what it saw."""

    def __init__(self) -> None:
        super().__init__()
        self.l, self.d = nn.Linear(6, 4), nn.Dropout(0.5)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        torch._assert_async((x.abs().max() < 1e30).all(), "too large")
        self.seen = self.d(torch.sort(x).values)
        return self.l(self.d(x))


class KerasModel(keras.Model):
    def __init__(self, call: Callable[[Any, Any], Any], **layers: Any) -> None:
        super().__init__()
        self.computes = call
        for name, layer in layers.items():
            setattr(self, name, layer)

    def call(self, x: Any) -> Any:
        return self.computes(self, x)


class OneByOne(keras.Model):
    def __init__(self) -> None:
        super().__init__()
        self.d = K.Dense(4)

    def call(self, x: Any, gate: Any) -> Any:
        return self.d(x) * self.d(gate)


class LegacyModel(tf_keras.Model):  # type: ignore[misc]  it has no types
    def __init__(self) -> None:
        super().__init__()
        self.d = tf_keras.layers.Dense(4)

    def call(self, x: Any) -> Any:
        return tf_keras.activations.gelu(self.d(inputs=x))


def asserting(m: Any, x: Any) -> Any:
    tf.debugging.assert_less(tf.reduce_max(x), 1e30)
    tf.print(tf.sort(x), output_stream="file:///dev/null")
    return m.d(tf.debugging.check_numerics(x, "nan"))


def dense() -> nn.Module:
    return nn.Linear(6, 4)


def from_dict() -> Any:
    a, b = keras.Input((6,), name="a"), keras.Input((5, 6), name="b")
    return keras.Model({"b": b, "a": a}, K.Dense(4)(a) - K.GlobalAveragePooling1D()(K.Dense(4)(b)))


def grid(m: Any, x: torch.Tensor) -> torch.Tensor:
    seen = m.c(x)
    tokens = m.l(seen.flatten(2).transpose(1, 2))
    return m.b(tokens.transpose(1, 2).reshape(seen.shape)).mean((2, 3))


def prove(model: Any, example: tuple[np.ndarray[Any, Any], ...]) -> xbackend_fl.BoundModel:
    """A model with itself."""
    schema, evidence = xbackend_fl.describe_reference(model, example)
    return xbackend_fl.bind(model, schema, example, evidence)


Row = tuple[str, Callable[[], Any], tuple[np.ndarray[Any, Any], ...]]

PROVEN: list[Row] = [
    ("arguments by keyword alone", ByKeyword, (VECTOR, VECTOR)),
    ("assertions, and what is kept", Looking, (VECTOR,)),
    ("a tensor that is no buffer", Holding, (VECTOR,)),
    ("a tensor written out", lambda: Lambda(lambda m, x: m.l(x) * torch.tensor([1, 2, 3, 4]), l=dense()), (VECTOR,)),
    ("positions for a batch", lambda: Lambda(lambda m, x: m.l(x + m.e(torch.arange(5).expand(len(x), 5))), l=dense(), e=nn.Embedding(5, 6)), (SERIES,)),
    ("a constant for a batch", lambda: Lambda(lambda m, x: m.l(torch.cat([torch.linspace(0, 1, 6).expand(len(x), 1, 6), x], 1)), l=dense()), (SERIES,)),
    ("a mask of whole numbers", Masked, (SERIES, MASK)),
    ("tokens back to a grid", lambda: Lambda(grid, c=nn.Conv2d(3, 8, 3, 2, 1), l=nn.Linear(8, 8), b=nn.BatchNorm2d(8)), (IMAGE,)),
    ("nothing trains", nn.ReLU, (VECTOR,)),
    ("a Keras layer by keyword", lambda: KerasModel(lambda m, x: m.d(sequences=x), d=K.LSTM(4)), (SERIES,)),
    ("assertions in Keras", lambda: KerasModel(asserting, d=K.Dense(4)), (VECTOR,)),
    ("GELU of the legacy Keras", LegacyModel, (VECTOR,)),
    ("positions for a batch in Keras", lambda: KerasModel(lambda m, x: m.d(x + m.e(tf.tile(tf.range(5)[None], (tf.shape(x)[0], 1)))), d=K.Dense(4), e=K.Embedding(5, 6)), (SERIES,)),
    ("a mask of whole numbers in Keras", lambda: KerasModel(lambda m, z: m.d(z[0]) + tf.cast(1 - z[1], "float32")[:, :, None] * -1e4, d=K.Dense(4)), (SERIES, MASK)),
    ("a dict of inputs", from_dict, (VECTOR, SERIES)),
    ("inputs one by one in Keras", OneByOne, (VECTOR, VECTOR)),
    ("whole numbers between bounds", lambda: Lambda(lambda m, x: m.e(x.clamp(0, 4)), e=nn.Embedding(5, 6)), (WORDS,)),
    ("whole numbers with one bound", lambda: Lambda(lambda m, x: m.e(torch.relu(x)) + m.e(x.clamp(min=2)), e=nn.Embedding(5, 6)), (WORDS,)),
    ("whole numbers that are padded", lambda: Lambda(lambda m, x: m.e(functional.pad(x, (1, 0), value=3)), e=nn.Embedding(5, 6)), (WORDS,)),
    ("whole numbers between bounds in Keras", lambda: KerasModel(lambda m, x: m.e(tf.clip_by_value(x, 0, 4)), e=K.Embedding(5, 6)), (WORDS,)),
    ("whole numbers that are padded in Keras", lambda: KerasModel(lambda m, x: m.e(tf.pad(tf.maximum(x, 1), [[0, 0], [1, 0]])), e=K.Embedding(5, 6)), (WORDS,)),
]  # fmt: skip


@pytest.mark.one_in(4)
@pytest.mark.parametrize(("name", "build", "example"), PROVEN, ids=[row[0] for row in PROVEN])
def test_unusual_models_are_proven(
    name: str, build: Callable[[], Any], example: tuple[np.ndarray[Any, Any], ...]
) -> None:
    del name
    proof = prove(build(), example).proof
    assert proof.proven
    assert proof.largest_error < 1e-4


def in_place(m: Any, x: torch.Tensor) -> torch.Tensor:
    made = m.l(x)
    made[:, 0] = 0
    return made


def in_a_range(m: Any, x: Any) -> Any:
    tf.debugging.assert_non_negative(x)
    return m.d(x)


def lazy() -> nn.Module:
    return Lambda(lambda m, x: m.l(x), l=nn.LazyLinear(4))


def eight_bits() -> nn.Module:
    model = nn.Sequential(nn.Linear(6, 4))
    model.scale = nn.Parameter(torch.ones(4).to(torch.float8_e4m3fn), requires_grad=False)
    return model


def quantized() -> Any:
    layer = K.Dense(4)
    layer.build((None, 6))
    layer.quantize("int8")
    return keras.Sequential([keras.Input((6,)), layer])


ONE = "it takes one example and not two"
REFUSED: list[tuple[str, Callable[[], Any], tuple[np.ndarray[Any, Any], ...], str, str]] = [
    ("a view of one example", lambda: Lambda(lambda m, x: m.l(x.view(1, 6)), l=dense()), (VECTOR,), ONE, "x.shape[0]"),
    ("a token of one example", lambda: Lambda(lambda m, x: m.l(torch.cat([torch.ones(1, 1, 6), x], 1)), l=dense()), (SERIES,), ONE, "expand"),
    ("an assertion of one example", lambda: Lambda(lambda m, x: m.l(x) if len(x) == 1 else sys.exit(3), l=dense()), (VECTOR,), ONE, "x.shape[0]"),
    ("a batch that becomes time", lambda: Lambda(lambda m, x: m.l(x.reshape(1, -1, 6)), l=dense()), (SERIES,), "has 1 rows for 2 examples", "mixes the examples"),
    ("a mean over everything", lambda: Lambda(lambda m, x: m.l(x).mean(), l=dense()), (VECTOR,), "one number for the whole batch", "every example"),
    ("a change in place", lambda: Lambda(in_place, l=dense()), (VECTOR,), "in place (at", "torch.cat"),
    ("whole numbers", lambda: Lambda(lambda m, x: (m.l(x), x.long()), l=dense()), (VECTOR,), "'1' of the model is int64", "scores"),
    ("numbers of 64 bits", lambda: Lambda(lambda m, x: m.l(x).double(), l=dense()), (VECTOR,), "is float64", "cast"),
    ("complex weights", Complex, (VECTOR,), "complex64", "two parameters"),
    ("a lazy layer", lazy, (VECTOR,), "is lazy", "once"),
    ("no gradients inside", lambda: Lambda(lambda m, x: torch.no_grad()(m.l)(x), l=dense()), (VECTOR,), "set_grad_enabled", "freeze"),
    ("the end of the program", lambda: Lambda(lambda m, x: sys.exit(m.l(x)), l=dense()), (VECTOR,), "cannot be called with float32 [2, 6]", ""),
    ("a reshape of one example in Keras", lambda: KerasModel(lambda m, x: m.d(tf.reshape(x, (1, 6))), d=K.Dense(4)), (VECTOR,), ONE, "tf.shape(x)[0]"),
    ("a concatenation of one example in Keras", lambda: KerasModel(lambda m, x: m.d(tf.concat([tf.ones((1, 1, 6)), x], 1)), d=K.Dense(4)), (SERIES,), ONE, "tf.shape(x)[0]"),
    ("numbers of 8 bits", eight_bits, (VECTOR,), "float8_e4m3fn", "model.float()"),
    ("double precision", lambda: keras.Sequential([keras.Input((6,)), K.Dense(4, dtype="float64")]), (VECTOR,), "the dtype policy 'float64' and computes in float64", "float32"),
    ("NaN in the model", lambda: Lambda(lambda m, x: m.l(x) * float("nan"), l=dense()), (VECTOR,), "not a number (NaN)", "was meant"),
    ("a condition in Keras", lambda: KerasModel(lambda m, x: tf.cond(tf.reduce_sum(x) > 0, lambda: m.d(x), lambda: -m.d(x)), d=K.Dense(4)),
     (VECTOR,), "one branch of a condition", "tf.where"),
    ("a state", lambda: nn.LSTM(6, 4, batch_first=True), (SERIES,), "the final state of a recurrent layer", "layer(x)[0]"),
    ("whole numbers of 8 bits", quantized, (VECTOR,), "quantized to int8", "before"),
    ("whole numbers in Keras", lambda: KerasModel(lambda m, x: (m.d(x), tf.cast(x, "int32")), d=K.Dense(4)), (VECTOR,), "is int32", "scores"),
    ("a range of numbers", lambda: KerasModel(in_a_range, d=K.Dense(4)), (np.abs(VECTOR),), "takes the example 4 times, and not other numbers", "any numbers"),
    ("a ragged tensor", lambda: KerasModel(lambda m, x: tf.RaggedTensor.from_tensor(m.d(x)), d=K.Dense(4)), (VECTOR,), "RaggedTensor", "tensors only"),
    ("the end of the program in Keras", lambda: KerasModel(lambda m, x: sys.exit(m.d(x)), d=K.Dense(4)), (VECTOR,), "cannot be called with float32 [2, 6]", ""),
]  # fmt: skip


@pytest.mark.one_in(2)
@pytest.mark.parametrize(
    ("name", "build", "example", "words", "cure"), REFUSED, ids=[row[0] for row in REFUSED]
)
def test_others_are_refused_with_one_reason(
    name: str, build: Callable[[], Any], example: tuple[np.ndarray[Any, Any], ...], words: str, cure: str
) -> None:
    del name
    model = build()
    with pytest.raises(RefusedInput) as caught:
        prove(model, example)
    assert words in caught.value.message
    assert "\x1b" not in caught.value.message
    assert "x1b" not in caught.value.message
    assert cure in (caught.value.hint or "")
    assert "does not know this form" not in (caught.value.hint or "")
