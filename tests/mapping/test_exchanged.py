"""Two outputs that trade places are named, and the cure holds."""

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
from xbackend_fl.errors import MismatchError

EXAMPLE = (np.random.default_rng(1).standard_normal((2, 6)).astype(np.float32),)
Order = tuple[int, ...]


class Heads(nn.Module):
    def __init__(self, returned: Callable[[Any, Any, Any], Any], *, opaque: bool = False) -> None:
        super().__init__()
        self.trunk, self.mean, self.spread, self.vote = (
            nn.Linear(6, 8),
            nn.Linear(8, 3),
            nn.Linear(8, 3),
            nn.Linear(8, 3),
        )
        self.returned, self.opaque = returned, opaque

    def forward(self, x: torch.Tensor) -> Any:
        x = self.trunk(x)
        x = torch.logcumsumexp(x, 1) if self.opaque else F.relu(x)
        return self.returned(self.mean(x), F.softplus(self.spread(x)), torch.tanh(self.vote(x)))


def keras_heads(returned: Callable[[Any, Any, Any], Any], *, opaque: bool = False) -> Any:
    inputs = keras.Input((6,))
    x = K.Dense(8)(inputs)
    x = K.Lambda(lambda y: tf.math.cumulative_logsumexp(y, 1))(x) if opaque else ops.relu(x)
    return keras.Model(inputs, returned(K.Dense(3)(x), ops.softplus(K.Dense(3)(x)), ops.tanh(K.Dense(3)(x))))


def refusal(reference: Any, candidate: Any) -> MismatchError:
    schema, evidence = xbackend_fl.describe_reference(reference, EXAMPLE)
    with pytest.raises(MismatchError) as caught:
        xbackend_fl.bind(candidate, schema, EXAMPLE, evidence)
    return caught.value


def is_bound(reference: Any, candidate: Any) -> bool:
    schema, evidence = xbackend_fl.describe_reference(reference, EXAMPLE)
    return xbackend_fl.bind(candidate, schema, EXAMPLE, evidence).proof.proven


@pytest.mark.parametrize("opaque", [False, True], ids=["by structure", "by numbers"])
def test_two_outputs_that_trade_places_are_named(*, opaque: bool) -> None:
    reference = Heads(lambda a, b, c: (a, b, c), opaque=opaque)
    error = refusal(reference, keras_heads(lambda a, b, c: [a, c, b], opaque=opaque))
    assert error.message.startswith(
        "two outputs are exchanged: what the reference returns as output 1 is output 2 of the candidate"
    )
    assert "in the order 0, 2, 1" in error.hint
    if opaque:
        assert is_bound(reference, keras_heads(lambda a, b, c: [a, b, c], opaque=opaque))


def test_three_outputs_in_another_order_have_that_order_as_their_cure() -> None:
    error = refusal(Heads(lambda a, b, c: (a, b, c)), keras_heads(lambda a, b, c: [c, a, b]))
    assert error.message.startswith("outputs are in another order: ")
    assert "in the order 1, 2, 0" in error.hint


def test_two_names_that_trade_places_are_named() -> None:
    reference = Heads(lambda a, b, _: {"mean": a, "spread": b})
    error = refusal(reference, keras_heads(lambda a, b, _: {"mean": b, "spread": a}))
    assert "what the reference returns as 'mean' is 'spread' of the candidate" in error.message
    assert "''" not in str(error)
    assert "same name" in error.hint


def test_outputs_of_other_lengths_that_trade_places_are_named() -> None:
    reference = Heads(lambda a, b, _: (a, b[:, :2]))
    error = refusal(reference, keras_heads(lambda a, b, _: [b[:, :2], a]))
    assert error.message.startswith("two outputs are exchanged")


def test_lengths_tell_which_output_is_which_where_one_side_has_names() -> None:
    """There is one order to try, and it is not that in which the candidate's are sorted."""
    reference = Heads(lambda a, b, _: (a, b[:, :2]))
    assert is_bound(reference, keras_heads(lambda a, b, _: {"small": a, "age": b[:, :2]}))
    error = refusal(reference, keras_heads(lambda a, b, _: {"small": a, "age": ops.sigmoid(b[:, :2])}))
    assert "they agree in no order" in error.message


def test_another_difference_is_no_exchange() -> None:
    error = refusal(Heads(lambda a, b, _: (a, b)), keras_heads(lambda a, b, _: [a, ops.sigmoid(b)]))
    assert "exchanged" not in error.message
