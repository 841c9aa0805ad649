"""What one side cannot express is refused, with the reason and a way out."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import keras
import numpy as np
import pytest
import torch
from keras import layers as K
from torch import nn

import xbackend_fl
from tests.adapters.row import Lambda, chain
from xbackend_fl.errors import AdapterError, MismatchError, RefusedInput, UnsupportedError

IMAGE = np.random.default_rng(0).standard_normal((1, 4, 8, 8)).astype(np.float32)
SERIES = np.random.default_rng(0).standard_normal((1, 6, 4)).astype(np.float32)


class Summing(K.Layer):
    """A layer of the user's own with an operation that has no canonical form."""

    def call(self, x: Any) -> Any:
        return keras.ops.cumsum(x, axis=1)


class Branching(nn.Module):
    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return x if x.sum() > 0 else -x


UNSUPPORTED: list[tuple[str, Callable[[], Any], np.ndarray[Any, Any], str]] = [
    ("batch norm without statistics", lambda: nn.BatchNorm2d(4, track_running_stats=False), IMAGE, "running"),
    ("cumulative momentum", lambda: nn.BatchNorm2d(4, momentum=None), IMAGE, "momentum=None"),
    ("instance norm statistics", lambda: nn.InstanceNorm2d(4, track_running_stats=True), IMAGE, "track_running"),
    ("data-dependent control flow", Branching, IMAGE, "cannot trace"),
    ("double precision", lambda: nn.Conv2d(4, 2, 1).double(), IMAGE, "float64"),
    ("recurrent dropout", lambda: chain(K.LSTM(5, recurrent_dropout=0.2), shape=(None, 4)), SERIES, "dropout"),
    ("a wrong input shape", lambda: chain(K.Conv2D(2, 1), shape=(8, 8, 3)), IMAGE, "ONNX layout"),
]  # fmt: skip


OPAQUE: list[tuple[str, Callable[[], Any], np.ndarray[Any, Any]]] = [
    ("layer norm over several axes", lambda: nn.LayerNorm((8, 8)), IMAGE),
    ("projected LSTM", lambda: Lambda(lambda m, x: m.r(x)[0], r=nn.LSTM(4, 5, proj_size=2)), SERIES),
    ("uneven adaptive pooling", lambda: nn.AdaptiveAvgPool2d(3), IMAGE),
    ("PReLU per position", lambda: chain(K.PReLU(), shape=(8, 8, 4)), IMAGE),
    ("mask_zero", lambda: chain(K.Embedding(9, 2, mask_zero=True), shape=(4,)), IMAGE[:, 0, 0, :4]),
    ("GRU with hard gates", lambda: chain(K.GRU(5, recurrent_activation="hard_sigmoid"), shape=(None, 4)), SERIES),
    ("backwards", lambda: chain(K.LSTM(5, go_backwards=True), shape=(None, 4)), SERIES),
    ("merge by sum", lambda: chain(K.Bidirectional(K.LSTM(5), merge_mode="sum"), shape=(None, 4)), SERIES),
    ("bicubic", lambda: chain(K.UpSampling2D(2, interpolation="bicubic"), shape=(8, 8, 4)), IMAGE),
    ("a layer of the user's own", lambda: chain(Summing(), shape=(8, 8, 4)), IMAGE),
]  # fmt: skip
"""What has no canonical form, and is described as what it is."""


SLOW = {"GRU with hard gates", "merge by sum"}
"""Ten seconds each; a recurrent layer that goes backwards stands for them in each run."""


@pytest.mark.one_in(2)
@pytest.mark.parametrize(
    ("name", "build", "array"),
    [pytest.param(*row, id=row[0], marks=pytest.mark.slow if row[0] in SLOW else ()) for row in OPAQUE],
)
def test_an_operation_without_a_canonical_form_is_no_reason_to_refuse(
    name: str, build: Callable[[], Any], array: np.ndarray[Any, Any]
) -> None:
    del name
    reference, candidate = build(), build()
    schema, evidence = xbackend_fl.describe_reference(reference, (array,))
    bound = xbackend_fl.bind(candidate, schema, (array,), evidence)
    assert bound.proof.proven
    if schema.opaque:
        with pytest.raises(RefusedInput, match="no evidence"):
            xbackend_fl.bind(candidate, schema, (array,))


@pytest.mark.parametrize(
    ("name", "build", "array", "reason"), UNSUPPORTED, ids=[row[0] for row in UNSUPPORTED]
)
def test_unsupported(name: str, build: Callable[[], Any], array: np.ndarray[Any, Any], reason: str) -> None:
    del name
    with pytest.raises(UnsupportedError) as caught:
        xbackend_fl.describe(build(), (array,))
    assert reason in str(caught.value)


def _swapped() -> Any:
    x = keras.Input((4,))
    return keras.Model(x, K.Dense(2)(K.Concatenate()([K.Dense(3, activation="relu")(x), K.Dense(3)(x)])))


DIFFERENT: list[tuple[str, Callable[[], Any], Callable[[], Any], np.ndarray[Any, Any], tuple[str, ...]]] = [
    ("epsilon", lambda: nn.BatchNorm2d(4), lambda: chain(K.BatchNormalization(name="norm"), shape=(None, None, 4)),
     IMAGE, ("epsilon", "1e-05", "0.001", "'norm'", "epsilon=1e-05")),
    ("uneven SAME", lambda: nn.Conv2d(4, 2, 3, stride=2, padding=1),
     lambda: chain(K.Conv2D(2, 3, strides=2, padding="same", name="c"), shape=(None, None, 4)), IMAGE,
     ("pads", "(1, 1, 1, 1)", "(0, 0, 1, 1)", "ZeroPadding")),
    ("GRU reset before the product", lambda: Lambda(lambda m, x: m.r(x)[0], r=nn.GRU(4, 5, batch_first=True)),
     lambda: chain(K.GRU(5, reset_after=False, return_sequences=True), shape=(None, 4)), SERIES,
     ("linear_before_reset", "reset_after")),
    ("a missing bias", lambda: nn.Conv2d(4, 2, 1, bias=False), lambda: chain(K.Conv2D(2, 1), shape=(None, None, 4)),
     IMAGE, ("bias", "absent", "present")),
    ("another width", lambda: nn.Conv2d(4, 2, 1), lambda: chain(K.Conv2D(3, 1), shape=(None, None, 4)), IMAGE,
     ("width is 2 in the reference, 3 in the candidate", "[2, 4, 1, 1]", "[1, 1, 4, 3] in tensorflow", "filters=2")),
    ("another activation", lambda: nn.Sequential(nn.Conv2d(4, 2, 1), nn.ReLU()),
     lambda: chain(K.Conv2D(2, 1, activation="tanh"), shape=(None, None, 4)), IMAGE, ("Relu", "Tanh")),
    ("align_corners", lambda: nn.Upsample(scale_factor=2, mode="bilinear", align_corners=True),
     lambda: chain(K.UpSampling2D(2, interpolation="bilinear"), shape=(8, 8, 4)), IMAGE, ("align_corners is 1",)),
    ("tanh GELU", nn.GELU, lambda: chain(K.Activation(lambda x: keras.ops.gelu(x, approximate=True)), shape=(8, 8, 4)),
     IMAGE, ("approximate is none in the reference, tanh in the candidate",)),
    ("padding counts in an average", lambda: nn.AvgPool2d(3, 1, 1), lambda: chain(K.AveragePooling2D(3, 1, "same"),
     shape=(8, 8, 4)), IMAGE, ("count_include_pad is 1 in the reference, 0 in the candidate",)),
    ("a shared layer", lambda: Lambda(lambda m, x: m.a(torch.tanh(m.a(x))), a=nn.Linear(4, 4)),
     lambda: chain(K.Dense(4, activation="tanh"), K.Dense(4), shape=(4,)), SERIES[:, 0],
     ("weight is shared with 'a' in the reference, its own in the candidate",)),
    ("slope", nn.LeakyReLU, lambda: chain(K.LeakyReLU(), shape=(8, 8, 4)), IMAGE, ("alpha", "0.01", "0.3")),
    ("a frozen layer", lambda: nn.Conv2d(4, 2, 1), lambda: chain(K.Conv2D(2, 1, trainable=False), shape=(8, 8, 4)),
     IMAGE, ("kind", "trainable", "frozen")),
    ("order of a concatenation",
     lambda: Lambda(lambda m, x: m.h(torch.cat([m.a(x), torch.relu(m.b(x))], 1)), a=nn.Linear(4, 3), b=nn.Linear(4, 3),
                    h=nn.Linear(6, 2)),
     _swapped, SERIES[:, 0], ("Concat", "fed by (Gemm 'a', Relu", "(Relu")),
]  # fmt: skip


@pytest.mark.one_in(2)
@pytest.mark.parametrize(
    ("name", "reference", "candidate", "array", "words"), DIFFERENT, ids=[row[0] for row in DIFFERENT]
)
def test_different_functions_are_diagnosed(
    name: str,
    reference: Callable[[], Any],
    candidate: Callable[[], Any],
    array: np.ndarray[Any, Any],
    words: tuple[str, ...],
) -> None:
    del name
    schema = xbackend_fl.describe(reference(), (array,))
    with pytest.raises(MismatchError) as caught:
        xbackend_fl.bind(candidate(), schema, (array,))
    for word in words:
        assert word in str(caught.value)


def test_a_hidden_difference_is_found_by_the_numbers() -> None:
    """The same graph, another grouping of values in front of a softmax: structure agrees, only the proof can tell."""
    reference = Lambda(
        lambda m, x: m.d(m.c(x).reshape(-1, 3, 36).softmax(2).mean(2)),
        c=nn.Conv2d(4, 3, 3),
        d=nn.Linear(3, 2),
    )
    schema, evidence = xbackend_fl.describe_reference(reference, (IMAGE,))
    image = keras.Input((8, 8, 4))
    x = K.Reshape((3, 36))(K.Conv2D(3, 3)(image))
    candidate = keras.Model(image, K.Dense(2)(keras.ops.mean(keras.ops.softmax(x, -1), -1)))
    with pytest.raises(MismatchError):
        xbackend_fl.bind(candidate, schema, (IMAGE,), evidence)


def test_features_in_another_order_are_the_same_function() -> None:
    """The same graph, another order of flattened features: gradients tell it."""
    reference = nn.Sequential(nn.Conv2d(4, 3, 3), nn.Flatten(), nn.Linear(108, 2))
    schema, evidence = xbackend_fl.describe_reference(reference, (IMAGE,))
    image = keras.Input((8, 8, 4))
    x = K.Reshape((3, 36))(K.Conv2D(3, 3)(image))
    candidate = keras.Model(image, K.Dense(2)(K.Flatten()(x)))
    bound = xbackend_fl.bind(candidate, schema, (IMAGE,), evidence)
    assert bound.proof.proven
    assert any("lie in another order" in note for note in bound.notes)
    with pytest.raises(MismatchError, match="the numbers do not"):
        xbackend_fl.bind(candidate, schema, (IMAGE,))


def test_nobody_handles_a_string() -> None:
    with pytest.raises(AdapterError, match=r"no adapter handles a builtins\.str"):
        xbackend_fl.describe("model", (IMAGE,))
