"""Where a model decides by the size of its data: ``if x.shape[0] > 64``, or a condition on ``tf.shape(x)``."""

from __future__ import annotations

import sys
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import keras
import tensorflow as tf

from xbackend_fl.adapter.calling import Way
from xbackend_fl.adapter.contract import Array
from xbackend_fl.adapter.lengths import Decisions, decisions
from xbackend_fl.places import is_library
from xbfl_tensorflow.calling import call_model, is_keras
from xbfl_tensorflow.variables import variable_names

_READERS = ("__getitem__", "__iter__", "as_list")
"""Methods of a shape that hand out lengths."""

_KERAS = str(Path(keras.__file__).parent)


def decided_by_size(model: Any, way: Way, batch: Sequence[Array]) -> tuple[str, ...]:
    """A note on the lines of the user's own at which a model decides by how many examples there are, or how long they are.

    The model is traced once more with data of other sizes.

    Args:
        model: The model.
        way: How it is called.
        batch: Its data, in its own order of inputs and axes.
    """
    if not _has_own_code(model):
        return ()
    held = [n for variable in variable_names(model).values() for n in variable.shape]

    def called(shapes: list[list[int]], decided: Decisions) -> bool:
        def watched(*inputs: Any) -> None:
            with _marked(decided):
                call_model(model, way, inputs, training=False)

        specs = [tf.TensorSpec(shape, array.dtype) for shape, array in zip(shapes, batch, strict=True)]
        try:
            tf.function(watched, autograph=False).get_concrete_function(*specs)
        except Exception:  # noqa: BLE001  a model may raise anything
            return False
        return True

    return decisions([array.shape for array in batch], held, called)


def _has_own_code(model: Any) -> bool:
    """Whether some layer's ``call``, or a function in one, is in a file of the user's own."""
    if not is_keras(model):
        return True
    layers = [model, *getattr(model, "_flatten_layers", lambda **_: ())(include_self=False)]
    functions = (
        function for layer in layers for function in (type(layer).call, getattr(layer, "function", None))
    )
    codes = (getattr(function, "__code__", None) for function in functions)
    return any(code is not None and not is_library(code.co_filename) for code in codes)


@contextmanager
def _marked(decided: Decisions) -> Iterator[None]:
    """Inside, lengths that the user's own code reads from shapes say what is decided by them."""
    before = {name: getattr(tf.TensorShape, name) for name in _READERS}
    for name, method in before.items():
        setattr(tf.TensorShape, name, _reader(method, decided))
    try:
        yield
    finally:
        for name, method in before.items():
            setattr(tf.TensorShape, name, method)


def _reader(method: Callable[..., Any], decided: Decisions) -> Callable[..., Any]:
    def read(shape: Any, *given: Any) -> Any:
        found = method(shape, *given)
        if not _asked_by_user():
            return found
        if isinstance(found, list):
            return [decided.marked(n) for n in found]
        if isinstance(found, Iterator):
            return iter([decided.marked(n) for n in found])
        return decided.marked(found)

    return read


def _asked_by_user() -> bool:
    """Whether a line of the user's own asks, also by a function of Keras."""
    frame = sys._getframe(2)  # noqa: SLF001  the traceback module reads the source of every line
    while frame.f_back is not None and frame.f_code.co_filename.startswith(_KERAS):
        frame = frame.f_back
    return not is_library(frame.f_code.co_filename)
