"""What models return: paired by name where there are names, in the order of a tuple where there are none."""

from __future__ import annotations

from collections import OrderedDict, namedtuple
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import keras
import numpy as np
import pytest
import tensorflow as tf
import torch
from keras import layers as K
from torch import nn

import xbackend_fl
from xbackend_fl.errors import MismatchError, RefusedInput

EXAMPLE = (np.zeros((1, 4), np.float32),)

Named = namedtuple("Named", "scores boxes")  # noqa: PYI024  what users write


@dataclass
class Record:
    """Outputs as many libraries return them."""

    scores: Any
    boxes: Any
    loss: Any = None


class Torch(nn.Module):
    """Two heads of one shape: nothing but the name tells them apart."""

    def __init__(self, give: Callable[[Any, Any], Any]) -> None:
        super().__init__()
        self.scores = nn.Linear(4, 2)
        self.boxes = nn.Linear(4, 2)
        self.give = give

    def forward(self, x: torch.Tensor) -> Any:
        return self.give(self.scores(x), self.boxes(x))


class Keras(keras.Model):
    """The same, its heads made in the other order and without telling names."""

    def __init__(self, give: Callable[[Any, Any], Any]) -> None:
        super().__init__()
        self.b = K.Dense(2)
        self.a = K.Dense(2)
        self.give = give

    def call(self, x: Any) -> Any:
        b = self.b(x)
        return self.give(self.a(x), b)


def bound(reference: Any, candidate: Any) -> Any:
    schema, evidence = xbackend_fl.describe_reference(reference, EXAMPLE)
    return xbackend_fl.bind(candidate, schema, EXAMPLE, evidence)


WAYS: dict[str, Callable[[Any, Any], Any]] = {
    "dict": lambda scores, boxes: {"scores": scores, "boxes": boxes},
    "dict the other way round": lambda scores, boxes: {"boxes": boxes, "scores": scores},
    "ordered dict": lambda scores, boxes: OrderedDict(scores=scores, boxes=boxes),
    "named tuple": Named,
    "dataclass with a loss that is None": Record,
}


@pytest.mark.one_in(2)
@pytest.mark.parametrize("way", WAYS)
@pytest.mark.parametrize("other", ["dict", "named tuple"])
def test_outputs_with_names_are_paired_by_name(way: str, other: str) -> None:
    one = Torch(WAYS[way])
    two = bound(one, Keras(WAYS[other]))
    assert [port.key for port in two.schema.outputs] == ["boxes", "scores"]
    values = np.arange(8, dtype=np.float32).reshape(2, 4)
    weights = dict(two.read()) | {"scores.weight": values, "boxes.weight": -values}
    two.write(xbackend_fl.Weights.from_schema(two.schema, weights))
    probe = np.eye(4, dtype=np.float32)
    given = two.trainer.forward([probe])
    with torch.no_grad():
        one.scores.weight.copy_(torch.from_numpy(values))
        one.boxes.weight.copy_(torch.from_numpy(-values))
        for name, head in (("scores", one.scores), ("boxes", one.boxes)):
            head.bias.copy_(torch.from_numpy(weights[f"{name}.bias"]))
        expected = [one.boxes(torch.from_numpy(probe)), one.scores(torch.from_numpy(probe))]
    for received, wanted in zip(given, expected, strict=True):
        np.testing.assert_allclose(received, wanted.numpy(), atol=1e-6)


@pytest.mark.parametrize("single", ["reference", "candidate", "both"])
def test_a_dict_of_one_is_its_only_output(single: str) -> None:
    def give(*, named: bool) -> Callable[[Any, Any], Any]:
        return lambda a, b: {"logits": a - b} if named else a - b

    two = bound(Torch(give(named=single != "candidate")), Keras(give(named=single != "reference")))
    assert two.proof.proven


@pytest.mark.parametrize(
    ("reference", "candidate", "words"),
    [
        ({"scores", "boxes"}, {"scores"}, ["'boxes' is returned by the reference alone"]),
        ({"scores"}, {"scores", "boxes"}, ["'boxes' is returned by the candidate alone"]),
        ({"scores"}, {"logits"}, ["'scores' is returned by the reference", "'logits' is returned by the candidate"]),
    ],
)  # fmt: skip
def test_a_missing_name_is_named(reference: set[str], candidate: set[str], words: list[str]) -> None:
    def give(names: set[str]) -> Callable[[Any, Any], Any]:
        return lambda a, b: {name: b if name == "boxes" else a for name in names}

    with pytest.raises(MismatchError) as caught:
        bound(Torch(give(reference)), Keras(give(candidate)))
    for word in words:
        assert word in caught.value.message


def test_names_against_positions_are_not_guessed() -> None:
    with pytest.raises(MismatchError, match="nothing tells which is which") as caught:
        bound(Torch(WAYS["dict"]), Keras(lambda a, b: [a, b]))
    assert "dict or a named tuple" in str(caught.value)
    assert bound(Torch(lambda a, b: (a, b)), Keras(lambda a, b: [a, None, b])).proof.proven


@pytest.mark.one_in(2)
@pytest.mark.parametrize(
    "give", [lambda a, b: [a, b * b], lambda a, b: (b * b, a)], ids=["in order", "turned"]
)
@pytest.mark.parametrize("named", ["reference", "candidate"])
def test_numbers_tell_names_from_positions(give: Any, named: str) -> None:
    names = lambda a, b: {"scores": a, "boxes": b * b}  # noqa: E731  as it is written above
    found = bound(
        Torch(names if named == "reference" else give), Keras(give if named == "reference" else names)
    )
    assert any("outputs have names on one side only" in note for note in found.notes)
    model = Torch(names if named == "reference" else give)
    reference = xbackend_fl.bind(model, found.schema, EXAMPLE)
    found.write(reference.read())
    data = (np.random.default_rng(0).standard_normal((3, 4)).astype(np.float32),)
    for one, two in zip(found.trainer.forward(data), reference.trainer.forward(data), strict=True):
        np.testing.assert_allclose(one, two, rtol=1e-4, atol=1e-5)


def test_names_against_positions_of_other_outputs() -> None:
    with pytest.raises(MismatchError, match="they agree in no order") as caught:
        bound(Torch(WAYS["dict"]), Keras(lambda a, b: [a, 2 * b]))
    assert "Mul" in str(caught.value)


def test_outputs_within_outputs() -> None:
    def give(a: Any, b: Any) -> Any:
        return {"heads": {"scores": a, "more": [b]}, "hidden": None}

    found = bound(Torch(give), Keras(give))
    assert [port.key for port in found.schema.outputs] == ["heads.more.0", "heads.scores"]


@pytest.mark.parametrize(
    ("give", "words"),
    [
        (lambda a, _: {"x": a, "temperature": 0.5}, "'temperature' of the model is of the type float"),
        (lambda a, _: (a, "text"), "'1' of the model is of the type str"),
        (lambda _, __: {}, "returns no tensor"),
        (lambda _, __: None, "returns no tensor"),
    ],
)
@pytest.mark.parametrize("kind", [Torch, Keras])
def test_what_is_no_tensor_is_named(kind: Any, give: Any, words: str) -> None:
    with pytest.raises(RefusedInput, match=words):
        xbackend_fl.describe(kind(give), EXAMPLE)


class Module(tf.Module):
    """Not Keras: a plain module of TensorFlow that returns a dict."""

    def __init__(self) -> None:
        super().__init__()
        self.w, self.v = tf.Variable(tf.random.normal((4, 2))), tf.Variable(tf.random.normal((4, 2)))
        self.c, self.d = tf.Variable(tf.zeros(2)), tf.Variable(tf.zeros(2))

    def __call__(self, x: Any) -> Any:
        return {"boxes": x @ self.v + self.d, "scores": x @ self.w + self.c}


def test_a_module_of_tensorflow() -> None:
    found = bound(Torch(Named), Module())
    assert found.proof.proven
    assert "Variable" in str(found.binding.parameters["scores.weight"])
