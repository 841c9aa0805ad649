"""Every metric, for every task and shape, is scikit-learn's; any split into batches and participants gives the same."""

from __future__ import annotations

import itertools
import json
from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from numpy.typing import NDArray
from scipy.special import expit, log_softmax
from sklearn.metrics import (
    accuracy_score,
    log_loss,
    mean_absolute_error,
    mean_squared_error,
    r2_score,
    root_mean_squared_error,
)

from tests.metrics.models import schema_with
from xbackend_fl.losses import LOSSES
from xbackend_fl.metrics import Metrics, Objective, objective_of

pytestmark = pytest.mark.quick

Array = NDArray[Any]
Split = Callable[[Objective, Array, Array], Metrics]

CLASSES = {
    "[N, C]": ((7,), 1),
    "[N, T, C], classes last": ((5, 7), 2),
    "[N, C, T]": ((7, 5), 1),
    "[N, C, H, W]": ((3, 4, 6), 1),
    "[N, C, D, H, W]": ((3, 2, 4, 5), 1),
    "[N, S, T, C]": ((2, 5, 3), 3),
}


def drawn(shape: tuple[int, ...], seed: int, count: int = 23) -> Array:
    return np.random.default_rng(seed).standard_normal((count, *shape)).astype(np.float32) * 2


def labels_of(output: Array, axis: int, seed: int) -> Array:
    shape = np.delete(output.shape, axis)
    return np.random.default_rng(seed).integers(0, output.shape[axis], shape)


def whole(objective: Objective, output: Array, targets: Array) -> Metrics:
    return Metrics.measured(objective, output, targets)


def over_the_wire(objective: Objective, output: Array, targets: Array) -> Metrics:
    """Cut into batches, summed by participants, sent as JSON, and added."""
    cuts = [0, 1, 9, 9, 16, len(output)]
    sent = [
        json.dumps(Metrics.measured(objective, output[a:b], targets[a:b]).to_fields())
        for a, b in itertools.pairwise(cuts)
        if b > a
    ]
    return Metrics.total(
        Metrics.from_fields(json.loads(text), objective.loss, objective.output) for text in sent
    )


SPLITS = pytest.mark.parametrize("split", [whole, over_the_wire])


@SPLITS
@pytest.mark.parametrize("ignored", [0.0, 0.4])
@pytest.mark.parametrize("name", CLASSES)
def test_classes(name: str, ignored: float, split: Split) -> None:
    shape, axis = CLASSES[name]
    output = drawn(shape, 1)
    labels = labels_of(output, axis, 2)
    left_out = np.random.default_rng(3).random(labels.shape) < ignored
    targets = np.where(left_out, -100, labels)
    objective = objective_of(schema_with(shape), LOSSES["cross_entropy"](), targets, ignore_index=-100)
    assert objective.class_axis == axis
    assert objective.fault(targets) is None
    found = split(objective, output, targets)
    scores = np.moveaxis(output, axis, -1)[~left_out].astype(np.float64)
    kept = labels[~left_out]
    assert found.positions == len(kept)
    assert found.figures.keys() == {"loss", "accuracy"}
    assert found.figures["accuracy"] == pytest.approx(accuracy_score(kept, scores.argmax(-1)), rel=1e-12)
    expected = log_loss(kept, np.exp(log_softmax(scores, -1)), labels=range(output.shape[axis]))
    assert found.loss == pytest.approx(expected, rel=1e-9)


@SPLITS
@pytest.mark.parametrize(
    ("shape", "targets_shape"),
    [((), ()), ((1,), ()), ((), (1,)), ((1,), (1,)), ((6,), (6,)), ((2, 5), (2, 5)), ((1, 4, 3), (4, 3))],
    ids=str,
)
@pytest.mark.parametrize(
    ("dtype", "ignored"), [(np.float32, 0.0), (np.float32, 0.4), (np.int64, 0.4), (np.bool_, 0.0)]
)
def test_binary_and_multi_label(
    shape: tuple[int, ...], targets_shape: tuple[int, ...], ignored: float, dtype: Any, split: Split
) -> None:
    output = drawn(shape, 4)
    truth = np.random.default_rng(5).integers(0, 2, (len(output), *targets_shape))
    left_out = np.random.default_rng(6).random(truth.shape) < ignored
    targets = np.where(left_out, -100, truth).astype(dtype)
    objective = objective_of(schema_with(shape), LOSSES["binary_cross_entropy"](), targets, ignore_index=-100)
    assert objective.fault(targets) is None
    found = split(objective, output, targets)
    logits, kept = output.reshape(truth.shape)[~left_out].astype(np.float64), truth[~left_out]
    assert found.positions == kept.size
    assert found.figures["accuracy"] == pytest.approx(accuracy_score(kept, logits > 0), rel=1e-12)
    probabilities = np.stack([expit(-logits), expit(logits)], 1)
    assert found.loss == pytest.approx(log_loss(kept, probabilities, labels=[0, 1]), rel=1e-9)


@SPLITS
@pytest.mark.parametrize("offset", [0.0, 1e4, -3e6])
@pytest.mark.parametrize(
    ("shape", "targets_shape"),
    [
        ((), ()),
        ((1,), ()),
        ((), (1,)),
        ((4,), (4,)),
        ((3, 4), (3, 4)),
        ((2, 3, 5), (2, 3, 5)),
        ((100,), (100,)),
    ],
    ids=str,
)
def test_regression(
    shape: tuple[int, ...], targets_shape: tuple[int, ...], offset: float, split: Split
) -> None:
    output = drawn(shape, 7).astype(np.float64) + offset
    targets = drawn(targets_shape, 8).astype(np.float64) + offset
    objective = objective_of(schema_with(shape), LOSSES["mean_squared_error"](), targets, ignore_index=-100)
    found = split(objective, output, targets).figures
    assert list(found) == ["loss", "mae", "r2", "rmse"]
    predicted, expected = output.reshape(targets.shape), targets
    if len(shape) != 1 or shape[0] > 64:
        predicted, expected = predicted.ravel(), expected.ravel()
    assert found["loss"] == pytest.approx(mean_squared_error(expected.ravel(), predicted.ravel()), rel=1e-12)
    assert found["rmse"] == pytest.approx(
        root_mean_squared_error(expected.ravel(), predicted.ravel()), rel=1e-12
    )
    assert found["mae"] == pytest.approx(mean_absolute_error(expected, predicted), rel=1e-12)
    # scikit-learn itself keeps about as many digits as float64 has left beside the offset.
    assert found["r2"] == pytest.approx(r2_score(expected, predicted), rel=1e-12 + 1e-13 * abs(offset))


@pytest.mark.parametrize(
    ("targets", "outputs"),
    [
        ([0.1, 0.1, 0.1], [0.1, 0.1, 0.1]),
        ([0.1, 0.1, 0.1], [0.1, 0.2, 0.1]),
        ([1.0, 2.0, 3.0], [1.0, 2.0, 3.0]),
        ([1.0, 2.0, 4.0], [2.0, 2.0, 2.0]),
        ([[0.5, 1.0], [0.5, 3.0]], [[0.5, 1.0], [0.5, 2.0]]),
        ([[0.5, 1.0], [0.5, 3.0]], [[0.0, 1.0], [0.5, 2.0]]),
    ],
)
def test_targets_that_never_change(targets: Any, outputs: Any) -> None:
    expected, output = np.array(targets), np.array(outputs)
    objective = objective_of(schema_with(output.shape[1:]), LOSSES["mean_squared_error"](), expected)
    parts = [Metrics.measured(objective, output[i : i + 1], expected[i : i + 1]) for i in range(len(output))]
    # float64 sums in scikit-learn may find a spread of 1e-34 in equal numbers that binary fractions cannot hold.
    reference = r2_score(np.round(expected * 2**40) / 2**40, np.round(output * 2**40) / 2**40)
    for found in (Metrics.measured(objective, output, expected), Metrics.total(parts)):
        assert found.figures["r2"] == pytest.approx(reference, rel=1e-9)


def test_what_is_not_defined_is_left_out() -> None:
    one = np.zeros((1, 1), np.float32)
    objective = objective_of(schema_with((1,)), LOSSES["mean_squared_error"](), one)
    assert Metrics.measured(objective, one, one).figures.keys() == {"loss", "rmse", "mae"}
    assert not Metrics.measured(objective, one[:0], one[:0]).figures
    labels = np.full((3, 4), -100)
    classes = objective_of(schema_with((4, 5)), LOSSES["cross_entropy"](), labels, ignore_index=-100)
    nothing = Metrics.measured(classes, drawn((4, 5), 0, 3), labels)
    assert (nothing.positions, nothing.figures) == (0, {})
    some = Metrics.measured(classes, drawn((4, 5), 0, 3), np.zeros((3, 4), int))
    assert Metrics.total([nothing, some, Metrics(), nothing]).figures == some.figures


TASKS: list[tuple[str, tuple[int, ...]]] = [
    ("cross_entropy", (4, 3)), ("binary_cross_entropy", (3,)), ("mean_squared_error", (3,)), ("mean_squared_error", (2, 2)),
]  # fmt: skip


@given(
    task=st.sampled_from(TASKS),
    cuts=st.lists(st.integers(0, 40), max_size=6),
    seed=st.integers(0, 1000),
    scale=st.sampled_from([1e-3, 1.0, 1e5]),
    offset=st.sampled_from([0.0, 1e3, 1e6]),
    order=st.randoms(use_true_random=False),
)
@settings(max_examples=150)
def test_any_split_gives_the_same(
    task: Any, cuts: list[int], seed: int, scale: float, offset: float, order: Any
) -> None:
    loss, shape = task
    generator = np.random.default_rng(seed)
    output = generator.standard_normal((40, *shape)) * scale
    if loss == "cross_entropy":
        targets = generator.integers(-1, 3, (40, 4))
    elif loss == "binary_cross_entropy":
        targets = generator.integers(-1, 2, (40, *shape)).astype(np.float64)
    else:
        targets = generator.standard_normal((40, *shape)) * scale + offset
        output += offset
    objective = objective_of(schema_with(shape), LOSSES[loss](), targets, ignore_index=-1)
    edges = [0, *sorted(cuts), 40]
    parts = [Metrics.measured(objective, output[a:b], targets[a:b]) for a, b in itertools.pairwise(edges)]
    order.shuffle(parts)
    half = len(parts) // 2
    merged = Metrics.total([Metrics.total(parts[:half]), Metrics.total(parts[half:])])
    once = Metrics.measured(objective, output, targets)
    assert merged.positions == once.positions
    digits = 1e-11 + 1e-15 * offset / scale
    assert merged.figures == pytest.approx(once.figures, rel=digits, abs=digits)
