"""A TensorFlow model in whose graph the data decide what is computed is refused with the line."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, TypeAlias

import keras
import numpy as np
import pytest
import tensorflow as tf
from keras import layers as K

import xbackend_fl
from xbackend_fl.errors import UnsupportedError

Step: TypeAlias = Callable[[Any, Any], Any]

ROWS = np.random.default_rng(2).standard_normal((2, 6)).astype(np.float32)
LARGE = 1e6


class Net(tf.Module):
    """One layer and a step behind it, which also sees the data."""

    def __init__(self, step: Step) -> None:
        super().__init__()
        self.w, self.step = tf.Variable(np.ones((6, 3), np.float32)), step

    def __call__(self, x: tf.Tensor) -> tf.Tensor:
        return self.step(x, tf.tanh(x @ self.w))


def large(x: tf.Tensor) -> tf.Tensor:
    return tf.reduce_max(tf.abs(x)) > LARGE


def times(x: tf.Tensor) -> tf.Tensor:
    return tf.cast(tf.reduce_max(x) / LARGE, tf.int32)


def branch(x: tf.Tensor, h: tf.Tensor) -> tf.Tensor:
    if large(x):
        h = h * 0
    return h


def loop(x: tf.Tensor, h: tf.Tensor) -> tf.Tensor:
    for _ in tf.range(times(x)):
        h = h / 2
    return h


def until(_: tf.Tensor, h: tf.Tensor) -> tf.Tensor:
    while large(h):
        h = h / 2
    return h


def late(_: tf.Tensor, h: tf.Tensor) -> tf.Tensor:
    """What the data say in one turn ends the loop two turns later."""
    return tf.while_loop(
        lambda i, _, __: i < 3, lambda _, k, h: (k, k + tf.cast(large(h), tf.int32) + 1, h / 2), (0, 1, h)
    )[2]


def python(_: tf.Tensor, h: tf.Tensor) -> tf.Tensor:
    made = tf.numpy_function(lambda array: array * 0 if array.max() > LARGE else array, [h], tf.float32)
    made.set_shape(h.shape)
    return made


DECIDED: dict[str, Step] = {
    "cond": lambda x, h: tf.cond(large(x), lambda: h * 0, lambda: h),
    "cond of Keras": lambda x, h: keras.ops.cond(large(x), lambda: h * 0, lambda: h),
    "case": lambda x, h: tf.case([(large(x), lambda: h * 0)], default=lambda: h),
    "switch_case": lambda x, h: tf.switch_case(times(x), [lambda: h, lambda: h * 0]),
    "while_loop": lambda _, h: tf.while_loop(large, lambda y: (y / 2,), (h,))[0],
    "a condition in a loop": lambda _, h: tf.while_loop(
        lambda i, _: i < 3, lambda i, y: (i + 1, tf.cond(large(y), lambda: y * 0, lambda: y)), (0, h))[1],
    "a condition for every row": lambda _, h: tf.map_fn(lambda row: tf.cond(large(row), lambda: row * 0, lambda: row), h),
    "how many": lambda x, h: tf.cond(tf.shape(tf.where(x > LARGE))[0] > 0, lambda: h * 0, lambda: h),
    "if": branch,
    "for": loop,
    "while": until,
    "a loop that ends late": late,
    "Python": python,
}  # fmt: skip


def asserted(x: tf.Tensor, h: tf.Tensor) -> tf.Tensor:
    with tf.control_dependencies([tf.debugging.assert_less(x, np.float32(LARGE))]):
        return tf.identity(h)


OTHERS: dict[str, Step] = {
    "a loop of fixed length": lambda _, h: tf.while_loop(lambda i, _: i < 3, lambda i, y: (i + 1, tf.tanh(y)), (0, h))[1],
    "every row": lambda _, h: tf.map_fn(tf.tanh, h),
    "scan": lambda _, h: keras.ops.scan(lambda carry, row: (tf.tanh(carry + row), carry), h[0], h)[1],
    "sizes": lambda x, h: tf.cond(tf.shape(x)[1] > 3, lambda: tf.tanh(h), lambda: h),
    "where": lambda _, h: tf.where(h > 0, h, -h),
    "an assertion": asserted,
}  # fmt: skip


@pytest.mark.one_in(3)
@pytest.mark.parametrize("step", DECIDED.values(), ids=DECIDED)
def test_what_the_data_decide_is_refused_with_its_line(step: Step) -> None:
    with pytest.raises(UnsupportedError) as refused:
        xbackend_fl.describe(Net(step), ROWS)
    assert "data-dependent control flow" in refused.value.message or step is python
    assert "test_control_flow_tensorflow.py:" in refused.value.message
    assert "tf.where" in str(refused.value.hint)


@pytest.mark.one_in(3)
@pytest.mark.parametrize("step", OTHERS.values(), ids=OTHERS)
def test_what_the_data_do_not_decide_is_described(step: Step) -> None:
    assert xbackend_fl.describe(Net(step), ROWS).nodes


def test_a_loaded_model_is_refused_without_a_line(tmp_path: Any) -> None:
    model = Net(DECIDED["cond"])
    served = tf.function(model.__call__).get_concrete_function(tf.TensorSpec((None, 6)))
    tf.saved_model.save(model, str(tmp_path), signatures=served)
    with pytest.raises(UnsupportedError, match="data-dependent control flow"):
        xbackend_fl.describe(tf.saved_model.load(str(tmp_path)), ROWS)


def test_a_keras_model_with_a_condition_in_a_layer_is_refused() -> None:
    data = keras.Input((6,))
    inside = K.Lambda(lambda x: tf.cond(large(x), lambda: x * 0, lambda: x))(K.Dense(4)(data))
    with pytest.raises(
        UnsupportedError, match=r"data-dependent control flow \(at .*test_control_flow_tensorflow.py:"
    ):
        xbackend_fl.describe(keras.Model(data, K.Dense(2)(inside)), ROWS)
