"""Inputs go by name, else by place, else as the numbers say; two inputs exchanged in one model are another function."""

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

import xbackend_fl
from tests.mapping.masked import normal
from xbackend_fl.errors import MismatchError, RefusedInput

EXAMPLE = (normal(1, 6), normal(1, 6) + np.float32(1))


class Towers(nn.Module):
    def __init__(self, *, alike: bool = False) -> None:
        super().__init__()
        self.first, self.second, self.alike = nn.Linear(6, 4), nn.Linear(6, 4), alike

    def forward(self, user: torch.Tensor, item: torch.Tensor) -> torch.Tensor:
        one, two = self.first(user), self.second(item)
        return one * two if self.alike else torch.tanh(one) * two


class ByName(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.towers = Towers()

    def forward(self, batch: dict[str, torch.Tensor]) -> torch.Tensor:
        return self.towers(batch["user"], batch["item"])


Build = Callable[[Any, Any], Any]


def native(
    build: Build, *, alike: bool = False, exchanged: bool = False, words: tuple[str, str] = ("user", "item")
) -> keras.Model:
    user, item = keras.Input((6,), name=words[0]), keras.Input((6,), name=words[1])
    one, two = (K.Dense(4)(part) for part in ((item, user) if exchanged else (user, item)))
    return keras.Model(build(user, item), one * two if alike else ops.tanh(one) * two)


def listed(user: Any, item: Any) -> Any:
    return [user, item]


def backwards(user: Any, item: Any) -> Any:
    return [item, user]


def keyed(user: Any, item: Any) -> Any:
    return {"user": user, "item": item}


def bound(left: nn.Module, right: Any, example: Any = EXAMPLE) -> xbackend_fl.BoundModel:
    schema, evidence = xbackend_fl.describe_reference(left, example)
    return xbackend_fl.bind(right, schema, example, evidence)


def noted(found: xbackend_fl.BoundModel) -> list[str]:
    return [note for note in found.notes if "inputs" in note]


@pytest.mark.parametrize("build", [backwards, keyed])
def test_names_pair_inputs_whatever_their_order(build: Build) -> None:
    right = native(build)
    found = bound(Towers(), right)
    assert found.proof.proven
    (note,) = noted(found)
    assert (
        note == "inputs are paired by name: the reference takes 'user', 'item', the candidate 'item', 'user'"
    )
    user, item = (np.repeat(array, 3, 0) + np.arange(3, dtype=np.float32)[:, None] for array in EXAMPLE)
    (answer,) = found.forward((user, item))
    by_name = {"user": user, "item": item}
    expected = right([by_name[name] for name in ("item", "user")] if build is backwards else by_name)
    np.testing.assert_array_equal(answer, np.asarray(expected))


@pytest.mark.parametrize("build", [listed, backwards, keyed])
def test_inputs_exchanged_in_one_model_are_refused_with_both_orders(build: Build) -> None:
    with pytest.raises(MismatchError, match="take their inputs in different orders") as caught:
        bound(Towers(), native(build, exchanged=True))
    assert "the reference's 'user', 'item' are the candidate's 'item', 'user'" in caught.value.message


def test_other_names_in_one_order_are_paired_by_place() -> None:
    found = bound(Towers(), native(listed, words=("left", "right")))
    assert noted(found) == ["inputs are paired by place: 'user' is 'left', 'item' is 'right'"]
    with pytest.raises(MismatchError, match="different orders"):
        bound(Towers(), native(listed, words=("left", "right"), exchanged=True))


@pytest.mark.parametrize("words", [("user_ids", "item_ids"), ("u", "i")])
def test_names_that_are_partly_alike_are_asked(words: tuple[str, str]) -> None:
    found = bound(Towers(), native(backwards, words=words))
    assert found.binding.order == (1, 0)
    assert noted(found) == [
        f"inputs are paired as the numbers say: 'user' is {words[0]!r}, 'item' is {words[1]!r}"
    ]


def test_keys_have_no_order_and_the_numbers_say_which_is_which() -> None:
    user, item = EXAMPLE
    for example in ({"user": user, "item": item}, {"item": item, "user": user}):
        found = bound(ByName(), native(listed, words=("a", "z")), example)
        assert found.proof.proven
        assert found.binding.order == (() if next(iter(example)) == "user" else (1, 0))


def test_inputs_that_may_trade_places_are_paired_by_name_and_it_is_said() -> None:
    found = bound(Towers(alike=True), native(keyed, alike=True))
    assert found.proof.proven
    assert any("may trade places" in note for note in found.notes)
    assert found.binding.order == (1, 0)


def test_sizes_that_fit_in_one_order_alone_pair_what_has_other_names() -> None:
    class Sized(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.words, self.first, self.second = nn.Embedding(9, 4), nn.Linear(4, 3), nn.Linear(5, 3)

        def forward(self, ids: torch.Tensor, dense: torch.Tensor) -> torch.Tensor:
            return torch.tanh(self.first(self.words(ids).mean(1))) + self.second(dense)

    tokens, numbers = keras.Input((7,), dtype="int64", name="tokens"), keras.Input((5,), name="numbers")
    seen = ops.tanh(K.Dense(3)(ops.mean(K.Embedding(9, 4)(tokens), 1)))
    model = keras.Model({"tokens": tokens, "numbers": numbers}, seen + K.Dense(3)(numbers))
    found = bound(Sized(), model, (np.arange(7)[None] % 9, normal(1, 5)))
    assert found.proof.proven
    assert found.binding.order == (1, 0)


def test_other_differences_are_not_laid_to_the_order_of_inputs() -> None:
    user, item = keras.Input((6,)), keras.Input((6,))
    other = keras.Model([user, item], ops.sigmoid(K.Dense(4)(user)) * K.Dense(4)(item))
    with pytest.raises(MismatchError) as caught:
        bound(Towers(), other)
    assert "orders" not in caught.value.message


def test_an_example_without_arrays_is_refused_and_one_array_is_one_input() -> None:
    with pytest.raises(RefusedInput, match="the example has no arrays"):
        xbackend_fl.describe(nn.Linear(6, 2), {})
    assert len(xbackend_fl.describe(nn.Linear(6, 2), EXAMPLE[0]).inputs) == 1
