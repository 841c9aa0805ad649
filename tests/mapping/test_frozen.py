"""What one model keeps in a buffer, and nobody trains, may be a constant of the other: with the same values it is one function."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import keras
import numpy as np
import pytest
import tensorflow as tf
import torch
from keras import ops
from torch import nn

import xbackend_fl
from xbackend_fl.canonical import Binding
from xbackend_fl.errors import MismatchError, SchemaError, XbflError
from xbackend_fl.mapping.proof.publish import read_evidence, write_evidence

RNG = np.random.default_rng(3)
PLACES = RNG.standard_normal((5, 6)).astype(np.float32)
MIXING = RNG.standard_normal((6, 4)).astype(np.float32)
ROWS = RNG.standard_normal((2, 5, 6)).astype(np.float32)
OTHER = (PLACES + np.eye(5, 6) * 0.01).astype(np.float32)


class Placed(nn.Module):
    """Places are added and fixed features made; ``how`` says what holds the two arrays."""

    def __init__(self, how: str, places: Any = PLACES) -> None:
        super().__init__()
        self.inner, self.outer = nn.Linear(6, 6), nn.Linear(4, 3)
        for name, array in (("places", places), ("mixing", MIXING.T)):
            tensor = torch.from_numpy(array.copy())
            if how == "buffer":
                self.register_buffer(name, tensor)
            elif how == "frozen parameter":
                setattr(self, name, nn.Parameter(tensor, requires_grad=False))
            else:
                setattr(self, name, tensor)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        hidden = torch.tanh(self.inner(x) + self.places)
        return self.outer(torch.sin(nn.functional.linear(hidden, self.mixing)))


class Fixed(keras.layers.Layer):
    """The same in Keras, as constants or as weights that do not train."""

    def __init__(self, *, weights: bool, places: Any = PLACES) -> None:
        super().__init__()
        self.places, self.mixing = places, MIXING
        if weights:
            fixed = keras.initializers.Constant
            self.places = self.add_weight(
                shape=(5, 6), initializer=fixed(places), trainable=False, name="places"
            )
            self.mixing = self.add_weight(
                shape=(6, 4), initializer=fixed(MIXING), trainable=False, name="mixing"
            )

    def call(self, x: Any) -> Any:
        return ops.sin(ops.matmul(ops.tanh(x + self.places), self.mixing))


def placed_keras(*, weights: bool, places: Any = PLACES) -> Any:
    data = keras.Input((5, 6))
    fixed = Fixed(weights=weights, places=places)
    return keras.Model(data, keras.layers.Dense(3, name="b")(fixed(keras.layers.Dense(6, name="a")(data))))


class PlacedModule(tf.Module):
    """The same in TensorFlow, the two arrays held by the model in no variable."""

    def __init__(self) -> None:
        super().__init__()
        self.inner, self.outer = tf.Variable(tf.ones((6, 6))), tf.Variable(tf.ones((4, 3)))
        self.shifts = [tf.Variable(tf.zeros(6)), tf.Variable(tf.zeros(3))]

    def __call__(self, x: Any) -> Any:
        hidden = tf.tanh(tf.matmul(x, self.inner) + self.shifts[0] + PLACES[None])
        return tf.matmul(tf.sin(tf.matmul(hidden, MIXING)), self.outer) + self.shifts[1]


def mapped(reference: Any, candidate: Any) -> Any:
    schema, evidence = xbackend_fl.describe(reference, ROWS), xbackend_fl.gather_evidence(reference, ROWS)
    bound = xbackend_fl.bind(candidate, schema, ROWS, evidence)
    assert bound.proof.proven
    return bound


def outputs(model: Any) -> Any:
    if isinstance(model, nn.Module):
        return model(torch.from_numpy(ROWS)).detach().numpy()
    return np.asarray(model(ROWS))


def agree(reference: Any, candidate: Any, bound: Any) -> None:
    """The candidate computes what the reference does with its weights."""
    own = xbackend_fl.bind(reference, bound.schema, ROWS)
    bound.write(own.read())
    np.testing.assert_allclose(outputs(candidate), outputs(reference), rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize("how", ["buffer", "frozen parameter"])
def test_a_constant_for_what_the_reference_holds(how: str) -> None:
    reference, candidate = Placed(how), placed_keras(weights=False)
    bound = mapped(reference, candidate)
    agree(reference, candidate, bound)
    np.testing.assert_array_equal(bound.read()["places.weight"], PLACES)
    assert Binding.from_json(bound.binding.to_json()) == bound.binding


def test_a_module_of_constants() -> None:
    reference, candidate = Placed("buffer"), PlacedModule()
    agree(reference, candidate, mapped(reference, candidate))


def test_a_weight_for_a_constant_of_the_reference() -> None:
    reference, candidate = Placed("tensor"), placed_keras(weights=True)
    bound = mapped(reference, candidate)
    agree(reference, candidate, bound)
    assert len(bound.binding.local) == 2


@pytest.mark.slow
def test_keras_constants_and_weights_as_references() -> None:
    keras.utils.clear_session()
    reference, candidate = placed_keras(weights=True), Placed("tensor")
    agree(reference, candidate, mapped(reference, candidate))
    reference, candidate = placed_keras(weights=False), Placed("buffer")
    agree(reference, candidate, mapped(reference, candidate))


def test_what_both_hold_may_differ() -> None:
    """Two buffers are weights: the candidate takes the reference's, whatever it holds itself."""
    reference, candidate = Placed("buffer"), placed_keras(weights=True, places=OTHER)
    agree(reference, candidate, mapped(reference, candidate))


@pytest.mark.parametrize(
    ("reference", "candidate"),
    [
        (lambda: Placed("buffer"), lambda: placed_keras(weights=False, places=OTHER)),
        (lambda: Placed("tensor"), lambda: placed_keras(weights=True, places=OTHER)),
    ],
    ids=["constant", "weight"],
)
def test_other_values_are_another_function(reference: Any, candidate: Any) -> None:
    with pytest.raises(MismatchError):
        mapped(reference(), candidate())


def test_weights_with_other_values_are_not_taken() -> None:
    bound = mapped(Placed("buffer"), placed_keras(weights=False))
    other = xbackend_fl.bind(Placed("buffer", OTHER), bound.schema, ROWS).read()
    with pytest.raises(SchemaError, match=r"'places\.weight' is a constant of the tensorflow model"):
        bound.write(other)


def test_published_evidence_says_what_is_held(tmp_path: Path) -> None:
    reference = Placed("buffer")
    schema, evidence = xbackend_fl.describe(reference, ROWS), xbackend_fl.gather_evidence(reference, ROWS)
    write_evidence(tmp_path / "evidence.safetensors", schema, evidence)
    read = read_evidence(tmp_path / "evidence.safetensors", schema)
    assert xbackend_fl.bind(placed_keras(weights=False), schema, ROWS, read).proof.proven
    with pytest.raises(XbflError):
        xbackend_fl.bind(
            placed_keras(weights=False), schema, ROWS, [item for item in read if not item.case.frozen]
        )
