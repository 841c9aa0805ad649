"""Inputs go by place: where two models take them in other orders that is said, with the cure, and never guessed."""

from __future__ import annotations

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


class Towers(nn.Module):
    def __init__(self, *, alike: bool) -> None:
        super().__init__()
        self.first, self.second, self.alike = nn.Linear(6, 4), nn.Linear(6, 4), alike

    def forward(self, user: torch.Tensor, item: torch.Tensor) -> torch.Tensor:
        one, two = self.first(user), self.second(item)
        return one * two if self.alike else torch.tanh(one) * two


class ByName(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.towers = Towers(alike=False)

    def forward(self, batch: dict[str, torch.Tensor]) -> torch.Tensor:
        return self.towers(batch["user"], batch["item"])


class ByPlace(nn.Module):
    def __init__(self, net: nn.Module) -> None:
        super().__init__()
        self.net = net

    def forward(self, user: torch.Tensor, item: torch.Tensor) -> torch.Tensor:
        return self.net({"user": user, "item": item})


def native(*, alike: bool, listed: bool) -> keras.Model:
    user, item = keras.Input((6,), name="user"), keras.Input((6,), name="item")
    one, two = K.Dense(4)(user), K.Dense(4)(item)
    inputs: Any = [user, item] if listed else {"user": user, "item": item}
    return keras.Model(inputs, one * two if alike else ops.tanh(one) * two)


EXAMPLE = (normal(1, 6), normal(1, 6) + np.float32(1))


def bound(left: nn.Module, right: keras.Model) -> xbackend_fl.Bound:
    schema, evidence = xbackend_fl.describe(left, EXAMPLE), xbackend_fl.gather_evidence(left, EXAMPLE)
    return xbackend_fl.bind(right, schema, EXAMPLE, evidence)


def test_inputs_that_trade_places_are_named_with_a_cure() -> None:
    with pytest.raises(MismatchError, match="take their inputs in different orders") as caught:
        bound(Towers(alike=False), native(alike=False, listed=False))
    assert "the candidate's 'user', 'item', which takes 'item', 'user'" in caught.value.message
    assert "keras.Model([first, second], …)" in str(caught.value.hint)
    found = bound(Towers(alike=False), native(alike=False, listed=True))
    assert found.proof.proven
    assert not any("paired by place" in note for note in found.notes)


def test_inputs_that_may_trade_places_are_paired_by_place_and_their_names_are_said() -> None:
    found = bound(Towers(alike=True), native(alike=True, listed=False))
    assert found.proof.proven
    (note,) = (note for note in found.notes if "paired by place" in note)
    assert "the reference takes 'user', 'item', the candidate 'item', 'user'" in note


def test_other_differences_are_not_laid_to_the_order_of_inputs() -> None:
    user, item = keras.Input((6,)), keras.Input((6,))
    other = keras.Model([user, item], ops.sigmoid(K.Dense(4)(user)) * K.Dense(4)(item))
    with pytest.raises(MismatchError) as caught:
        bound(Towers(alike=False), other)
    assert "orders" not in caught.value.message


def test_a_dict_or_a_bare_array_as_example_is_refused_for_what_it_is() -> None:
    example: Any = {"user": EXAMPLE[0], "item": EXAMPLE[1]}
    with pytest.raises(RefusedInput, match=r"the example is a dict \('user', 'item'\)") as caught:
        xbackend_fl.describe(ByName(), example)
    assert "self.net({'a': a, 'b': b})" in str(caught.value.hint)
    assert bound(ByPlace(ByName()), native(alike=False, listed=True)).proof.proven
    array: Any = EXAMPLE[0]
    with pytest.raises(RefusedInput, match="the example is one array"):
        xbackend_fl.describe(nn.Linear(6, 2), array)
