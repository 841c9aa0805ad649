"""Describing, probing and binding leave a user's model as it was, bit for bit, also where they fail."""

from __future__ import annotations

import random
from collections import OrderedDict, deque
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

import xbackend_fl
from tests.adapters.untouched import changes, snapshot
from tests.adapters.zoo import ROWS
from xbackend_fl.errors import RefusedInput

IMAGE = (np.random.default_rng(0).standard_normal((2, 3, 9, 8)).astype(np.float32),)
VECTOR = (np.random.default_rng(0).standard_normal((2, 4)).astype(np.float32),)


@pytest.fixture(autouse=True)
def generator() -> None:
    """TensorFlow has no global generator of its own in a process that another test made deterministic."""
    tf.random.set_global_generator(tf.random.Generator.from_seed(4))


class Particular(nn.Module):
    """Much of what a module can hold beside its weights."""

    def __init__(self) -> None:
        super().__init__()
        self.c = nn.Conv2d(3, 8, 3)
        self.b = nn.BatchNorm2d(8)
        self.d = nn.Dropout(0.3)
        self.l = nn.Linear(8, 2)
        self.b.eval()
        self.l.weight.requires_grad_(requires_grad=False)
        self.l.register_forward_hook(lambda _, __, output: output)
        self.register_buffer("steps", torch.tensor(3))
        self.calls, self.last = 0, None

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        self.calls += 1
        self.last = self.l(self.d(torch.relu(self.b(self.c(x))).mean((2, 3))))
        return self.last


class Normed(nn.Module):
    """Weights that are computed, in both ways that PyTorch has."""

    def __init__(self) -> None:
        super().__init__()
        self.a = nn.utils.parametrizations.weight_norm(nn.Linear(4, 3))
        self.b = nn.utils.spectral_norm(nn.Linear(3, 3))
        self(torch.from_numpy(VECTOR[0]))

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return self.b(torch.tanh(self.a(x)))


class Sorting(nn.Module):
    """Cannot be described, which shows only after it was traced."""

    def __init__(self) -> None:
        super().__init__()
        self.c, self.d = nn.Conv2d(3, 4, 3), nn.Dropout()

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return torch.sort(self.d(self.c(x))).values


def with_gradients() -> nn.Module:
    model = nn.Sequential(nn.Linear(4, 3), nn.BatchNorm1d(3))
    model(torch.from_numpy(VECTOR[0])).sum().backward()
    return model


def channels_last() -> nn.Module:
    return nn.Sequential(nn.Conv2d(3, 8, 3), nn.ReLU()).to(memory_format=torch.channels_last)  # type: ignore[call-overload,no-any-return]


def compiled_keras() -> Any:
    inside = keras.Input((9, 8, 3))
    x = K.BatchNormalization(trainable=False)(K.Conv2D(4, 3)(inside))
    x = K.GlobalAveragePooling2D()(K.Dropout(0.2, seed=3)(x))
    model = keras.Model(inside, K.Dense(2)(x))
    model.layers[1].trainable = False
    model.compile("adam", "mse", metrics=["mae"])
    model.optimizer.build(model.trainable_variables)
    return model


def legacy() -> Any:
    layers = tf_keras.layers
    inside = tf_keras.Input((9, 8, 3))
    x = layers.Dropout(0.2)(layers.BatchNormalization()(layers.Conv2D(4, 3)(inside)))
    model = tf_keras.Model(inside, layers.Dense(2)(layers.GlobalAveragePooling2D()(x)))
    model.compile("adam", "mse")
    return model


class Subclassed(keras.Model):
    """Counts its calls and keeps what it computed last."""

    def __init__(self) -> None:
        super().__init__()
        self.c, self.b, self.d = K.Conv2D(4, 3), K.BatchNormalization(), K.Dropout(0.4)
        self.g, self.o = K.GlobalAveragePooling2D(), K.Dense(2)
        self.calls, self.last = 0, None
        self(IMAGE[0].transpose(0, 2, 3, 1))

    def call(self, x: Any, *, training: bool = False) -> Any:
        self.calls += 1
        x = self.d(self.b(self.c(x), training=training), training=training)
        self.last = self.o(self.g(x))
        return self.last


class Plain(tf.Module):
    def __init__(self) -> None:
        super().__init__()
        self.w = tf.Variable(tf.random.normal((4, 3)))
        self.last: Any = None

    def __call__(self, x: Any) -> Any:
        self.last = tf.matmul(x, self.w)
        return self.last


class Remembering:
    """Fills containers of every kind whenever it is called."""

    def hold(self) -> None:
        self.hist, self.cache, self.seen, self.nested = [1], {"first": 2}, {3}, {"of": [4]}
        self.ordered = OrderedDict(last=1, first=2)

    def note(self, value: Any) -> Any:
        self.hist.append(value)
        self.cache["last"] = value
        self.cache.pop("first", None)
        self.seen.add(len(self.seen) + 10)
        self.nested["of"].append(value)
        self.ordered["late"] = value
        self.ordered.pop("last", None)
        return value

    def held(self) -> str:
        kept = (
            list(self.ordered.items()),
            list(reversed(self.ordered)),
        )  # its order is kept apart from its items
        return repr((list(self.hist), dict(self.cache), sorted(self.seen), list(self.nested["of"]), kept))


class RememberingTorch(Remembering, nn.Module):
    def __init__(self) -> None:
        super().__init__()
        nn.Module.__init__(self)
        self.layer, self.last = nn.Linear(4, 3), deque([5], maxlen=2)
        self.hold()

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        self.last.append(x)
        return self.note(self.layer(x))

    def held(self) -> str:
        return f"{super().held()} {self.last}"


class RememberingKeras(Remembering, keras.Model):
    def __init__(self) -> None:
        super().__init__()
        self.layer = K.Dense(3)
        self.hold()
        self(VECTOR[0])

    def call(self, x: Any) -> Any:
        return self.note(self.layer(x))


class RememberingModule(Remembering, tf.Module):
    def __init__(self) -> None:
        super().__init__()
        self.w = tf.Variable(tf.random.normal((4, 3)))
        self.hold()

    def __call__(self, x: Any) -> Any:
        return self.note(tf.matmul(x, self.w))


@pytest.mark.parametrize("build", [RememberingTorch, RememberingKeras, RememberingModule])
def test_what_lies_in_a_models_own_containers_is_brought_back(build: Callable[[], Any]) -> None:
    model = build()
    before = model.held()
    schema = xbackend_fl.describe(model, VECTOR)
    assert model.held() == before, "describe"
    evidence = xbackend_fl.gather_evidence(model, VECTOR)
    assert model.held() == before, "gather_evidence"
    xbackend_fl.bind(model, schema, VECTOR, evidence)
    assert model.held() == before, "bind"


CASES: list[tuple[str, Callable[[], Any], Any]] = [
    ("flags, hooks and counters", Particular, IMAGE),
    ("computed weights", Normed, VECTOR),
    ("gradients", with_gradients, VECTOR),
    ("channels last", channels_last, IMAGE),
    ("no canonical form", Sorting, IMAGE),
    ("compiled Keras, partly frozen", compiled_keras, IMAGE),
    ("legacy Keras", legacy, IMAGE),
    ("subclassed Keras", Subclassed, IMAGE),
    ("a module of TensorFlow", Plain, VECTOR),
    *(
        (f"{row.name}, {side}", getattr(row, side), row.example())
        for row in ROWS[::18]
        for side in ("torch", "keras")
    ),
]


SLOW = {"GRU bidirectional ends, keras"}
"""Ten seconds; another recurrent layer of Keras is in each run."""


@pytest.mark.one_in(4)
@pytest.mark.parametrize(
    ("name", "build", "example"),
    [pytest.param(*case, id=case[0], marks=pytest.mark.slow if case[0] in SLOW else ()) for case in CASES],
)
def test_a_model_is_left_as_it_was(name: str, build: Callable[[], Any], example: Any) -> None:
    model = build()
    if not isinstance(model, torch.nn.Module) and not model.variables:
        pytest.skip("it has no variables before it was called")
    random.seed(1)
    np.random.seed(2)  # noqa: NPY002  the global one is what must be left alone
    torch.manual_seed(3)
    before = snapshot(model)
    try:
        schema = xbackend_fl.describe(model, example)
        assert not changes(before, snapshot(model)), "describe"
        evidence = xbackend_fl.gather_evidence(model, example)
        assert not changes(before, snapshot(model)), "gather_evidence"
        xbackend_fl.bind(model, schema, example, evidence)
    except RefusedInput:
        assert name == "no canonical form"
    assert not changes(before, snapshot(model))


def test_a_mismatch_leaves_the_candidate_as_it_was() -> None:
    reference, candidate = (
        nn.Sequential(nn.Conv2d(3, 8, 3), nn.ReLU()),
        nn.Sequential(nn.Conv2d(3, 8, 3), nn.Tanh()),
    )
    schema, evidence = xbackend_fl.describe_reference(reference, IMAGE)
    before = snapshot(candidate)
    with pytest.raises(RefusedInput):
        xbackend_fl.bind(candidate, schema, IMAGE, evidence)
    assert not changes(before, snapshot(candidate))
    candidate[0].weight.view(8, -1)


def test_the_snapshot_sees_what_it_is_for() -> None:
    model = Particular()
    before = snapshot(model)
    model.c.weight.data = model.c.weight.data.to(memory_format=torch.channels_last)
    model.d.eval()
    torch.manual_seed(5)
    assert {"tensor c.weight", "d training", "torch"} <= set(changes(before, snapshot(model)))


class Late(K.Layer):
    """Makes layers and weights in its first call, and keeps some in lists and dicts."""

    def __init__(self) -> None:
        super().__init__()
        self.every, self.named = [K.Dense(4), K.Dense(4)], {"a": K.Dense(4)}

    def build(self, shape: Any) -> None:
        self.scale, self.late = self.add_weight(shape=(shape[-1],), initializer="ones"), K.Dense(4)
        super().build(shape)

    def call(self, x: Any) -> Any:
        for layer in self.every:
            x = layer(x * self.scale)
        return self.named["a"](self.late(x))


class Calling(keras.Model):
    def __init__(self, *layers: Any, end: Callable[[Any], Any] | None = None) -> None:
        super().__init__()
        self.every, self.end = list(layers), end

    def call(self, x: Any) -> Any:
        for layer in self.every:
            x = layer(x)
        return x if self.end is None else self.end(x)


class LegacyCalling(tf_keras.Model):  # type: ignore[misc]  it has no types
    def __init__(self) -> None:
        super().__init__()
        self.every = [tf_keras.layers.Dense(4) for _ in range(2)]

    def call(self, x: Any) -> Any:
        return self.every[1](self.every[0](x))

    @property
    def variables(self) -> Any:
        return super().variables if self.built else []


UNBUILT: list[tuple[str, Callable[[], Any]]] = [
    ("sequential", lambda: keras.Sequential([K.Dense(4), K.Dropout(0.1), K.Dense(2)])),
    ("subclassed", lambda: Calling(K.Dense(4), K.BatchNormalization())),
    ("layers made late", lambda: Calling(Late())),
    ("built and unbuilt", lambda: Calling(keras.Sequential([keras.Input((4,)), K.Dense(4)]), Late())),
    ("a layer", lambda: K.Dense(3)),
    ("legacy", LegacyCalling),
]


@pytest.mark.one_in(4)
@pytest.mark.parametrize(("name", "build"), UNBUILT, ids=[row[0] for row in UNBUILT])
def test_a_model_without_variables_has_none_again(name: str, build: Callable[[], Any]) -> None:
    del name
    model = build()
    before = snapshot(model)
    schema = xbackend_fl.describe(model, VECTOR)
    assert changes(before, snapshot(model)) == []
    evidence = xbackend_fl.gather_evidence(model, VECTOR)
    assert changes(before, snapshot(model)) == []
    found = xbackend_fl.bind(model, schema, VECTOR, evidence)
    assert found.proof.proven
    assert any("had no variables yet" in note for note in found.notes)
    model(tf.constant(VECTOR[0]))
    assert len(found.trainer.read()) >= len(model.weights) > 0
    again = xbackend_fl.bind(model, schema, VECTOR, evidence)
    # The evidence was gathered before; what it says is of the reference then.
    own = [note for note in again.notes if not note.startswith("the reference: ")]
    assert not any("had no variables yet" in note for note in own)


def test_a_model_that_is_refused_has_no_variables_either() -> None:
    model = Calling(Late(), end=lambda x: tf.argmax(x, 1))
    other = xbackend_fl.describe(nn.Linear(4, 4), VECTOR)
    before = snapshot(model)
    for use in (xbackend_fl.describe, xbackend_fl.gather_evidence):
        with pytest.raises(RefusedInput):
            use(model, VECTOR)
        assert changes(before, snapshot(model)) == []
    with pytest.raises(RefusedInput):
        xbackend_fl.bind(model, other, VECTOR)
    assert changes(before, snapshot(model)) == []


@pytest.mark.parametrize("options", [{"dropout": 0.2}, {"recurrent_dropout": 0.2}], ids=str)
def test_a_refused_model_draws_on_as_if_it_had_not_been_looked_at(options: dict[str, float]) -> None:
    model = keras.Sequential([keras.Input((6, 4)), K.LSTM(5, **options), K.Dropout(0.1), K.Dense(2)])
    before = {variable.path: variable.numpy() for variable in model.variables}
    with pytest.raises(RefusedInput, match="dropout inside the cell"):
        xbackend_fl.describe(model, (np.zeros((1, 6, 4), np.float32),))
    assert sum("seed_generator_state" in path for path in before) >= 2
    for variable in model.variables:
        np.testing.assert_array_equal(variable.numpy(), before[variable.path], err_msg=variable.path)


@pytest.mark.parametrize("refused", [False, True])
def test_what_counts_its_calls_has_counted_none(*, refused: bool) -> None:
    class Counting(K.Layer):
        def __init__(self) -> None:
            super().__init__()
            self.calls = self.add_weight(shape=(), initializer="zeros", trainable=False)

        def call(self, x: Any) -> Any:
            self.calls.assign_add(1.0)
            return x

    counting, x = Counting(), keras.Input((5, 4))
    model = keras.Model(x, K.LSTM(3, dropout=0.1 if refused else 0.0)(counting(x)))
    before = counting.calls.numpy()
    try:
        xbackend_fl.describe(model, (np.zeros((1, 5, 4), np.float32),))
    except RefusedInput:
        assert refused
    assert counting.calls.numpy() == before
