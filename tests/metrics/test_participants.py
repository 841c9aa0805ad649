"""Figures over participants are NumPy's means of theirs; what is worst is so by each figure's own direction."""

from __future__ import annotations

import numpy as np
import pytest

from xbackend_fl.data import Dataset
from xbackend_fl.errors import ConfigError
from xbackend_fl.losses import LOSSES
from xbackend_fl.metrics import METRICS, Choice, Metrics, Objective, over_participants
from xbackend_fl.participant.held_out import held_out

pytestmark = pytest.mark.quick

CLASSES = Objective(LOSSES["cross_entropy"]("cross_entropy"), (3,), class_axis=1)


def measured(seed: int, count: int) -> Metrics:
    draw = np.random.default_rng(seed)
    metrics = [METRICS[name](name) for name in ("accuracy", "auc", "perplexity")]
    targets = draw.integers(0, 3, count)
    return Metrics.measured(CLASSES, draw.standard_normal((count, 3)), targets, metrics)


@pytest.mark.parametrize("count", [1, 9, 10, 11, 25])
def test_the_mean_and_the_worst_tenth(count: int) -> None:
    each = {f"p{seed}": measured(seed, 20 + seed) for seed in range(count)}
    found = Metrics.over(each)
    assert found == Metrics.total(each.values())
    over, tenth = over_participants(found), -(-count // 10)
    for name, higher in (("accuracy", True), ("auc", True), ("loss", False), ("perplexity", False)):
        values = sorted((one.figures[name] for one in each.values()), reverse=not higher)
        assert over["mean"][name] == pytest.approx(np.mean(values), rel=1e-12)
        assert over["worst_tenth"][name] == pytest.approx(np.mean(values[:tenth]), rel=1e-12)


def test_a_figure_that_one_has_not_is_the_others() -> None:
    """The second one has no AUC, and the third nothing at all."""
    one_class = Metrics.measured(CLASSES, np.eye(3), np.zeros(3, int), [METRICS["auc"]("auc")])
    first = Metrics.measured(CLASSES, np.eye(3), np.arange(3), [METRICS["auc"]("auc")])
    found = Metrics.over({"a": first, "b": one_class, "c": Metrics()})
    assert found.each.keys() == {"a", "b"}
    over = over_participants(found)
    assert over["mean"]["auc"] == 1.0
    assert over["mean"]["loss"] == pytest.approx((first.loss + one_class.loss) / 2)
    assert over_participants(Metrics.total(found.each.values())) == {}


def test_a_choice_has_a_direction() -> None:
    assert Choice("bias", "min").is_better({"bias": 0.1}, {"bias": 0.2})
    assert Choice("bias", "max").is_better({"bias": 0.2}, {"bias": 0.1})


@pytest.mark.parametrize(
    ("count", "share", "expected"), [(2, 0.1, 1), (2, 0.9, 1), (40, 0.25, 10), (9, 0.5, 4)]
)
def test_examples_that_are_held_out(count: int, share: float, expected: int) -> None:
    targets = np.arange(100)
    data = Dataset((targets.astype(np.float32)[:, None],), targets, np.arange(count) + 7)
    kept, apart = held_out({"a": data, "b": data}, share, 3)
    assert len(apart["a"]) == expected
    assert sorted([*kept["a"].labels, *apart["a"].labels]) == [*range(7, count + 7)]
    again, _ = held_out({"b": data}, share, 3)
    assert again["b"].labels.tolist() == kept["b"].labels.tolist()
    other, _ = held_out({"a": data}, share, 4)
    assert count < 9 or other["a"].labels.tolist() != kept["a"].labels.tolist()


def test_one_example_cannot_be_held_out() -> None:
    data = Dataset((np.zeros((1, 1), np.float32),), np.zeros(1, int))
    with pytest.raises(ConfigError, match="participant 'a' has 1 examples, of which none can be held out"):
        held_out({"a": data}, 0.1, 0)
