"""Forward passes in half precision, as Keras's policies ``mixed_…`` compute them."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from typing import Any

import keras

from xbackend_fl.adapter.contract import TrainConfig
from xbfl_tensorflow.graph import family


def no_autocast(model: Any) -> str:
    """Why a model's layers cannot compute in half precision; empty if they can."""
    if not isinstance(model, keras.Model):
        return f"a {type(model).__name__} of TensorFlow has no policy of dtypes, which models of Keras have"
    foreign = [layer.name for layer in _layers(model) if family(layer) != "keras"]
    return f"its layer {foreign[0]!r} is not of Keras 3" if foreign else ""


@contextmanager
def autocasting(model: Any, config: TrainConfig) -> Iterator[None]:
    """Layers inside have the policy of the precision of training, and their own afterwards.

    A traced step keeps the policy of its trace; variables are float32 all the time.
    """
    with ExitStack() as stack:
        for layer in _layers(model) if config.precision != "float32" else ():
            stack.callback(setattr, layer, "dtype_policy", layer.dtype_policy)
            layer.dtype_policy = keras.DTypePolicy(f"mixed_{config.precision}")
        yield


def _layers(model: Any) -> list[Any]:
    return list(model._flatten_layers())  # noqa: SLF001  Keras lists layers inside layers nowhere else
