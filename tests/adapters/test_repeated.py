"""A TensorFlow model that is called over and over answers by a graph, if that is the same function."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import numpy as np
import pytest
import tensorflow as tf

import xbfl_tensorflow
from xbfl_tensorflow.repeated import Repeated, unoptimized
from xbfl_tensorflow.trainer import TensorFlowTrainer

GENERATOR = np.random.default_rng(5)


def data(rows: int = 4) -> list[Any]:
    return [GENERATOR.standard_normal((rows, 3), np.float32)]


class Counted:
    """A function, and how often its code ran without a graph and for one."""

    def __init__(self, function: Callable[[Any], Any]) -> None:
        self.function, self.eager, self.traced = function, 0, 0

    def __call__(self, tensors: Sequence[Any]) -> tuple[Any, ...]:
        if tf.inside_function():
            self.traced += 1
        else:
            self.eager += 1
        return (self.function(tensors[0]),)


def test_the_third_call_of_a_size_runs_no_code_of_the_model() -> None:
    variable = tf.Variable(1.0)
    model = Counted(lambda x: tf.nn.softmax(x * variable))
    repeated = Repeated(model, 2, autograph=False)
    for call in range(6):
        variable.assign(float(call))
        for rows in (4, 7):
            (x,) = data(rows)
            scaled = np.exp(x.astype(np.float64) * call)
            (found,) = repeated([x])
            np.testing.assert_allclose(found, scaled / scaled.sum(1, keepdims=True), rtol=1e-5)
    assert (model.eager, model.traced) == (4, 2)


@pytest.mark.parametrize(
    "function",
    [
        lambda x: x if tf.executing_eagerly() else x * 1.001,
        lambda x: x if tf.executing_eagerly() else x[:, :2],
        lambda x: x / 0 if tf.executing_eagerly() else x,
        lambda x: x + float(tf.reduce_sum(x)),
    ],
    ids=["another value", "another shape", "no number", "a value that is read"],
)
def test_what_a_graph_does_otherwise_is_called_without_one(function: Callable[[Any], Any]) -> None:
    model = Counted(function)
    repeated = Repeated(model, 2, autograph=False)
    for _ in range(4):
        (x,) = data()
        np.testing.assert_array_equal(repeated([x])[0], function(tf.constant(x)))
    assert (model.eager, model.traced) == (4, 1)


def test_what_is_raised_is_said_in_the_words_of_a_call_without_a_graph() -> None:
    repeated = Repeated(lambda tensors: (tf.gather(tf.ones((3, 2)), tensors[0]),), 2, autograph=False)
    good, bad = np.array([0, 1]), np.array([0, 9])
    for _ in range(3):
        repeated([good])
    with pytest.raises(tf.errors.InvalidArgumentError) as caught:
        repeated([bad])
    assert "[Op:GatherV2]" in str(caught.value)
    assert repeated([good])[0].shape == (2, 2)


def test_gradients_of_a_graph_are_those_without_one() -> None:
    variable = tf.Variable(GENERATOR.standard_normal((3, 2), np.float32))

    class Module(tf.Module):
        def __init__(self) -> None:
            super().__init__()
            self.kernel = variable

        def __call__(self, x: Any) -> Any:
            return tf.nn.softmax(x @ self.kernel)

    trainer = xbfl_tensorflow.adapter.load_model(Module(), data())
    inputs, weights = data(), [GENERATOR.standard_normal((4, 2), np.float32)]
    expected = trainer.gradients(inputs, weights)
    assert isinstance(trainer, TensorFlowTrainer)
    with trainer.preserved():
        for _ in range(9):
            found = trainer.gradients(inputs, weights)
            assert found.keys() == expected.keys()
            for name, gradient in found.items():
                np.testing.assert_allclose(gradient, expected[name], rtol=1e-6)
    assert trainer._derivatives is None


def test_a_trainer_calls_its_model_so_while_it_is_preserved() -> None:
    plain: list[bool] = []

    class Module(tf.Module):
        def __call__(self, x: Any) -> Any:
            plain.append(not tf.inside_function())
            return x * 2.0

    trainer = xbfl_tensorflow.adapter.load_model(Module(), data())
    assert isinstance(trainer, TensorFlowTrainer)
    plain.clear()
    with trainer.preserved():
        for _ in range(5):
            trainer.forward(data())
    assert plain == [True, True, False]
    for _ in range(5):
        trainer.forward(data())
    assert plain[3:] == [True] * 5


def test_the_switch_is_put_back() -> None:
    with unoptimized():
        assert tf.config.optimizer.get_experimental_options()["disable_meta_optimizer"]
    assert not tf.config.optimizer.get_experimental_options()["disable_meta_optimizer"]
