"""Every loss is what PyTorch's and Keras's own functions say of random outputs and targets, in value and gradient."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import keras
import numpy as np
import pytest
import tensorflow as tf
import torch
from torch.nn import functional as F

from tests.metrics.models import schema_with
from xbackend_fl.adapter import OPTIMIZERS, TrainConfig
from xbackend_fl.errors import ConfigError, UpdateRefused
from xbackend_fl.losses import LOSSES, Loss, NumpyOperations, mean_loss
from xbackend_fl.metrics import Metrics, objective_of
from xbfl_tensorflow import losses as in_tensorflow
from xbfl_torch import losses as in_torch

IGNORED = -100


@dataclass(frozen=True)
class Case:
    """A loss and what others compute.

    Attributes:
        loss: Ours, for so many classes.
        torch: PyTorch's mean of outputs (classes in axis 1) and targets, of which those to be ignored are -100.
        keras: Keras's of positions, outputs with classes in the last axis; ``None`` where it has none.
    """

    loss: Callable[[int], Loss]
    torch: Callable[[Any, Any], Any]
    keras: Callable[[Any, Any], Any] | None = None


WEIGHTS = (0.5, 2.0, 1.5, 3.0, 1.0)


def weighted(outputs: Any, targets: Any, smoothing: float = 0.0) -> Any:
    weight = torch.tensor(WEIGHTS[: outputs.shape[1]], dtype=outputs.dtype)
    return F.cross_entropy(outputs, targets, weight, label_smoothing=smoothing)


CASES = {
    "cross_entropy": Case(
        lambda _: LOSSES["cross_entropy"](),
        F.cross_entropy,
        lambda o, t: keras.losses.sparse_categorical_crossentropy(t, o, from_logits=True),
    ),
    "binary_cross_entropy": Case(
        lambda _: LOSSES["binary_cross_entropy"](),
        lambda o, t: F.binary_cross_entropy_with_logits(o[t != IGNORED], t[t != IGNORED]),
        lambda o, t: keras.losses.binary_crossentropy(t[..., None], o[..., None], from_logits=True),
    ),
    "mean_squared_error": Case(
        lambda _: LOSSES["mean_squared_error"](),
        F.mse_loss,
        lambda o, t: keras.losses.mean_squared_error(t[..., None], o[..., None]),
    ),
    "smoothed": Case(
        lambda _: LOSSES["cross_entropy"](label_smoothing=0.1),
        lambda o, t: F.cross_entropy(o, t, label_smoothing=0.1),
        lambda o, t: keras.losses.categorical_crossentropy(
            tf.one_hot(t, o.shape[-1]), o, from_logits=True, label_smoothing=0.1
        ),
    ),
    "weighted": Case(lambda count: LOSSES["cross_entropy"](class_weights=WEIGHTS[:count]), weighted),
    "weighted and smoothed": Case(
        lambda count: LOSSES["cross_entropy"](class_weights=WEIGHTS[:count], label_smoothing=0.2),
        lambda o, t: weighted(o, t, 0.2),
    ),
    "positive": Case(
        lambda _: LOSSES["binary_cross_entropy"](positive_weights=2.5),
        lambda o, t: F.binary_cross_entropy_with_logits(
            o[t != IGNORED], t[t != IGNORED], pos_weight=torch.tensor(2.5)
        ),
        lambda o, t: tf.nn.weighted_cross_entropy_with_logits(t, o, 2.5),
    ),
    "mean_absolute_error": Case(
        lambda _: LOSSES["mean_absolute_error"](),
        F.l1_loss,
        lambda o, t: keras.losses.mean_absolute_error(t[..., None], o[..., None]),
    ),
    "huber": Case(
        lambda _: LOSSES["huber"](delta=0.7),
        lambda o, t: F.huber_loss(o, t, delta=0.7),
        lambda o, t: keras.losses.huber(t[..., None], o[..., None], delta=0.7),
    ),
    "poisson": Case(
        lambda _: LOSSES["poisson"](),
        F.poisson_nll_loss,
        lambda o, t: keras.losses.poisson(t[..., None], tf.exp(o)[..., None]),
    ),
}
SHAPES = [((6, 5), 1), ((1, 3), 1), ((4, 3, 5, 2), 1), ((4, 5, 2, 3), 3), ((4, 5, 3), -1)]


def drawn(loss: Loss, shape: tuple[int, ...], axis: int, seed: int, *, ignoring: bool) -> tuple[Any, Any]:
    """Outputs, of which some are extreme, and targets of the loss's kind."""
    draw = np.random.default_rng(seed)
    outputs = draw.standard_normal(shape) * draw.choice([0.1, 3, 20], shape)
    positions = tuple(np.delete(shape, axis)) if loss.targets == "classes" else shape
    match loss.targets:
        case "classes":
            targets: Any = draw.integers(0, shape[axis], positions)
        case "shares":
            targets = np.where(
                draw.random(positions) < 0.5, draw.random(positions).round(), draw.random(positions)
            )
        case "values":
            targets = draw.standard_normal(positions) * 3
        case "counts":
            targets = draw.poisson(3, positions).astype(float)
            outputs = outputs.clip(-3, 8)  # Keras adds 1e-7 to a rate
    if ignoring:
        targets = np.where(draw.random(positions) < 0.4, IGNORED, targets)
        targets.flat[0] = 0
    return outputs.astype(np.float32), targets if loss.targets == "classes" else targets.astype(np.float32)


@pytest.mark.parametrize(("shape", "axis"), SHAPES)
@pytest.mark.parametrize("name", CASES)
def test_value_and_gradient(name: str, shape: tuple[int, ...], axis: int) -> None:
    case = CASES[name]
    loss = case.loss(shape[axis])
    may_ignore = loss.targets in {"classes", "shares"}
    for seed, ignoring in enumerate([False, True, True] if may_ignore else [False, False]):
        outputs, targets = drawn(loss, shape, axis, seed, ignoring=ignoring)
        config = TrainConfig(
            OPTIMIZERS["sgd"](),
            loss=loss,
            class_axis=axis % len(shape),
            ignore_index=IGNORED if ignoring else None,
        )
        x = torch.tensor(outputs.astype(np.float64), requires_grad=True)
        turned = x.movedim(axis, 1) if loss.targets == "classes" else x
        plain = targets if targets.dtype.kind == "i" else targets.astype(np.float64)
        expected = case.torch(turned, torch.tensor(plain))
        expected.backward()
        assert x.grad is not None
        value, slope = expected.item(), x.grad.numpy()

        counted = targets != IGNORED if ignoring else None
        numpy = mean_loss(loss, outputs.astype(np.float64), plain, counted, NumpyOperations(axis))
        assert numpy[0] == pytest.approx(value, rel=1e-12, abs=1e-12)

        ours = torch.tensor(outputs, requires_grad=True)
        found, count = in_torch.mean_loss(ours, torch.tensor(targets), config)
        found.backward()  # type: ignore[no-untyped-call]
        assert ours.grad is not None
        agree((found.item(), ours.grad.numpy(), int(count)), (value, slope, int(numpy[1])))

        variable = tf.Variable(outputs)
        with tf.GradientTape() as tape:
            answer, number = in_tensorflow.mean_loss(
                tf.convert_to_tensor(variable), tf.constant(targets), config
            )
        gradient = tf.convert_to_tensor(tape.gradient(answer, variable)).numpy()
        agree((float(answer), gradient, int(number)), (value, slope, int(numpy[1])))
        if case.keras is not None:
            classes_last = np.moveaxis(outputs, axis, -1) if loss.targets == "classes" else outputs
            each = np.asarray(
                case.keras(
                    tf.constant(classes_last), tf.constant(np.maximum(targets, 0) if ignoring else targets)
                )
            )
            assert each[... if counted is None else counted].mean() == pytest.approx(
                value, rel=1e-5, abs=1e-6
            )


def agree(found: tuple[float, Any, int], expected: tuple[float, Any, int]) -> None:
    assert found[0] == pytest.approx(expected[0], rel=2e-6, abs=1e-6)
    np.testing.assert_allclose(found[1], expected[1], rtol=2e-5, atol=1e-6)
    assert found[2] == expected[2]


@pytest.mark.parametrize("name", CASES)
def test_where_nothing_counts_there_is_no_gradient(name: str) -> None:
    loss = CASES[name].loss(3)
    if loss.targets not in {"classes", "shares"}:
        return
    targets = np.full(4 if loss.targets == "classes" else (4, 3), IGNORED)
    config = TrainConfig(OPTIMIZERS["sgd"](), loss=loss, class_axis=1, ignore_index=IGNORED)
    outputs = torch.ones(4, 3, requires_grad=True)
    value, count = in_torch.mean_loss(outputs, torch.tensor(targets), config)
    value.backward()  # type: ignore[no-untyped-call]
    assert outputs.grad is not None
    assert (value.item(), int(count), outputs.grad.abs().sum().item()) == (0, 0, 0)
    variable = tf.Variable(np.ones((4, 3), np.float32))
    with tf.GradientTape() as tape:
        answer, number = in_tensorflow.mean_loss(tf.convert_to_tensor(variable), tf.constant(targets), config)
    assert (float(answer), int(number)) == (0, 0)
    assert not tf.convert_to_tensor(tape.gradient(answer, variable)).numpy().any()


def test_every_label_has_a_weight_of_its_own() -> None:
    outputs, targets = drawn(LOSSES["binary_cross_entropy"](), (7, 3), 1, 5, ignoring=False)
    weights = (1.0, 4.0, 0.25)
    loss = LOSSES["binary_cross_entropy"](positive_weights=weights)
    expected = F.binary_cross_entropy_with_logits(
        torch.tensor(outputs), torch.tensor(targets), pos_weight=torch.tensor(weights)
    ).item()
    config = TrainConfig(OPTIMIZERS["sgd"](), loss=loss, class_axis=1)
    for found in (
        mean_loss(loss, outputs, targets, None, NumpyOperations(1))[0],
        in_torch.mean_loss(torch.tensor(outputs), torch.tensor(targets), config)[0],
        in_tensorflow.mean_loss(tf.constant(outputs), tf.constant(targets), config)[0],
    ):
        assert float(found) == pytest.approx(expected, rel=1e-6)
    objective = objective_of(schema_with((3,)), loss, targets)
    assert Metrics.measured(objective, outputs, targets).loss == pytest.approx(expected, rel=1e-6)


def test_where_everything_weighs_nothing_there_is_no_gradient() -> None:
    """PyTorch divides zero by zero there."""
    loss = LOSSES["cross_entropy"](class_weights=(0.0, 1.0, 1.0))
    config = TrainConfig(OPTIMIZERS["sgd"](), loss=loss, class_axis=1)
    outputs = torch.ones(4, 3, requires_grad=True)
    value, _ = in_torch.mean_loss(outputs, torch.zeros(4), config)
    value.backward()  # type: ignore[no-untyped-call]
    assert outputs.grad is not None
    assert (value.item(), outputs.grad.abs().sum().item()) == (0, 0)


@pytest.mark.parametrize("ignored", [None, IGNORED])
def test_a_weighted_figure_is_the_mean_over_all_data(ignored: int | None) -> None:
    loss = LOSSES["cross_entropy"](class_weights=WEIGHTS, label_smoothing=0.1)
    outputs, targets = drawn(loss, (40, 5), 1, 8, ignoring=ignored is not None)
    expected = weighted(torch.tensor(outputs.astype(np.float64)), torch.tensor(targets), 0.1).item()
    objective = objective_of(schema_with((5,)), loss, targets, ignore_index=ignored)
    parts = [
        Metrics.measured(objective, outputs[rows], targets[rows])
        for rows in np.split(np.arange(40), [3, 4, 30])
    ]
    sent = [Metrics.from_fields(part.to_fields(), loss, objective.output) for part in parts]
    assert Metrics.total(sent).loss == pytest.approx(expected, rel=1e-12)
    for fields in (
        {k: v for k, v in parts[0].to_fields().items() if k != "loss.weight"},
        {**parts[0].to_fields(), "loss.weight": -1.0},
        {**parts[0].to_fields(), "loss.weight": 1e12},
    ):
        with pytest.raises(UpdateRefused):
            Metrics.from_fields(fields, loss, objective.output)
    with pytest.raises(UpdateRefused, match=r"loss\.weight is of a loss with weights"):
        Metrics.from_fields(parts[0].to_fields(), LOSSES["cross_entropy"](), objective.output)


def test_a_loss_may_be_below_zero_where_it_can() -> None:
    fields = {"positions": 3, "loss": -2.0}
    assert Metrics.from_fields(fields, LOSSES["poisson"](), ()).loss == pytest.approx(-2 / 3)
    for name in ("cross_entropy", "huber"):
        with pytest.raises(UpdateRefused, match="loss is -2 over 3 positions"):
            Metrics.from_fields(fields, LOSSES[name](), (), training=True)


@pytest.mark.parametrize(
    ("loss", "output", "targets", "words"),
    [
        (
            LOSSES["cross_entropy"](class_weights=(1.0, 2.0)),
            (3,),
            [0, 1],
            "2 numbers, and the model has 3 classes",
        ),
        (LOSSES["cross_entropy"](class_weights=(0.0, 0.0)), (2,), [0, 1], "nothing would count"),
        (LOSSES["binary_cross_entropy"](positive_weights=(1.0, 2.0)), (3,), [[0, 1, 0]], "2 numbers"),
        (
            LOSSES["binary_cross_entropy"](positive_weights=(1.0, 2.0)),
            (2, 2),
            [[[0, 1], [0, 1]]],
            "one number",
        ),
    ],
)
def test_settings_that_do_not_fit(loss: Loss, output: tuple[int, ...], targets: Any, words: str) -> None:
    with pytest.raises(ConfigError, match=words):
        objective_of(schema_with(output), loss, np.array(targets))


def test_counts_are_not_negative() -> None:
    loss = LOSSES["poisson"]()
    objective = objective_of(schema_with((1,)), loss, np.zeros(3), ignore_index=IGNORED)
    assert objective.fault(np.array([0.0, 2.5, 1e18])) is None
    for wrong in (-1.0, np.nan, np.inf, -100.0):
        fault = objective.fault(np.array([0.0, wrong, 1.0]))
        assert fault is not None
        assert (fault.row, "is not a number from 0 to" in fault.reason) == (1, True)
