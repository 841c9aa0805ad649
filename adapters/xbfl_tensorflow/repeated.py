"""Calls of one model over and over: a graph answers ten times as fast as Keras called layer by layer, once it is made."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from typing import Any, TypeAlias, final

import numpy as np
import tensorflow as tf

from xbackend_fl.adapter.contract import Array

Call: TypeAlias = Callable[[Sequence[Any]], tuple[Any, ...]]
"""Output tensors for input tensors, in the model's own order of inputs and axes."""

_ROUNDED = 1e-5
"""A graph's answer that differs by less, relatively, differs in the order of a sum: convolutions have kernels of their own there."""

_SWITCH = "disable_meta_optimizer"


@final
class Repeated:
    """A model in evaluation mode, while nothing but its weights changes.

    To make a graph takes as long as four calls without one. So the first calls of a size make none; then one is made both
    ways, and if the two answers are equal, the graph gives those that follow. A model that does otherwise in a graph than without one
    is called without one.

    Args:
        call: Calls the model.
        plain: How many calls of a size have no graph.
        autograph: Whether AutoGraph rewrites the model's code.
    """

    def __init__(self, call: Call, plain: int, *, autograph: bool) -> None:
        self._call, self._plain, self._autograph = call, plain, autograph
        self._graphs: dict[Any, Call | None] = {}
        self._calls: Counter[Any] = Counter()

    def __call__(self, inputs: Sequence[Array]) -> tuple[Array, ...]:
        """Outputs for inputs.

        Raises:
            Exception: Whatever the model raises without a graph.
        """
        size = tuple((array.shape, array.dtype.str) for array in inputs)
        tensors = [tf.convert_to_tensor(array) for array in inputs]
        graph = self._graphs.get(size)
        if graph is not None:
            try:
                return _arrays(graph(tensors))
            except tf.errors.OpError:
                # Without a graph it says so in the words that the user knows.
                self._graphs[size] = None
        answer = _arrays(self._call(tensors))
        self._calls[size] += 1
        if self._calls[size] == self._plain:
            self._graphs[size] = self._graph(tensors, answer)
        return answer

    def _graph(self, tensors: Sequence[Any], answer: Sequence[Array]) -> Call | None:
        """A graph for tensors of one size; ``None`` if there is none, or if it answers otherwise."""
        made = tf.function(self._call, autograph=self._autograph)

        def graph(inputs: Sequence[Any]) -> tuple[Any, ...]:
            with unoptimized():
                found: tuple[Any, ...] = made(inputs)
            return found

        try:
            found = _arrays(graph(tensors))
        except Exception:  # noqa: BLE001  a model may raise anything; it was called without a graph
            return None
        same = len(found) == len(answer) and all(map(_equal, found, answer))
        return graph if same else None


@contextmanager
def unoptimized() -> Iterator[None]:
    """Graphs run as they were made: to rewrite one first takes longer than a few calls of it."""
    before = tf.config.optimizer.get_experimental_options().get(_SWITCH, False)
    tf.config.optimizer.set_experimental_options({_SWITCH: True})
    try:
        yield
    finally:
        tf.config.optimizer.set_experimental_options({_SWITCH: before})


def _arrays(tensors: Sequence[Any]) -> tuple[Array, ...]:
    return tuple(tensor.numpy() for tensor in tensors)


def _equal(one: Array, two: Array) -> bool:
    if one.shape != two.shape or one.dtype != two.dtype:
        return False
    size = float(np.abs(two)[np.isfinite(two)].max(initial=0.0))
    return np.allclose(one, two, rtol=0.0, atol=_ROUNDED * size, equal_nan=True)
