"""One number for each example in one model is a row of one number in the other: an axis of length one at the end comes or goes."""

from __future__ import annotations

from typing import Any

import keras
import numpy as np
import pytest
import torch
from keras import layers as K
from keras import ops

import xbackend_fl
from tests.adapters.glue.pair import Forward
from xbackend_fl.canonical import Axes
from xbackend_fl.errors import MismatchError, UnsupportedError
from xbackend_fl.losses import LOSSES
from xbackend_fl.mapping import BoundModel
from xbackend_fl.metrics import Objective

Array = np.ndarray[Any, Any]
RNG = np.random.default_rng(0)
NUMBERS = RNG.standard_normal((2,)).astype(np.float32)
IDS = np.array([3, 1])
SERIES = RNG.standard_normal((2, 5)).astype(np.float32)
IMAGE = RNG.standard_normal((2, 1, 6, 5)).astype(np.float32)
L, E, C = torch.nn.Linear, torch.nn.Embedding, torch.nn.Conv2d


def bound(reference: Any, candidate: Any, *example: Array) -> BoundModel:
    schema, evidence = xbackend_fl.describe_reference(reference, example)
    return xbackend_fl.bind(candidate, schema, example, evidence)


def rated(*, squared: bool = False) -> Any:
    """An id and a number, each declared as a row of one; a row of one comes out."""
    user, age = keras.Input((1,), dtype="int64"), keras.Input((1,))
    joined = K.Concatenate()([K.Flatten()(K.Embedding(7, 3)(user)), age * age if squared else age])
    return keras.Model([user, age], K.Dense(1)(K.Dense(4, activation="relu")(joined)))


def rated_torch() -> Any:
    def call(m: Any, user: torch.Tensor, age: torch.Tensor) -> torch.Tensor:
        joined = torch.cat([m.e(user), age[:, None]], 1)
        return m.o(torch.relu(m.h(joined)))[:, 0]

    return Forward(call, e=E(7, 3), h=L(4, 4), o=L(4, 1))


def test_numbers_and_rows_of_one() -> None:
    found = bound(rated_torch(), rated(), IDS, NUMBERS)
    assert [axes.trailing for axes in found.binding.inputs] == [1, 1]
    assert [axes.trailing for axes in found.binding.outputs] == [1]
    assert sum("of length one" in note for note in found.notes) == 3


def test_rows_of_one_and_numbers() -> None:
    found = bound(rated(), rated(), IDS, NUMBERS)
    assert [axes.trailing for axes in found.binding.inputs] == [1, 1]
    one = keras.Input(())
    narrow = keras.Model(one, ops.squeeze(K.Dense(1)(K.Dense(4, activation="tanh")(one[:, None])), -1))
    wide = Forward(lambda m, x: m.o(torch.tanh(m.h(x))), h=L(1, 4), o=L(4, 1))
    found = bound(wide, narrow, NUMBERS[:, None])
    assert [axes.trailing for axes in (*found.binding.inputs, *found.binding.outputs)] == [-1, -1]


def test_series_and_images_of_one_channel() -> None:
    series = keras.Input((5, 1))
    candidate = keras.Model(series, K.Dense(2)(K.Flatten()(K.Conv1D(3, 2)(series))))
    reference = Forward(lambda m, x: m.o(m.c(x[:, None]).flatten(1)), c=torch.nn.Conv1d(1, 3, 2), o=L(12, 2))
    assert bound(reference, candidate, SERIES).binding.inputs[0].trailing == 1
    image = keras.Input((6, 5))
    candidate = keras.Model(image, K.Conv2D(3, 3, activation="relu")(image[..., None]))
    reference = Forward(lambda m, x: torch.relu(m.c(x)), c=C(1, 3, 3))
    assert bound(reference, candidate, IMAGE).binding.inputs[0].trailing == -1


def test_another_function_is_no_axis() -> None:
    with pytest.raises(MismatchError):
        bound(rated_torch(), rated(squared=True), IDS, NUMBERS)


@pytest.mark.parametrize("shape", [(2,), (1, 1, 1), (2, 1)])
def test_an_axis_elsewhere_is_refused(shape: tuple[int, ...]) -> None:
    one = keras.Input(shape)
    with pytest.raises(UnsupportedError, match="declares an input"):
        xbackend_fl.describe(keras.Model(one, K.Dense(2)(one)), (NUMBERS,))


@pytest.mark.parametrize(
    ("axes", "output", "class_axis", "wanted"),
    [
        (Axes((0,), trailing=1), (), None, (4, 1)),
        (Axes((0, 1), trailing=-1), (1,), None, (4,)),
        (Axes((0, 2, 1), trailing=1), (3, 5), 1, (4, 5, 1)),
    ],
)
def test_targets_lie_beside_the_output(
    axes: Axes, output: tuple[int, ...], class_axis: int | None, wanted: tuple[int, ...]
) -> None:
    objective = Objective(
        LOSSES["mean_squared_error" if class_axis is None else "cross_entropy"](), output, class_axis
    )
    targets = np.arange(4 * np.prod(objective.targets)).reshape(4, *objective.targets)
    turned = axes.without(class_axis).to_native(objective.arranged(targets))
    assert turned.shape == wanted
    np.testing.assert_array_equal(turned.ravel(), targets.ravel())


class Reading(keras.Model):
    """Nothing is declared: a layer that is built already takes one order of axes alone."""

    def __init__(self) -> None:
        super().__init__()
        self.a, self.b = K.Dense(3, name="a"), K.Dense(2, name="b")
        self.centres = self.add_weight(shape=(4, 3), name="centres")

    def call(self, inputs: Any) -> Any:
        return self.b(ops.sum(ops.matmul(inputs, self.centres) * self.a(inputs), 1))


def test_the_only_order_that_a_model_takes() -> None:
    data = RNG.standard_normal((2, 4, 6)).astype(np.float32)

    def call(m: Any, x: torch.Tensor) -> torch.Tensor:
        y = x.transpose(1, 2)
        return m.b((y @ m.centres * m.a(y)).sum(1))

    reference = Forward(call, a=L(4, 3), b=L(3, 2), centres=torch.randn(4, 3))
    found = bound(reference, Reading(), data)
    assert found.binding.inputs[0].perm == (0, 2, 1)
    assert "no other" in found.binding.inputs[0].note
