"""A model takes its inputs in whatever form its author chose: one by one, by name, in one container or in several."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any, NamedTuple

import keras
import numpy as np
import pytest
import tensorflow as tf
import tf_keras
import torch
from torch import nn

import xbackend_fl
from tests.mapping.masked import normal
from xbackend_fl.errors import MismatchError, UnsupportedError

USER, ITEM = normal(1, 6), normal(1, 6) + np.float32(1)
NAMED = {"user": USER, "item": ITEM}


class Pair(NamedTuple):
    user: Any
    item: Any


@dataclass
class Batch:
    user: Any
    item: Any


def _torch(forward: Callable[..., Any]) -> nn.Module:
    class Model(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.first, self.second = nn.Linear(6, 4), nn.Linear(6, 4)

        def both(self, user: Any, item: Any) -> Any:
            return torch.tanh(self.first(user)) * self.second(item)

    Model.forward = forward  # type: ignore[method-assign]
    return Model()


def _keras(package: Any, call: Callable[..., Any]) -> Any:
    class Model(package.Model):  # type: ignore[misc]
        def __init__(self) -> None:
            super().__init__()
            self.first, self.second = package.layers.Dense(4), package.layers.Dense(4)

        def both(self, user: Any, item: Any) -> Any:
            return tf.tanh(self.first(user)) * self.second(item)

    Model.call = call
    return Model()


def _module(call: Callable[..., Any]) -> tf.Module:
    class Model(tf.Module):
        def __init__(self) -> None:
            super().__init__()
            self.w, self.v = tf.Variable(tf.ones((6, 4))), tf.Variable(tf.ones((6, 4)))
            self.b, self.c = tf.Variable(tf.zeros(4)), tf.Variable(tf.zeros(4))

        def both(self, user: Any, item: Any) -> Any:
            return tf.tanh(user @ self.w + self.b) * (item @ self.v + self.c)

    Model.__call__ = call  # type: ignore[attr-defined]
    return Model()


MAKERS: Mapping[str, Callable[[Callable[..., Any]], Any]] = {
    "torch": _torch,
    "keras": lambda call: _keras(keras, call),
    "legacy": lambda call: _keras(tf_keras, call),
    "module": _module,
}


def one_by_one(self: Any, user: Any, item: Any) -> Any:
    return self.both(user, item)


def with_an_option(self: Any, user: Any, item: Any, more: Any = None, training: bool = False) -> Any:  # noqa: FBT001, FBT002  as people write it
    del more, training
    return self.both(user, item)


def with_a_default(self: Any, user: Any, item: Any = None) -> Any:
    return self.both(user, item)


def one_by_name(self: Any, user: Any, *, item: Any) -> Any:
    return self.both(user, item)


def other_order(self: Any, item: Any, user: Any) -> Any:
    return self.both(user, item)


def any_number(self: Any, *tensors: Any) -> Any:
    return self.both(*tensors)


def in_a_dict(self: Any, inputs: Any) -> Any:
    return self.both(inputs["user"], inputs["item"])


def in_a_pair(self: Any, inputs: Any) -> Any:
    user, item = inputs
    return self.both(user, item)


def in_a_list(self: Any, inputs: Any) -> Any:
    return self.both(inputs[0], inputs[1])


def as_attributes(self: Any, inputs: Any) -> Any:
    return self.both(inputs.user, inputs.item)


def in_a_named_tuple(self: Any, inputs: Pair) -> Any:
    return self.both(inputs.user, inputs.item)


def in_a_dataclass(self: Any, inputs: Batch) -> Any:
    return self.both(inputs.user, inputs.item)


def nested(self: Any, inputs: Any) -> Any:
    return self.both(inputs["who"]["user"], inputs["what"][0])


def exchanged(self: Any, user: Any, item: Any) -> Any:
    return self.both(item, user)


def exchanged_in_a_dict(self: Any, inputs: Any) -> Any:
    return self.both(inputs["item"], inputs["user"])


def exchanged_in_a_list(self: Any, inputs: Any) -> Any:
    return self.both(inputs[1], inputs[0])


ROWS = [
    *(("torch", form) for form in (with_a_default, one_by_name, other_order, any_number, in_a_dict)),
    *(("torch", form) for form in (in_a_pair, as_attributes, in_a_named_tuple, in_a_dataclass)),
    *(("keras", form) for form in (with_an_option, with_a_default, one_by_name, other_order, any_number)),
    *(("keras", form) for form in (in_a_dict, in_a_list)),
    *(("legacy", form) for form in (with_an_option, in_a_dict, in_a_pair)),
    *(("module", form) for form in (with_an_option, other_order, in_a_dict, in_a_named_tuple)),
]
TWISTED = [
    *(("torch", form) for form in (exchanged, exchanged_in_a_dict, exchanged_in_a_list)),
    *(("keras", form) for form in (exchanged, exchanged_in_a_dict, exchanged_in_a_list)),
    ("legacy", exchanged_in_a_dict),
    ("module", exchanged),
]


@pytest.fixture(scope="module")
def reference() -> tuple[Any, Any]:
    model = _torch(one_by_one)
    return xbackend_fl.describe(model, NAMED), xbackend_fl.gather_evidence(model, NAMED)


@pytest.mark.one_in(6)
@pytest.mark.parametrize(("kind", "form"), ROWS, ids=lambda item: getattr(item, "__name__", item))
def test_inputs_come_in_the_form_that_the_model_takes(
    kind: str, form: Callable[..., Any], reference: tuple[Any, Any]
) -> None:
    schema, evidence = reference
    model = MAKERS[kind](form)
    found = xbackend_fl.bind(model, schema, (USER, ITEM), evidence)
    assert found.proof.proven
    native = found.binding.native_inputs((USER, ITEM))
    assert [array is USER or array.base is USER for array in native] == (
        [False, True] if form is other_order else [True, False]
    )


@pytest.mark.one_in(3)
@pytest.mark.parametrize(("kind", "form"), TWISTED, ids=lambda item: getattr(item, "__name__", item))
def test_two_inputs_that_are_exchanged_are_another_function(
    kind: str, form: Callable[..., Any], reference: tuple[Any, Any]
) -> None:
    schema, evidence = reference
    with pytest.raises(MismatchError):
        xbackend_fl.bind(MAKERS[kind](form), schema, (USER, ITEM), evidence)


@pytest.mark.one_in(2)
@pytest.mark.parametrize("kind", ["torch", "keras", "module"])
def test_a_nested_example_is_given_as_the_model_takes_it(kind: str) -> None:
    example = {"who": {"user": USER}, "what": [ITEM]}
    model = MAKERS[kind](nested)
    schema = xbackend_fl.describe(model, example)
    assert [port.name for port in schema.inputs] == ["who.user", "what.0"]
    by_words = xbackend_fl.describe(model, {"who.user": USER, "what.0": ITEM})
    assert by_words.fingerprint == schema.fingerprint
    evidence = xbackend_fl.gather_evidence(model, example)
    assert xbackend_fl.bind(_torch(one_by_one), schema, (USER, ITEM), evidence).proof.proven


@pytest.mark.parametrize("example", [Pair(USER, ITEM), Batch(USER, ITEM), NAMED, (USER, ITEM), [USER, ITEM]])
def test_an_example_may_have_any_form(example: Any) -> None:
    schema = xbackend_fl.describe(_torch(one_by_one), example)
    assert [port.name for port in schema.inputs] == ["user", "item"]


@pytest.mark.parametrize("kind", ["torch", "keras"])
def test_names_that_are_missing_are_asked_for(kind: str) -> None:
    with pytest.raises(
        UnsupportedError, match=r"takes 1 inputs \(inputs\); the example has 2, and as"
    ) as caught:
        xbackend_fl.describe(MAKERS[kind](in_a_dict), (USER, ITEM))
    assert "without the toolkit" not in str(caught.value)
    assert "name=1,3,64,64" in str(caught.value.hint)
    assert xbackend_fl.describe(MAKERS[kind](in_a_dict), NAMED).inputs[0].key == "user"
