"""What TensorFlow cannot compute on this machine, said as that and not as a fault of the model."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

import tensorflow as tf

from xbackend_fl.errors import UnsupportedError

_LACKING = (tf.errors.UnimplementedError, tf.errors.InvalidArgumentError, tf.errors.NotFoundError)
_WORDS = ("CPU implementations", "on the CPU", "device type CPU", "Could not find device for node")


@contextmanager
def kernels_needed() -> Iterator[None]:
    """Refuse a model for an operation that TensorFlow has no kernel of on this processor.

    Without oneDNN, which it leaves out by itself on many processors, it has none for channels first or for the gradient of a
    dilated convolution; with it, none for the gradient of pooling with channels first.

    Raises:
        UnsupportedError: The block asked for such an operation.
    """
    try:
        yield
    except _LACKING as error:
        if not any(word in error.message for word in _WORDS):
            raise
        said = error.message.partition("}} ")[2] or error.message
        raise UnsupportedError(
            f"TensorFlow has no kernel for this model on this processor: {said.partition('[Op:')[0].splitlines()[0].strip()}",
            hint="set TF_ENABLE_ONEDNN_OPTS=1 before anything imports tensorflow or keras; if that is not enough, build the model with "
            "channels last, which is the same function with the same weights",
        ) from error
