"""Figures from elsewhere: what no data have is refused, whatever was sent."""

from __future__ import annotations

import json
import math
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from tests.metrics.models import schema_with
from xbackend_fl.errors import UpdateRefused
from xbackend_fl.losses import LOSSES
from xbackend_fl.metrics import (
    Choice,
    Metrics,
    max_positions_of,
    objective_of,
    shown,
)

pytestmark = pytest.mark.quick

CLASSES = {"positions": 10, "loss": 3.5, "accuracy": 7.0}
VALUES = {"positions": 4, "loss": 2.0, "rmse": 2.0, "mae": 2.0} | {
    f"r2.{kind}.{column}": 1.0 for kind in ("mean", "spread", "errors") for column in (0, 1)
}


@pytest.mark.parametrize(
    ("changes", "reason"),
    [
        ({"accuracy": 11}, "accuracy is 11 over 10 positions"),
        ({"accuracy": -1}, "accuracy is -1"),
        ({"accuracy": 6.5}, "accuracy is 6.5 hits, expected a whole number"),
        ({"accuracy": 6.9999999999}, "accuracy is 6.9999999999 hits"),
        ({"accuracy": 2.4e306}, "accuracy is beyond 1e+120"),
        ({"accuracy": 10**400}, "accuracy is beyond 1e+120"),
        ({"accuracy": True}, "accuracy is a bool, expected a number"),
        ({"accuracy": "7"}, "accuracy is a str, expected a number"),
        ({"accuracy": [7]}, "accuracy is a list, expected a number"),
        ({"accuracy": None}, "accuracy is a NoneType, expected a number"),
        ({"loss": -1e-9}, "loss is -1e-09"),
        ({"loss": 1e308}, "loss is beyond 1e+120"),
        ({"loss": -1e308}, "loss is beyond 1e+120"),
        ({"loss": math.nan}, "loss is no finite number"),
        ({"loss": math.inf}, "loss is no finite number"),
        ({"positions": 0}, "over 0 positions"),
        ({"positions": -1}, "positions is no whole number"),
        ({"positions": 1.5}, "positions is no whole number"),
        ({"positions": 2**60}, "positions is no whole number"),
        ({"positions": 10**400}, "positions is beyond 1e+120"),
        ({"rmse": 1.0}, "an entry that no metric"),
        ({"loss": 1e100}, "loss is 1e+100 over 10 positions, and can be"),
        ({"loss": 1e30, "accuracy": 10}, "of which 0 are wrong"),
        ({"loss": 0.0, "accuracy": 0}, "of which 10 are wrong, and can be"),
        ({"loss": 0.0}, "of which 3 are wrong, and can be"),
        ({"loss": 0.1, "accuracy": 2}, "of which 8 are wrong, and can be"),
        ({"loss.extra": 1.0}, "loss is not one number"),
        ({1: 1.0}, "an entry that no metric"),
        ({f"loss.{i}": 1.0 for i in range(1000)}, "1003 entries"),
    ],
)
def test_impossible_figures_of_classes(changes: dict[Any, Any], reason: str) -> None:
    assert Metrics.from_fields(CLASSES, LOSSES["cross_entropy"](), (7,)).figures == {
        "loss": 0.35,
        "accuracy": 0.7,
    }
    with pytest.raises(UpdateRefused) as caught:
        Metrics.from_fields(CLASSES | changes, LOSSES["cross_entropy"](), (7,))
    assert reason in caught.value.message


@pytest.mark.parametrize(
    ("changes", "reason"),
    [
        ({"r2.spread.1": -1.0}, "negative sum of squares"),
        ({"r2.errors.0": -1.0}, "negative sum of squares"),
        ({"r2.mean.2": 0.0}, "three sums for each of 2"),
        ({"mae": -1.0}, "mae is -1"),
        ({"r2.mean.0": 1e100}, "r2.mean.0 is 1e+100"),
        ({"r2.mean.1": -1e20}, "r2.mean.1 is -1e+20"),
        ({"r2.spread.0": 1e119}, "r2.spread.0 is 1e+119"),
        ({"loss": 1e100, "rmse": 1e100, "r2.errors.0": 1e100}, "loss is 1e+100"),
        ({"loss": 0.0}, "loss has 0 as the sum of squared errors, and rmse 2"),
        ({"r2.errors.0": 1.5}, "r2.errors has 2.5"),
        ({"mae": 3.0}, "mae is 3 over 4 positions"),
        ({"mae": 1.0}, "mae is 1 over 4 positions"),
        ({"r2": 1.0}, "three sums for each of 2"),
        ({"accuracy": 1.0}, "an entry that no metric"),
    ],
)
def test_impossible_figures_of_values(changes: dict[str, Any], reason: str) -> None:
    assert Metrics.from_fields(VALUES, LOSSES["mean_squared_error"](), (2,)).figures.keys() == {
        "loss",
        "mae",
        "r2",
        "rmse",
    }
    with pytest.raises(UpdateRefused) as caught:
        Metrics.from_fields(VALUES | changes, LOSSES["mean_squared_error"](), (2,))
    assert reason in caught.value.message


@pytest.mark.parametrize("name", [*VALUES])
def test_nothing_may_be_missing(name: str) -> None:
    with pytest.raises(UpdateRefused):
        Metrics.from_fields(
            {k: v for k, v in VALUES.items() if k != name}, LOSSES["mean_squared_error"](), (2,)
        )


def test_training_has_a_loss_only() -> None:
    sent = {"positions": 4, "loss": 2.0}
    assert Metrics.from_fields(sent, LOSSES["cross_entropy"](), (7,), training=True).figures == {"loss": 0.5}
    with pytest.raises(UpdateRefused, match="accuracy"):
        Metrics.from_fields(sent, LOSSES["cross_entropy"](), (7,))


JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=3),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=3), inner, max_size=3),
)
NAMES = st.sampled_from([*VALUES, "accuracy", "r2", "r2.", "positions."]) | st.text(max_size=4)


@given(fields=JSON | st.dictionaries(NAMES, JSON | st.floats(), max_size=12), training=st.booleans())
def test_anything_is_figures_or_refused(fields: Any, *, training: bool) -> None:
    for loss in ("cross_entropy", "mean_squared_error"):
        try:
            found = Metrics.from_fields(fields, LOSSES[loss](), (2,), training=training)
        except UpdateRefused:
            continue
        assert all(math.isfinite(value) for value in Metrics.total([found] * 1000).figures.values())


FLOAT32 = st.floats(width=32, allow_nan=False, allow_infinity=False, allow_subnormal=False)


@given(st.lists(FLOAT32, min_size=2, max_size=8), st.integers(0, 99))
def test_honest_figures_are_never_refused(values: list[float], seed: int) -> None:
    output = np.array(values, np.float32)[:, None]
    # A target is at most the root of float32's largest number; an output may be any.
    targets = output[np.random.default_rng(seed).permutation(len(output))].clip(-1.8e19, 1.8e19)
    objective = objective_of(schema_with((1,)), LOSSES["mean_squared_error"](), targets)
    sent = json.loads(json.dumps(Metrics.measured(objective, output, targets).to_fields()))
    assert Metrics.from_fields(sent, LOSSES["mean_squared_error"](), ()).figures["rmse"] >= 0


def test_which_is_better() -> None:
    accuracy, rmse = Choice("accuracy", "max"), Choice("rmse", "min")
    assert accuracy.is_better({"accuracy": 0.6, "loss": 9}, {"accuracy": 0.5, "loss": 1})
    assert accuracy.is_better({"accuracy": 0.5, "loss": 0.9}, {"accuracy": 0.5, "loss": 1})
    assert not accuracy.is_better({"accuracy": 0.5, "loss": 1}, {"accuracy": 0.5, "loss": 1})
    assert rmse.is_better({"rmse": 0.1, "loss": 1}, {"rmse": 0.2, "loss": 1})
    assert Choice("r2", "max").is_better({"r2": 0.9, "loss": 1}, {"r2": -3, "loss": 1})
    for worst in ({"rmse": math.nan, "loss": math.nan}, {}):
        assert rmse.is_better({"rmse": 1e30, "loss": 1}, worst)
        assert not rmse.is_better(worst, {"rmse": 1e30, "loss": 1})


@pytest.mark.parametrize(
    ("name", "value", "text"),
    [
        ("accuracy", 0.98333, "98.33%"), ("accuracy", 1.0, "100.00%"), ("rmse", 12.345678, "12.3457"), ("rmse", 1e-5, "1.000e-05"),
        ("loss", 0.0, "0.0000"), ("loss", math.nan, "nan"), ("loss", math.inf, "inf"), ("r2", -3e7, "-3.000e+07"), ("r2", None, "-"),
        ("top_5", 0.5, "50.00%"), ("f1.12", 0.5, "50.00%"), ("perplexity", 0.5, "0.5000"), ("top_k_of_mine", 0.5, "0.5000"),
    ],
)  # fmt: skip
def test_figures_for_people(name: str, value: float | None, text: str) -> None:
    assert shown(name, value) == text


@pytest.mark.parametrize(
    ("loss", "output", "targets"),
    [
        ("cross_entropy", (5,), ()),
        ("cross_entropy", (5, 7, 7), (7, 7)),
        ("cross_entropy", (9, 4), (9,)),
        ("binary_cross_entropy", (1, 3), (1, 3)),
        ("mean_squared_error", (6, 2), (6, 2)),
        ("mean_squared_error", (), ()),
    ],
)
def test_no_data_have_more_positions_than_the_bound(loss: Any, output: Any, targets: Any) -> None:
    objective = objective_of(schema_with(output), LOSSES[loss](), np.zeros((4, *targets), np.int64))
    found = Metrics.measured(objective, np.zeros((4, *output), np.float32), np.zeros((4, *targets), np.int64))
    most = 4 * max_positions_of(LOSSES[loss](), output)
    assert 0 < found.positions <= most
    with pytest.raises(UpdateRefused, match=f"there can be {found.positions - 1} at most"):
        Metrics.from_fields(found.to_fields(), LOSSES[loss](), output, max_positions=found.positions - 1)


def test_the_least_loss_of_what_is_wrong_is_below_every_real_one() -> None:
    """Softmax in float64 over random scores, and over those where two classes are all but equal."""
    draw = np.random.default_rng(2)
    for classes in (2, 3, 10):
        scores = draw.standard_normal((2000, classes)) * draw.choice([1e-6, 1.0, 30.0], (2000, 1))
        targets = draw.integers(0, classes, 2000)
        shares = np.exp(scores - scores.max(axis=1, keepdims=True))
        shares /= shares.sum(axis=1, keepdims=True)
        losses = -np.log(shares[np.arange(2000), targets] + 1e-300)
        right = scores.argmax(axis=1) == targets
        wrong = {"positions": int((~right).sum()), "loss": float(losses[~right].sum()), "accuracy": 0}
        assert Metrics.from_fields(wrong, LOSSES["cross_entropy"](), (classes,)).figures["accuracy"] == 0
        every = {"positions": 2000, "loss": float(losses.sum()), "accuracy": int(right.sum())}
        assert Metrics.from_fields(every, LOSSES["cross_entropy"](), (classes,)).loss > 0
