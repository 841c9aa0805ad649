"""Training with forward passes in bfloat16: what PyTorch's autocast and Keras's mixed_bfloat16 compute, with float32 weights."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import keras
import numpy as np
import pytest
import tensorflow as tf
import torch
from torch import nn

import xbfl_tensorflow
import xbfl_torch
from tests.algorithms.smooth import course_of
from xbackend_fl import run_course
from xbackend_fl.adapter import OPTIMIZERS, Batch, TrainConfig
from xbackend_fl.errors import RefusedInput
from xbackend_fl.events import Event, Noted
from xbackend_fl.losses.kinds.mean_squared_error import MeanSquaredError

DRAW = np.random.default_rng(0)
BATCHES = [
    Batch((DRAW.standard_normal((8, 4), np.float32),), DRAW.standard_normal((8, 2), np.float32))
    for _ in range(3)
]
EXAMPLE = (np.zeros((1, 4), np.float32),)
HALF = TrainConfig(OPTIMIZERS["sgd"](lr=0.2), MeanSquaredError(), precision="bfloat16")
FULL = TrainConfig(OPTIMIZERS["sgd"](lr=0.2), MeanSquaredError())


def test_pytorch_computes_what_autocast_does() -> None:
    torch.manual_seed(0)
    model = nn.Sequential(nn.Linear(4, 16), nn.Tanh(), nn.Linear(16, 2))
    theirs = nn.Sequential(nn.Linear(4, 16), nn.Tanh(), nn.Linear(16, 2))
    theirs.load_state_dict(model.state_dict())
    trainer: Any = xbfl_torch.adapter.load_model(model, EXAMPLE)
    assert trainer.autocasts() == ""
    start = trainer.read()
    trainer.train(BATCHES, HALF)
    found = trainer.read()
    optimizer = torch.optim.SGD(theirs.parameters(), 0.2)
    for batch in BATCHES:
        optimizer.zero_grad()
        with torch.autocast("cpu", torch.bfloat16):
            output = theirs(torch.tensor(batch.inputs[0]))
        nn.functional.mse_loss(output.float(), torch.tensor(batch.targets)).backward()
        optimizer.step()
    for name, tensor in theirs.state_dict().items():
        assert found[name].dtype == np.float32
        np.testing.assert_allclose(found[name], tensor.numpy(), rtol=0, atol=1e-6)
    trainer.write(start)
    trainer.train(BATCHES, FULL)
    _require_rounded(found, trainer.read())


def test_keras_computes_what_its_policy_does() -> None:
    def build() -> keras.Sequential:
        keras.utils.set_random_seed(0)
        return keras.Sequential(
            [keras.Input((4,)), keras.layers.Dense(16, activation="tanh"), keras.layers.Dense(2)]
        )

    model = build()
    trainer: Any = xbfl_tensorflow.adapter.load_model(model, EXAMPLE)
    assert trainer.autocasts() == ""
    start = trainer.read()
    trainer.train(BATCHES, HALF)
    found = trainer.read()
    assert {layer.dtype_policy.name for layer in model.layers} == {"float32"}
    keras.config.set_dtype_policy("mixed_bfloat16")
    try:
        theirs = build()
    finally:
        keras.config.set_dtype_policy("float32")
    theirs.set_weights(list(start.values()))
    for batch in BATCHES:
        with tf.GradientTape() as tape:
            output = tf.cast(theirs(batch.inputs[0], training=True), tf.float32)
            loss = tf.reduce_mean((output - batch.targets) ** 2)
        variables = theirs.trainable_variables
        for variable, grad in zip(variables, tape.gradient(loss, [v.value for v in variables]), strict=True):
            variable.assign(variable - 0.2 * grad)
    for array, expected in zip(found.values(), theirs.get_weights(), strict=True):
        assert array.dtype == np.float32
        np.testing.assert_allclose(array, expected, rtol=0, atol=2e-4)
    trainer.write(start)
    trainer.train(BATCHES, FULL)
    _require_rounded(found, trainer.read())


def _require_rounded(half: dict[str, Any], full: dict[str, Any]) -> None:
    """Another result than in float32, and not by more than rounding of eight bits."""
    differences = [float(np.abs(half[name] - full[name]).max()) for name in full]
    assert 1e-5 < max(differences) < 2e-2


class Plain(tf.Module):
    def __init__(self) -> None:
        super().__init__()
        self.weight = tf.Variable(tf.ones((4, 2)))

    @tf.function(input_signature=[tf.TensorSpec((None, 4))])
    def __call__(self, x: Any) -> Any:
        return x @ self.weight


def test_what_has_no_policy_says_so() -> None:
    trainer: Any = xbfl_tensorflow.adapter.load_model(Plain(), EXAMPLE)
    assert "Plain of TensorFlow has no policy" in trainer.autocasts()


def test_a_course_says_that_bits_differ(tmp_path: Path) -> None:
    events: list[Event] = []
    course = course_of(
        tmp_path / "course", ["torch"], "participants.0.training={precision: bfloat16}", rounds=1
    )
    run_course(course, tmp_path / "run", in_process=True, observer=events.append)
    said = "'ada' train with forward passes in bfloat16"
    assert any(said in event.note for event in events if isinstance(event, Noted))
    assert said in (tmp_path / "run" / "summary.md").read_text()


def test_a_backend_that_cannot_is_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    course = course_of(tmp_path / "course", ["torch"], "training.precision=bfloat16", rounds=1)
    monkeypatch.setattr(xbfl_torch.trainer.TorchTrainer, "autocasts", lambda _: "it has none")
    with pytest.raises(
        RefusedInput, match=r"cannot be trained with training\.precision bfloat16: it has none"
    ):
        run_course(course, tmp_path / "run", in_process=True)
