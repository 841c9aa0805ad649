"""Models are compared far beyond the example's length as well, and with one example and many; what was compared is said."""

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
from torch.nn import functional as F

import xbackend_fl
from xbackend_fl.mapping.probe.larger import behind_channels, length_factors, longer, many_examples, series

Function = Callable[..., Any]
RANDOM = np.random.default_rng(1)


def numbers(*shape: int) -> np.ndarray[Any, Any]:
    return RANDOM.standard_normal(shape).astype(np.float32)


class Read(nn.Module):
    def __init__(self, read: Function, **layers: nn.Module) -> None:
        super().__init__()
        self.read = read
        for name, layer in layers.items():
            setattr(self, name, layer)

    def forward(self, *inputs: torch.Tensor) -> Any:
        return self.read(self, *inputs)


def keras_reading(read: Function, *shapes: tuple[int | None, ...]) -> Any:
    inputs = [keras.Input(shape) for shape in shapes]
    return keras.Model(inputs if len(inputs) > 1 else inputs[0], read(*inputs))


def notes(reference: Any, candidate: Any, *example: Any) -> tuple[str, ...]:
    schema, evidence = xbackend_fl.describe_reference(reference, example)
    found = xbackend_fl.bind(candidate, schema, example, evidence)
    assert found.proof.proven
    return found.notes


def apart(found: tuple[str, ...]) -> list[str]:
    return [note for note in found if "the models differ" in note]


def sizes(found: tuple[str, ...]) -> str:
    (note,) = [note for note in found if note.startswith("compared with inputs of")]
    return note.partition(" values")[0].removeprefix("compared with inputs of ")


def mean_of(steps: Function) -> nn.Module:
    return Read(lambda m, x: m.o(F.relu(m.a(steps(x))).mean(1)), a=nn.Linear(8, 8), o=nn.Linear(8, 3))


def keras_mean(length: int | None = None) -> Any:
    dense = K.Dense(8, activation="relu")
    return keras_reading(lambda x: K.Dense(3)(ops.mean(dense(x), 1)), (length, 8))


@pytest.mark.one_in(2)
@pytest.mark.parametrize(
    ("kept", "holds", "part"),
    [(7, "7×8", "12×8"), (11, "7×8", "12×8"), (100, "12×8", "132×8"), (600, "132×8", "1032×8")],
)
def test_a_model_that_cuts_its_series_is_told_from_one_that_does_not(
    kept: int, holds: str, part: str
) -> None:
    (note,) = apart(notes(mean_of(lambda x: x[:, :kept]), keras_mean(), numbers(2, 6, 8)))
    assert note.startswith(f"draw 19, {part}: ")
    assert f"the map holds at {holds}, and somewhere between they part" in note


def test_the_lengths_that_were_compared_are_said() -> None:
    found = notes(mean_of(lambda x: x), keras_mean(), numbers(2, 6, 8))
    assert not apart(found)
    assert sizes(found) == "6×8 (the example's), 7×8, 12×8, 132×8, 1032×8"


def test_a_model_of_one_length_is_as_before() -> None:
    class Placed(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.places = nn.Parameter(torch.randn(1, 6, 8))
            self.a, self.o = nn.Linear(8, 8), nn.Linear(48, 3)

        def forward(self, x: torch.Tensor) -> torch.Tensor:
            return self.o(torch.relu(self.a(x + self.places)).flatten(1))

    class Places(K.Layer):
        def build(self, _: object) -> None:
            self.places = self.add_weight(shape=(1, 6, 8), initializer="random_normal")

        def call(self, x: Any) -> Any:
            return x + self.places

    dense = K.Dense(8, activation="relu")
    candidate = keras_reading(lambda x: K.Dense(3)(K.Flatten()(dense(Places()(x)))), (6, 8))
    found = notes(Placed(), candidate, numbers(2, 6, 8))
    assert not any("compared with inputs" in note or "size only" in note for note in found)


def test_a_table_of_places_bounds_what_is_compared() -> None:
    def read(m: Any, ids: torch.Tensor) -> torch.Tensor:
        return m.o(F.relu(m.e(ids) + m.p(torch.arange(ids.shape[1]))).mean(1))  # type: ignore[no-any-return]

    class Embedded(keras.Model):
        def __init__(self) -> None:
            super().__init__()
            self.e, self.p, self.o = K.Embedding(30, 8), K.Embedding(40, 8), K.Dense(3)

        def call(self, ids: Any) -> Any:
            return self.o(ops.mean(ops.relu(self.e(ids) + self.p(ops.arange(ops.shape(ids)[1]))), 1))

    reference = Read(read, e=nn.Embedding(30, 8), p=nn.Embedding(40, 8), o=nn.Linear(8, 3))
    assert sizes(notes(reference, Embedded(), RANDOM.integers(0, 30, (2, 6)))) == "6 (the example's), 7, 12"


def test_a_wave_has_a_length_too() -> None:
    def of(steps: Function) -> nn.Module:
        return Read(
            lambda m, x: m.o(F.relu(m.a(steps(x)[:, None])).mean(2)), a=nn.Conv1d(1, 6, 5), o=nn.Linear(6, 3)
        )

    conv = K.Conv1D(6, 5, activation="relu")
    candidate = keras_reading(lambda x: K.Dense(3)(ops.mean(conv(x[..., None]), 1)), (None,))
    (note,) = apart(notes(of(lambda x: x[:, :200]), candidate, numbers(2, 40)))
    assert note.startswith("draw 19, 1040: ")
    found = notes(of(lambda x: x), candidate, numbers(2, 40))
    assert not apart(found)
    assert sizes(found) == "40 (the example's), 41, 80, 160, 1040"


@pytest.mark.parametrize(("cut", "part"), [(50, "4×132"), (None, "")])
def test_a_length_behind_channels_is_asked_far_as_well(cut: int | None, part: str) -> None:
    reference = Read(
        lambda m, x: m.o(F.relu(m.a(x[:, :, :cut])).mean(2)), a=nn.Conv1d(4, 6, 5), o=nn.Linear(6, 3)
    )
    conv = K.Conv1D(6, 5, activation="relu")
    found = notes(
        reference, keras_reading(lambda x: K.Dense(3)(ops.mean(conv(x), 1)), (None, 4)), numbers(2, 4, 12)
    )
    assert [note.split(": ")[0] for note in apart(found)] == ([f"draw 5, {part}"] if part else [])


def test_an_image_twice_as_large_is_said() -> None:
    reference = Read(
        lambda m, x: m.o(F.relu(m.a(x[:, :, :20])).mean((2, 3))), a=nn.Conv2d(3, 6, 3), o=nn.Linear(6, 3)
    )
    conv = K.Conv2D(6, 3, activation="relu")
    candidate = keras_reading(lambda x: K.Dense(3)(ops.mean(conv(x), (1, 2))), (None, None, 3))
    (note,) = apart(notes(reference, candidate, numbers(2, 3, 12, 12)))
    assert note.startswith("draw 5, 3×24×24: ")


def test_what_overflows_over_many_steps_is_no_difference() -> None:
    reference = Read(lambda m, x: m.o(m.a(x).cumsum(1).exp().sum(1)), a=nn.Linear(8, 8), o=nn.Linear(8, 3))
    dense = K.Dense(8)
    candidate = keras_reading(lambda x: K.Dense(3)(ops.sum(ops.exp(ops.cumsum(dense(x), 1)), 1)), (None, 8))
    assert not apart(notes(reference, candidate, numbers(2, 6, 8)))


def test_masks_of_every_head_are_as_long_as_the_series() -> None:
    schema = xbackend_fl.describe(
        Read(lambda m, x, mask: m.o(torch.softmax(mask[:, 0] @ m.o(x), -1)), o=nn.Linear(8, 8)),
        (numbers(2, 6, 8), numbers(2, 1, 6, 6)),
    )
    shapes = [port.shape for port in schema.inputs]
    assert longer(shapes, series(schema, shapes), more=1) == [(2, 7, 8), (2, 1, 7, 7)]


def test_work_and_memory_bound_the_draws() -> None:
    schema = xbackend_fl.describe(
        nn.Sequential(nn.Linear(512, 512), nn.Linear(512, 4096)), (numbers(2, 6, 512),)
    )
    shapes = [(2, 6, 512)]
    found = length_factors(schema, shapes, series(schema, shapes))
    assert found[0] == 2
    assert found[-1] * 6 * 2 * (4096 + 512) <= 1 << 22
    image = xbackend_fl.describe(nn.Conv2d(3, 4, 3), (numbers(1, 3, 200, 200),))
    assert length_factors(image, [(1, 3, 200, 200)], behind_channels([(1, 3, 200, 200)])) == []
    assert many_examples(image, [(1, 3, 200, 200)]) == 0


def test_a_branch_for_many_examples_is_seen() -> None:
    class Doubling(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.a = nn.Linear(6, 3)

        def forward(self, x: torch.Tensor) -> torch.Tensor:
            return self.a(x) * max(1.0, x.shape[0] / 64)

    example = (numbers(2, 6),)
    schema, evidence = xbackend_fl.describe_reference(Doubling(), example)
    candidate = keras.Sequential([keras.Input((6,)), K.Dense(3)])
    with pytest.raises(xbackend_fl.errors.MismatchError, match="130 examples"):
        xbackend_fl.bind(candidate, schema, example, evidence)


@pytest.mark.parametrize("turned", [False, True])
def test_a_batch_of_one_that_is_squeezed_is_said(turned: bool) -> None:  # noqa: FBT001  parametrized
    models = [
        Read(lambda m, x: m.a(x).squeeze(), a=nn.Linear(6, 3)),
        keras.Sequential([keras.Input((6,)), K.Dense(3)]),
    ]
    found = notes(*(models[::-1] if turned else models), numbers(2, 6))
    (note,) = [note for note in found if "one example" in note]
    assert "the torch model refuses a batch of one, or answers it with other axes" in note


def test_a_batch_of_one_that_is_computed_otherwise_is_said() -> None:
    reference = Read(lambda m, x: m.a(x - x.mean(0) * (x.shape[0] == 1)), a=nn.Linear(6, 3))
    found = notes(reference, keras.Sequential([keras.Input((6,)), K.Dense(3)]), numbers(2, 6))
    assert any("given one example alone, the two models differ by" in note for note in found)
