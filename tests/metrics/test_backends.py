"""PyTorch, TensorFlow and float64 agree about every loss, its gradient and every metric, whatever the shapes."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import keras
import numpy as np
import pytest
from keras import layers as K
from numpy.typing import NDArray
from scipy.special import expit, softmax
from torch import nn

import xbfl_tensorflow
import xbfl_torch
from xbackend_fl.adapter import OPTIMIZERS, Batch, TrainConfig
from xbackend_fl.canonical import Schema
from xbackend_fl.losses import LOSSES, Loss
from xbackend_fl.mapping import BoundModel, bind_trainer
from xbackend_fl.mapping.probe.draw import draw_weights
from xbackend_fl.metrics import Metrics, Objective, objective_of
from xbackend_fl.weights import Weights

Array = NDArray[Any]
RATE = 0.5
ROWS = 6


class Transposed(nn.Module):
    """Classes in axis 1, where PyTorch's own loss wants them."""

    def __init__(self, classes: int) -> None:
        super().__init__()
        self.head = nn.Linear(3, classes)

    def forward(self, x: Any) -> Any:
        return self.head(x).transpose(1, 2)


@dataclass(frozen=True)
class Task:
    loss: Loss
    inputs: tuple[int, ...]
    targets: tuple[int, ...]
    torch: Callable[[], nn.Module]
    keras: Callable[[], list[Any]]

    @property
    def channels_last(self) -> bool:
        """Whether Keras reads them so: images and volumes."""
        return len(self.inputs) > 2


def convolution(rank: int, channels: int) -> tuple[Callable[[], nn.Module], Callable[[], list[Any]]]:
    one, other = [(nn.Conv1d, K.Conv1D), (nn.Conv2d, K.Conv2D), (nn.Conv3d, K.Conv3D)][rank - 1]
    return lambda: one(3, channels, 1), lambda: [other(channels, 1)]


def dense(width: int) -> tuple[Callable[[], nn.Module], Callable[[], list[Any]]]:
    return lambda: nn.Linear(3, width), lambda: [K.Dense(width)]


CLASSES, BINARY, VALUES = (
    LOSSES[name]() for name in ("cross_entropy", "binary_cross_entropy", "mean_squared_error")
)
TASKS: dict[str, Task] = {
    "classes": Task(CLASSES, (3,), (), *dense(5)),
    "classes, labels [N, 1]": Task(CLASSES, (3,), (1,), *dense(5)),
    "tokens": Task(CLASSES, (4, 3), (4,), *dense(5)),
    "tokens, PyTorch's order": Task(CLASSES, (4, 3), (4,), lambda: Transposed(5), lambda: [K.Dense(5)]),
    "tokens, Keras in that order": Task(
        CLASSES, (4, 3), (4,), dense(5)[0], lambda: [K.Dense(5), K.Permute((2, 1))]
    ),
    "tokens, as many as classes": Task(CLASSES, (5, 3), (5,), *dense(5)),
    "the same, PyTorch's order": Task(CLASSES, (5, 3), (5,), lambda: Transposed(5), lambda: [K.Dense(5)]),
    "pixels": Task(CLASSES, (3, 4, 5), (4, 5), *convolution(2, 6)),
    "pixels, all axes alike": Task(CLASSES, (3, 4, 4), (4, 4), *convolution(2, 4)),
    "voxels": Task(CLASSES, (3, 2, 3, 4), (2, 3, 4), *convolution(3, 2)),
    "binary, targets [N]": Task(BINARY, (3,), (), *dense(1)),
    "binary, targets [N, 1]": Task(BINARY, (3,), (1,), *dense(1)),
    "multi-label": Task(BINARY, (3,), (7,), *dense(7)),
    "mask": Task(BINARY, (3, 4, 5), (4, 5), *convolution(2, 1)),
    "regression, targets [N]": Task(VALUES, (3,), (), *dense(1)),
    "regression, targets [N, 1]": Task(VALUES, (3,), (1,), *dense(1)),
    "regression [N, K]": Task(VALUES, (3,), (4,), *dense(4)),
    "regression [N, T, K]": Task(VALUES, (4, 3), (4, 2), *dense(2)),
    "images": Task(VALUES, (3, 4, 4), (4, 4, 4), *convolution(2, 4)),
}


def pair(task: Task) -> tuple[list[BoundModel], tuple[Array, ...]]:
    example = (np.zeros((1, *task.inputs), np.float32),)
    shape = (*task.inputs[1:], task.inputs[0]) if task.channels_last else task.inputs
    left = xbfl_torch.adapter.load_model(task.torch(), example)
    right = xbfl_tensorflow.adapter.load_model(keras.Sequential([keras.Input(shape), *task.keras()]), example)
    schema = left.description.schema
    adapters = xbfl_torch.adapter, xbfl_tensorflow.adapter
    sides = [bind_trainer(a, t, schema, example) for a, t in zip(adapters, (left, right), strict=True)]
    for side in sides:
        side.write(draw(schema))
    return sides, example


def draw(schema: Schema) -> Weights:
    return Weights.from_schema(schema, draw_weights(schema, 1))


def targets_of(task: Task, classes: int) -> Array:
    generator = np.random.default_rng(2)
    shape = (ROWS, *task.targets)
    if task.loss == CLASSES:
        return generator.integers(0, classes, shape)
    if task.loss == BINARY:
        return generator.integers(0, 2, shape).astype(np.float32)
    return generator.standard_normal(shape).astype(np.float32)


def slope(objective: Objective, output: Array, targets: Array) -> Array:
    """Derivative of the mean loss with respect to an output in ONNX layout, by hand, in float64."""
    arranged, output = objective.arranged(targets), output.astype(np.float64)
    counted = np.ones(arranged.shape, bool) if objective.loss == VALUES else arranged != -100
    if objective.class_axis is None:
        raw = 2 * (output - arranged) if objective.loss == VALUES else expit(output) - arranged
        return np.where(counted, raw, 0) / max(counted.sum(), 1)
    axis = objective.class_axis
    one_hot = np.moveaxis(np.eye(output.shape[axis])[np.where(counted, arranged, 0)], -1, axis)
    each = softmax(output, axis) - one_hot
    return np.where(np.expand_dims(counted, axis), each, 0) / max(counted.sum(), 1)


@pytest.mark.one_in(8)
@pytest.mark.parametrize("name", TASKS)
def test_a_step_and_the_figures(name: str) -> None:
    task = TASKS[name]
    sides, _ = pair(task)
    inputs = np.random.default_rng(0).standard_normal((ROWS, *task.inputs)).astype(np.float32)
    schema = sides[0].schema
    targets = targets_of(task, 2 if task.channels_last else 5)
    for left_out in (0.0, 0.4, 1.0) if task.loss != VALUES else (0.0,):
        ignored = np.random.default_rng(3).random(targets.shape) < left_out
        given = np.where(ignored, -100, targets).astype(targets.dtype)
        objective = objective_of(schema, task.loss, given, ignore_index=-100)
        if left_out < 1:
            # Of a whole data set something must count, of a batch nothing need.
            objective = objective.counting(given)
        found = [one_step(side, objective, inputs, given) for side in sides]
        assert found[1] == pytest.approx(found[0], rel=1e-6)


def one_step(side: BoundModel, objective: Objective, inputs: Array, targets: Array) -> dict[str, float]:
    """Figures of one side; its training loss and the change of its weights are held against float64."""
    side.write(draw(side.schema))
    ((output, *_),) = side.model.predict([(inputs,)])
    measured = Metrics.measured(objective, output, targets)
    expected = side.gradients((inputs,), [slope(objective, output, targets).astype(np.float32)])
    before = side.read()
    config = TrainConfig(
        OPTIMIZERS["sgd"](lr=RATE),
        loss=objective.loss,
        class_axis=objective.class_axis or 1,
        ignore_index=objective.ignore_index,
    )
    seen = side.train([Batch((inputs,), targets)], config)
    assert seen.positions == measured.positions
    assert seen.mean == pytest.approx(measured.figures.get("loss", 0.0), rel=1e-6)
    after = side.read()
    assert expected
    for name, gradient in expected.items():
        np.testing.assert_allclose(after[name], before[name] - RATE * gradient, rtol=1e-5, atol=1e-6)
        assert measured.positions == 0 or np.abs(gradient).max() > 1e-3
    return measured.figures
