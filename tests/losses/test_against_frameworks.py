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

from xbackend_fl.adapter import Optimizer, TrainConfig
from xbackend_fl.losses import LOSSES, Loss, NumpyOperations, mean_loss
from xbfl_tensorflow import losses as in_tensorflow
from xbfl_torch import losses as in_torch

IGNORED = -100


@dataclass(frozen=True)
class Case:
    """A loss and what others compute.

    Attributes:
        loss: Ours.
        torch: PyTorch's mean of outputs (classes in axis 1) and targets, of which those to be ignored are -100.
        keras: Keras's of positions, outputs with classes in the last axis; ``None`` where it has none.
    """

    loss: Loss
    torch: Callable[[Any, Any], Any]
    keras: Callable[[Any, Any], Any] | None = None


CASES = {
    "cross_entropy": Case(
        LOSSES["cross_entropy"](),
        F.cross_entropy,
        lambda o, t: keras.losses.sparse_categorical_crossentropy(t, o, from_logits=True),
    ),
    "binary_cross_entropy": Case(
        LOSSES["binary_cross_entropy"](),
        lambda o, t: F.binary_cross_entropy_with_logits(o[t != IGNORED], t[t != IGNORED]),
        lambda o, t: keras.losses.binary_crossentropy(t[..., None], o[..., None], from_logits=True),
    ),
    "mean_squared_error": Case(
        LOSSES["mean_squared_error"](),
        F.mse_loss,
        lambda o, t: keras.losses.mean_squared_error(t[..., None], o[..., None]),
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
    if ignoring:
        targets = np.where(draw.random(positions) < 0.4, IGNORED, targets)
        targets.flat[0] = 0
    return outputs.astype(np.float32), targets if loss.targets == "classes" else targets.astype(np.float32)


@pytest.mark.parametrize(("shape", "axis"), SHAPES)
@pytest.mark.parametrize("name", CASES)
def test_value_and_gradient(name: str, shape: tuple[int, ...], axis: int) -> None:
    case = CASES[name]
    may_ignore = case.loss.targets in {"classes", "shares"}
    for seed, ignoring in enumerate([False, True, True] if may_ignore else [False, False]):
        outputs, targets = drawn(case.loss, shape, axis, seed, ignoring=ignoring)
        config = TrainConfig(
            Optimizer(),
            loss=case.loss,
            class_axis=axis % len(shape),
            ignore_index=IGNORED if ignoring else None,
        )
        x = torch.tensor(outputs.astype(np.float64), requires_grad=True)
        turned = x.movedim(axis, 1) if case.loss.targets == "classes" else x
        expected = case.torch(
            turned, torch.tensor(targets if targets.dtype.kind == "i" else targets.astype(float))
        )
        expected.backward()
        assert x.grad is not None
        value, slope = expected.item(), x.grad.numpy()

        counted = targets != IGNORED if ignoring else None
        numpy = mean_loss(case.loss, outputs.astype(np.float64), targets, counted, NumpyOperations(axis))
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
            classes_last = np.moveaxis(outputs, axis, -1) if case.loss.targets == "classes" else outputs
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
    loss = CASES[name].loss
    if loss.targets not in {"classes", "shares"}:
        return
    targets = np.full(4 if loss.targets == "classes" else (4, 3), IGNORED)
    config = TrainConfig(Optimizer(), loss=loss, class_axis=1, ignore_index=IGNORED)
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
