"""The proof and the measurement see what is wrong: planted faults in a truth, a map, a diagnosis, a crash, a delay."""

from __future__ import annotations

import dataclasses
import time
from typing import Any

import keras
import numpy as np
import pytest
from keras import layers as K
from torch import nn

from tests.networks.textbook.measure import CRASHED, RIGHT, UNNAMED, WRONG, Outcome, outcome
from tests.networks.textbook.pair import Pair, draws, floats
from tests.networks.textbook.proof import proven
from tests.networks.textbook.truth import dense, moved, several


def perceptron(*, activation: str = "tanh") -> Any:
    x = keras.Input((5,))
    return keras.Model(x, K.Dense(5, name="two")(K.Dense(5, activation, name="one")(x)))


PAIR = Pair(
    "perceptron", "planted", lambda: nn.Sequential(nn.Linear(5, 5), nn.Tanh(), nn.Linear(5, 5)), perceptron,
    draws(floats(3, 5)), several(dense, "0 one", "2 two"),
)  # fmt: skip
EXCHANGED = PAIR.truth | dense("0", "two") | dense("2", "one")
NOT_TURNED = PAIR.truth | moved("0.weight", "one/kernel", np.copy)
MIRRORED = PAIR.truth | moved("2.bias", "two/bias", np.flip)


def measured(pair: Pair, limit: int = 60) -> Outcome:
    return outcome(pair, limit, trace=False)


@pytest.mark.parametrize(
    "truth", [EXCHANGED, NOT_TURNED, MIRRORED], ids=["exchanged", "not turned", "mirrored"]
)
def test_a_wrong_truth_is_seen(truth: Any) -> None:
    assert proven(PAIR) <= 1e-4
    assert proven(dataclasses.replace(PAIR, truth=truth)) > 1e-3


@pytest.mark.parametrize("end", ["one/kernel", "two/bias"])
def test_truth_leaves_nothing_out(end: str) -> None:
    less = {path: step for path, step in PAIR.truth.items() if path != end}
    with pytest.raises(AssertionError, match="without truth"):
        proven(dataclasses.replace(PAIR, truth=less))


def test_the_right_map_and_any_other() -> None:
    assert measured(PAIR).state == RIGHT
    assert measured(dataclasses.replace(PAIR, truth=MIRRORED)).state == WRONG


@pytest.mark.slow
def test_a_look_alike_is_refused_for_its_cause() -> None:
    sigmoid = {"keras": lambda: perceptron(activation="sigmoid")}
    assert measured(PAIR.alike("sigmoid", {"Sigmoid"}, **sigmoid)).state == RIGHT
    assert measured(PAIR.alike("sigmoid", {"dilation"}, **sigmoid)).state == UNNAMED
    assert measured(PAIR.alike("nothing", {"Sigmoid"})).state == WRONG


def test_a_crash_and_a_delay_are_rows() -> None:
    def slow() -> Any:
        time.sleep(30)

    assert measured(dataclasses.replace(PAIR, keras=lambda: 1 / 0)).state == CRASHED
    late = measured(dataclasses.replace(PAIR, torch=slow), limit=1)
    assert (late.state, late.reason) == (CRASHED, "more than 1 s")
