"""The losses in TensorFlow: means over the positions of a batch that count."""

from __future__ import annotations

from typing import Any

import tensorflow as tf

from xbackend_fl.adapter.contract import TrainConfig


def mean_loss(output: Any, targets: Any, config: TrainConfig) -> tuple[Any, Any]:
    """The loss of one batch, and how many positions it is the mean of, an int32 tensor.

    Args:
        output: The model's first output.
        targets: In its shape, without its class axis if the loss is of classes.
        config: Loss, class axis and what does not count.
    """
    if config.ignore_index is None:
        return tf.reduce_mean(_each(output, targets, config)), tf.size(targets)
    counted = targets != tf.cast(config.ignore_index, targets.dtype)
    count = tf.reduce_sum(tf.cast(counted, tf.int32))
    # Any target that the loss accepts will do where none counts.
    each = _each(output, tf.where(counted, targets, tf.zeros_like(targets)), config)
    total = tf.reduce_sum(tf.where(counted, each, tf.zeros_like(each)))
    return total / tf.cast(tf.maximum(count, 1), total.dtype), count


def _each(output: Any, targets: Any, config: TrainConfig) -> Any:
    """The loss of every position, in the shape of the targets."""
    if config.loss == "cross_entropy":
        last = len(output.shape) - 1
        if config.class_axis != last:
            order = [axis for axis in range(last + 1) if axis != config.class_axis]
            output = tf.transpose(output, [*order, config.class_axis])
        return tf.nn.sparse_softmax_cross_entropy_with_logits(tf.cast(targets, tf.int64), output)
    wanted = tf.cast(targets, output.dtype)
    if config.loss == "binary_cross_entropy":
        return tf.nn.sigmoid_cross_entropy_with_logits(wanted, output)
    return tf.square(output - wanted)
