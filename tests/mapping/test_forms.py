"""Two forms of one function are mapped, whatever lies between their parameters; two functions are not."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import keras
import numpy as np
import pytest
import tensorflow as tf
import torch
from keras import layers as K
from keras import ops
from torch import nn
from torch.nn import functional as F

import xbackend_fl
from tests.adapters.row import Lambda
from xbackend_fl.errors import MismatchError, UnsupportedError
from xbackend_fl.mapping.probe.draw import draw_by_shape
from xbfl_torch import describe

ROWS = np.random.default_rng(0).standard_normal((3, 6)).astype(np.float32)
IMAGE = np.random.default_rng(1).standard_normal((2, 3, 8, 8)).astype(np.float32)
TOKENS = np.array([[1, 2, 3, 0, 0], [4, 0, 0, 0, 0], [5, 6, 1, 2, 0]])


def lane(build: Callable[[Any], Any], shape: tuple[int | None, ...], dtype: str = "float32") -> Any:
    data = keras.Input(shape, dtype=dtype)
    return keras.Model(data, build(data))


class Sums(nn.Module):
    """A running sum as an operation of PyTorch; the gate is its second half."""

    def __init__(self, epsilon: float = 1e-5) -> None:
        super().__init__()
        self.inner, self.outer = nn.Linear(6, 8), nn.Linear(8, 3)
        self.scale, self.epsilon = nn.Parameter(torch.ones(8)), epsilon

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        y = torch.cumsum(self.inner(x), 1)
        y = y * torch.rsqrt((y * y).mean(1, keepdim=True) + self.epsilon) * self.scale
        return self.outer(torch.sort(y, 1).values)


class Triangle(K.Layer):
    """The same sum as a product with a triangle of ones."""

    def build(self, shape: Any) -> None:
        self.weight = self.add_weight(shape=(shape[-1],), name="scale")
        self.triangle = np.triu(np.ones((shape[-1], shape[-1]), np.float32))

    def call(self, x: Any) -> Any:
        y = ops.matmul(x, self.triangle)
        y = y / ops.sqrt(ops.mean(ops.square(y), -1, keepdims=True) + 1e-5)
        return ops.sort(y * self.weight, -1)


def sums_in_keras() -> Any:
    return lane(lambda x: K.Dense(3)(Triangle()(K.Dense(8)(x))), (6,))


class KernelIn(K.Layer):
    """A convolution of the user's own, with its kernel behind arithmetic."""

    def build(self, shape: Any) -> None:
        self.kernel = self.add_weight(shape=(3, 3, shape[-1], 5), name="own")

    def call(self, x: Any) -> Any:
        return ops.conv(x, ops.softplus(self.kernel), padding="same")


class SoftKernel(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.own, self.head = nn.Parameter(torch.randn(5, 3, 3, 3)), nn.Linear(5, 2)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return self.head(torch.tanh(F.conv2d(x, F.softplus(self.own), padding=1)).mean((2, 3)))


def soft_kernel_in_keras() -> Any:
    def build(x: Any) -> Any:
        return K.Dense(2)(ops.mean(ops.tanh(KernelIn()(x)), (1, 2)))

    return lane(build, (8, 8, 3))


class Averages(nn.Module):
    """The mean of the embeddings of real tokens, by a mask that is made of the ids."""

    def __init__(self) -> None:
        super().__init__()
        self.table, self.inner, self.head = nn.Embedding(9, 6), nn.Linear(6, 5), nn.Linear(5, 3)

    def forward(self, ids: torch.Tensor) -> torch.Tensor:
        real = (ids != 0).float().unsqueeze(-1)
        return self.head((torch.tanh(self.inner(self.table(ids))) * real).sum(1) / real.sum(1))


def averages_in_keras() -> Any:
    def build(ids: Any) -> Any:
        x = K.Dense(5, activation="tanh")(K.Embedding(9, 6, mask_zero=True)(ids))
        return K.Dense(3)(K.GlobalAveragePooling1D()(x))

    return lane(build, (5,), "int64")


def test_an_operation_at_which_its_reader_stumbles_stands_as_it_is(monkeypatch: pytest.MonkeyPatch) -> None:
    """Its numbers are proven, and its parameters paired, as those of any operation that nobody knows."""
    reference, other = Sums(), Sums()
    schema, evidence = (
        xbackend_fl.describe(reference, (ROWS,)),
        xbackend_fl.gather_evidence(reference, (ROWS,)),
    )

    def stumbles(*_: Any) -> Any:
        raise ValueError("negative dimensions are not allowed")

    monkeypatch.setitem(describe._HANDLERS, "linear", stumbles)
    found = xbackend_fl.bind(other, schema, (ROWS,), evidence)
    assert found.proof.proven
    assert any("'inner'" in note and "negative dimensions" in note for note in found.notes)


def experts(order: tuple[str, str]) -> nn.Module:
    """Two experts behind one gate, weighed by a product of matrices."""
    parts = {name: nn.Linear(6, 4) for name in order}
    return Lambda(
        lambda m, x: m.head(
            torch.einsum(
                "bed,be->bd",
                torch.stack([torch.relu(m.one(x)), torch.relu(m.two(x))], 1),
                m.gate(x).softmax(-1),
            )
        ),
        **parts,
        gate=nn.Linear(6, 2),
        head=nn.Linear(4, 3),
    )


def experts_in_keras() -> Any:
    def build(x: Any) -> Any:
        gate = K.Dense(2, activation="softmax")(x)
        second, first = K.Dense(4, activation="relu")(x), K.Dense(4, activation="relu")(x)
        return K.Dense(3)(first * gate[:, :1] + second * gate[:, 1:])

    return lane(build, (6,))


class Exponential(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.w = nn.Parameter(torch.ones(6, 4))

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return x @ torch.exp(self.w)


class Columns(nn.Module):
    """A recurrent layer over the columns of an image, whose channels and rows are its features."""

    def __init__(self) -> None:
        super().__init__()
        self.c, self.r, self.o = (
            nn.Conv2d(3, 4, 3, padding=1),
            nn.LSTM(16, 6, batch_first=True),
            nn.Linear(6, 3),
        )

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        features = F.max_pool2d(torch.relu(self.c(x)), 2).permute(0, 3, 1, 2).flatten(2)
        return self.o(self.r(features)[0])


def columns_in_keras() -> Any:
    def build(x: Any) -> Any:
        x = K.MaxPooling2D(2)(K.Conv2D(4, 3, padding="same", activation="relu")(x))
        return K.Dense(3)(K.LSTM(6, return_sequences=True)(K.Reshape((4, 16))(K.Permute((2, 1, 3))(x))))

    return lane(build, (8, 8, 3))


class Patches(nn.Module):
    """Patches of an image as tokens; channels first in each."""

    def __init__(self) -> None:
        super().__init__()
        self.e, self.o = nn.Linear(48, 10), nn.Linear(10, 3)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        tokens = (
            x.unflatten(2, (2, 4)).unflatten(4, (2, 4)).permute(0, 2, 4, 1, 3, 5).flatten(3).flatten(1, 2)
        )
        return self.o(torch.tanh(self.e(tokens)).mean(1))


def patches_in_keras() -> Any:
    def build(x: Any) -> Any:
        tokens = ops.transpose(ops.reshape(x, (-1, 2, 4, 2, 4, 3)), (0, 1, 3, 2, 4, 5))
        return K.Dense(3)(ops.mean(ops.tanh(K.Dense(10)(ops.reshape(tokens, (-1, 4, 48)))), 1))

    return lane(build, (8, 8, 3))


FORMS: list[tuple[str, Callable[[], Any], Callable[[], Any], Any]] = [
    ("operations of one framework", Sums, sums_in_keras, ROWS),
    ("a kernel behind arithmetic, its axes in another order", SoftKernel, soft_kernel_in_keras, IMAGE),
    ("a mask of the ids, and the mask of Keras", Averages, averages_in_keras, TOKENS),
    ("a product, and a sum of products", lambda: experts(("one", "two")), experts_in_keras, ROWS),
    ("features of columns in another order", Columns, columns_in_keras, IMAGE),
    ("patches in another order", Patches, patches_in_keras, IMAGE),
]


@pytest.mark.one_in(8)
@pytest.mark.parametrize(("name", "ours", "theirs", "example"), FORMS, ids=[row[0] for row in FORMS])
def test_two_forms_of_one_function_are_mapped(
    name: str, ours: Callable[[], Any], theirs: Callable[[], Any], example: Any
) -> None:
    del name
    reference, candidate = ours(), theirs()
    schema, evidence = xbackend_fl.describe_reference(reference, [example])
    bound = xbackend_fl.bind(candidate, schema, [example], evidence)
    assert bound.proof.proven
    # The reference's own weights, carried over: what the user would do, judged by the two frameworks alone.
    own = xbackend_fl.bind(reference, schema, [example], evidence)
    bound.write(own.read())
    with torch.no_grad():
        expected = reference.eval()(torch.from_numpy(example)).numpy()
    turned = np.moveaxis(example, 1, -1) if example.ndim == 4 else example
    np.testing.assert_allclose(candidate(turned, training=False), expected, rtol=1e-4, atol=1e-5)


UNLIKE: list[tuple[str, Callable[[], Any], Callable[[], Any], Any]] = [
    ("another epsilon", lambda: Sums(1e-2), sums_in_keras, ROWS),
    ("another gate", lambda: experts(("one", "two")), lambda: lane(lambda x: K.Dense(3)(
        K.Dense(4, activation="relu")(x) * K.Dense(2, activation="softmax")(x)[:, :1]
        + K.Dense(4, activation="relu")(x)), (6,)), ROWS),
    ("a mean without a mask", Averages, lambda: lane(lambda ids: K.Dense(3)(K.GlobalAveragePooling1D()(
        K.Dense(5, activation="tanh")(K.Embedding(9, 6)(ids)))), (5,), "int64"), TOKENS),
]  # fmt: skip


@pytest.mark.one_in(2)
@pytest.mark.parametrize(("name", "ours", "theirs", "example"), UNLIKE, ids=[row[0] for row in UNLIKE])
def test_two_functions_are_not_mapped(
    name: str, ours: Callable[[], Any], theirs: Callable[[], Any], example: Any
) -> None:
    del name
    schema, evidence = xbackend_fl.describe_reference(ours(), [example])
    with pytest.raises(MismatchError):
        xbackend_fl.bind(theirs(), schema, [example], evidence)


class Hiding(nn.Module):
    """Attention over what a mask of zeros and ones shows, hidden by a comparison."""

    def __init__(self) -> None:
        super().__init__()
        self.q, self.k = nn.Linear(6, 4), nn.Linear(6, 4)

    def forward(self, x: torch.Tensor, mask: torch.Tensor) -> torch.Tensor:
        scores = self.q(x) @ self.k(x).transpose(1, 2)
        return scores.masked_fill(mask.unsqueeze(1) == 0, -1e9).softmax(-1) @ x


def hiding_in_keras() -> Any:
    x, mask = keras.Input((5, 6)), keras.Input((5,))
    key, query = K.Dense(4), K.Dense(4)
    scores = ops.einsum("bid,bjd->bij", query(x), key(x)) + (1.0 - mask[:, None, :]) * -1e9
    return keras.Model([x, mask], ops.matmul(ops.softmax(scores, -1), x))


def test_a_mask_is_zeros_and_ones_if_the_example_says_so() -> None:
    rows = np.random.default_rng(3).standard_normal((2, 5, 6)).astype(np.float32)
    mask = np.array([[1, 1, 0, 1, 0], [0, 1, 1, 1, 1]], np.float32)
    reference = Hiding()
    schema, evidence = xbackend_fl.describe_reference(reference, [rows, mask])
    bound = xbackend_fl.bind(hiding_in_keras(), schema, [rows, mask], evidence)
    assert bound.proof.proven
    assert any("is 0 or 1 in the example" in note for note in bound.proof.notes)
    other = [rows, np.abs(rows[:, :, 0])]
    schema, evidence = xbackend_fl.describe_reference(reference, other)
    with pytest.raises(MismatchError):
        xbackend_fl.bind(hiding_in_keras(), schema, other, evidence)


def test_what_draws_in_evaluation_is_refused() -> None:
    model = Lambda(lambda m, x: m.a(x) + torch.rand_like(x), a=nn.Linear(6, 6))
    with pytest.raises(UnsupportedError, match="draws random numbers in evaluation"):
        xbackend_fl.describe(model, [ROWS])
    model = lane(K.Lambda(lambda y: y + tf.random.normal((2, 6))), (6,))
    with pytest.raises(UnsupportedError, match="draws random numbers in evaluation"):
        xbackend_fl.describe(model, [ROWS])


def test_equal_lengths_of_axes_hold_equal_weights_in_any_order() -> None:
    one = xbackend_fl.describe(nn.Sequential(nn.Linear(6, 4)), [ROWS])
    two = xbackend_fl.describe(Exponential(), [ROWS])
    left = draw_by_shape(one)["0.weight"]
    right = next(array for array in draw_by_shape(two).values() if array.ndim == 2)
    assert {left.shape, right.shape} == {(4, 6), (6, 4)}
    np.testing.assert_array_equal(left, right.T)


@pytest.mark.parametrize("name", ["a floor", "a bound", "a sign", "a window"])
def test_what_happens_far_from_zero_counts(name: str) -> None:
    """Decibels and X-rays have bounds that noise of size one never reaches."""
    pairs: dict[str, tuple[Any, Any]] = {
        "a floor": (lambda x: torch.clamp(x, min=-80.0), lambda x: ops.maximum(x, -100.0)),
        "a bound": (lambda x: torch.clamp(x, -1000, 400) / 1000, lambda x: ops.clip(x, -1024, 400) / 1000),
        "a sign": (lambda x: torch.relu(x + 80), lambda x: x + 80),
        "a window": (lambda x: torch.where(x < -8, 0.0, x), lambda x: x),
    }
    ours, theirs = pairs[name]
    reference = Lambda(lambda m, x: m.d(ours(x)), d=nn.Linear(5, 2))
    data = keras.Input((5,))
    candidate = keras.Model(data, K.Dense(2)(theirs(data)))
    example = (np.ones((2, 5), np.float32),)
    schema, evidence = (
        xbackend_fl.describe(reference, example),
        xbackend_fl.gather_evidence(reference, example),
    )
    with pytest.raises(MismatchError):
        xbackend_fl.bind(candidate, schema, example, evidence)


class Both(nn.Module):
    """One matrix as a layer, the other way round, and as numbers."""

    def __init__(self) -> None:
        super().__init__()
        self.w, self.norm = nn.Parameter(torch.randn(4, 6)), nn.Linear(6, 2)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        code = torch.tanh(x @ self.w[:, :6].T)
        return self.norm(code @ self.w / (1 + self.w.square().sum(0)))


class KerasBoth(K.Layer):
    def build(self, shape: Any) -> None:
        self.w = self.add_weight(shape=(shape[-1], 4), name="w")

    def call(self, x: Any) -> Any:
        code = ops.tanh(ops.matmul(x, self.w))
        return ops.matmul(code, ops.transpose(self.w)) / (1 + ops.sum(ops.square(self.w), 1))


def test_a_tensor_that_is_used_in_two_layouts_is_data() -> None:
    reference, candidate = Both(), lane(lambda x: K.Dense(2)(KerasBoth()(x)), (6,))
    schema, evidence = xbackend_fl.describe_reference(reference, [ROWS])
    assert len(schema.parameters) == 3
    assert xbackend_fl.bind(candidate, schema, [ROWS], evidence).proof.proven
