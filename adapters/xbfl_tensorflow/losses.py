"""The operations of losses in TensorFlow, and their mean over the positions of a batch that count."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, final

import tensorflow as tf

from xbackend_fl import losses
from xbackend_fl.adapter.contract import TrainConfig
from xbackend_fl.losses.operations import row_shape


@final
@dataclass(frozen=True)
class TensorFlowOperations:
    """See :class:`~xbackend_fl.losses.Operations`.

    Attributes:
        axis: Where the classes are.
    """

    axis: int
    backend: str = "tensorflow"

    exp = staticmethod(tf.exp)
    log = staticmethod(tf.math.log)
    log1p = staticmethod(tf.math.log1p)
    abs = staticmethod(tf.abs)
    sqrt = staticmethod(tf.sqrt)
    maximum = staticmethod(tf.maximum)
    mean = staticmethod(tf.reduce_mean)
    total = staticmethod(tf.reduce_sum)
    size = staticmethod(tf.size)

    def where(self, condition: Any, one: Any, other: Any, /) -> Any:
        """``tf.where`` takes a whole number for an int32."""
        like = next((x for x in (one, other) if tf.is_tensor(x)), None)
        if like is None:
            return tf.where(condition, one, other)
        return tf.where(condition, *(x if tf.is_tensor(x) else tf.cast(x, like.dtype) for x in (one, other)))

    def squared_error(self, outputs: Any, targets: Any, /) -> Any:
        """A square."""
        return tf.square(outputs - targets)

    def sigmoid_cross_entropy(self, logits: Any, shares: Any, /) -> Any:
        """TensorFlow's."""
        return tf.nn.sigmoid_cross_entropy_with_logits(shares, logits)

    def softmax_cross_entropy(self, scores: Any, classes: Any, /) -> Any:
        """TensorFlow's."""
        return tf.nn.sparse_softmax_cross_entropy_with_logits(classes, self._classes_last(scores))

    def log_softmax(self, scores: Any, /) -> Any:
        """TensorFlow's."""
        return tf.nn.log_softmax(scores, self.axis)

    def gather(self, scores: Any, classes: Any, /) -> Any:
        """Numbers of classes."""
        return tf.gather(self._classes_last(scores), classes, batch_dims=len(classes.shape))

    def sum(self, scores: Any, /) -> Any:
        """Over classes."""
        return tf.reduce_sum(scores, self.axis)

    def length(self, scores: Any, /) -> int:
        """Of the axis of the classes."""
        return int(scores.shape[self.axis])

    def pick(self, numbers: Sequence[float], classes: Any, like: Any, /) -> Any:
        """By class."""
        return tf.gather(tf.constant(numbers, like.dtype), classes)

    def row(self, numbers: Sequence[float], scores: Any, /) -> Any:
        """Along classes."""
        return tf.constant(numbers, scores.dtype, row_shape(len(numbers), len(scores.shape), self.axis))

    def count(self, condition: Any, /) -> Any:
        """As an int32."""
        return tf.reduce_sum(tf.cast(condition, tf.int32))

    def as_float(self, count: Any, like: Any, /) -> Any:
        """In the dtype of ``like``."""
        return tf.cast(count, like.dtype)

    def _classes_last(self, scores: Any) -> Any:
        last = len(scores.shape) - 1
        if self.axis % (last + 1) == last:
            return scores
        return tf.transpose(scores, [*(axis for axis in range(last + 1) if axis != self.axis), self.axis])


def mean_loss(output: Any, targets: Any, config: TrainConfig) -> tuple[Any, Any]:
    """The loss of one batch, and how many positions it is the mean of, an int32 tensor.

    Args:
        output: The output.
        targets: In its shape, without its class axis if the loss is of classes.
        config: Loss, class axis and what does not count.
    """
    classes, ignored = config.loss.targets == "classes", config.ignore_index
    counted = None if ignored is None else targets != tf.cast(ignored, targets.dtype)
    wanted = tf.cast(targets, tf.int64 if classes else output.dtype)
    ops = TensorFlowOperations(config.class_axis)
    return losses.mean_loss(config.loss, output, wanted, counted, ops)
