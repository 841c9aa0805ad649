"""Traces any TensorFlow callable once, and remembers which operations belong to which known layer.

A ``tf.function`` graph shows everything a model does, whoever wrote it, but takes layers apart. So calls
of layers that the adapter knows are marked while the graph is made; the walk treats each as one operation and
reads the raw operations only where there is no such layer.
"""

from __future__ import annotations

import inspect
import sys
import warnings
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from functools import partial
from typing import Any, final

import keras
import numpy as np
import tensorflow as tf
import tensorflow.compat.v2 as compat

from xbackend_fl.adapter.blame import untraceable
from xbackend_fl.adapter.calling import Way
from xbackend_fl.adapter.outputs import output_leaves
from xbackend_fl.errors import UnsupportedError, XbflError
from xbfl_tensorflow.calling import call_model, is_keras

_MAX_STEPS = 128
"""Of a recurrent layer whose operations are made one by one."""


@dataclass(frozen=True)
class Call:
    """A marked call of a layer or function.

    Attributes:
        target: The layer, or the name of a marked function.
        path: Names of the models and custom layers around it, each followed by a slash.
        arguments: Positional arguments.
        options: Keyword arguments.
        outputs: What it returned; no other operation has the same tensors.
        start: Number of graph operations before the call.
        stop: Number of graph operations after it.
    """

    target: Any
    path: str
    arguments: tuple[Any, ...]
    options: dict[str, Any]
    outputs: Any
    start: int
    stop: int


@dataclass(frozen=True)
class Span:
    """A call of a layer that is walked inside.

    Attributes:
        layer: The layer.
        path: Names of the models and custom layers around it, each followed by a slash.
        start: Number of graph operations before the call.
        stop: Number of graph operations after it.
    """

    layer: Any
    path: str
    start: int
    stop: int


@dataclass(frozen=True)
class Trace:
    """A traced model.

    Attributes:
        graph: The graph.
        calls: Marked calls in order; none lies inside another.
        inputs: The graph's data inputs.
        outputs: What the model returned: (key, tensor) pairs.
        spans: Calls of layers that are walked inside.
    """

    graph: Any
    calls: tuple[Call, ...]
    inputs: tuple[Any, ...]
    outputs: tuple[tuple[str, Any], ...]
    spans: tuple[Span, ...] = ()


def steps(graph: Any, calls: Sequence[Call]) -> Iterator[Any]:
    """The operations of a graph in order; those of a marked call are that one :class:`Call`."""
    starts = {call.start: call for call in calls}
    position, every = 0, graph.get_operations()
    while position < len(every):
        call = starts.get(position)
        yield every[position] if call is None else call
        position = position + 1 if call is None else call.stop


def needed(outputs: Sequence[Any]) -> set[str]:
    """The operations that outputs come from: assertions, and what a model prints, are not its function."""
    found: set[str] = set()
    waiting = [tensor.op for tensor in outputs if hasattr(tensor, "op")]
    while waiting:
        operation = waiting.pop()
        if operation.name not in found:
            found.add(operation.name)
            waiting.extend(tensor.op for tensor in operation.inputs)
    return found


def trace(
    model: Any, way: Way, specs: Sequence[Any], known: Callable[[Any], bool], *, training: bool = False
) -> Trace:
    """The graph of ``model``.

    Args:
        model: Anything that is called with tensors.
        way: How it is called.
        specs: One ``tf.TensorSpec`` per input.
        known: Whether calls of a layer are to be marked.
        training: The mode in which the model is called.

    Raises:
        UnsupportedError: The model cannot be traced at these sizes.
    """
    marks = _Marks(model, known)
    keys: list[str] = []

    def run(*inputs: Any) -> Any:
        # TensorFlow traces a second time where the first one made variables.
        marks.calls.clear()
        marks.spans.clear()
        found = outputs_of(call_model(model, way, inputs, training=training))
        keys[:] = [key for key, _ in found]
        return [leaf for _, leaf in found]

    eager = tf.config.functions_run_eagerly()
    try:
        # Functions inside are inlined, so that everything lies in one graph.
        tf.config.run_functions_eagerly(run_eagerly=True)
        with _marked(marks):
            traced = tf.function(run, autograph=wants_autograph(model)).get_concrete_function(*specs)
    except (XbflError, KeyboardInterrupt):
        raise
    except BaseException as error:
        # A model may raise anything; all of it means that there is no graph.
        native = [np.zeros(spec.shape, spec.dtype.as_numpy_dtype) for spec in specs]
        raise untraceable("tensorflow", model, error, native, partial(_anew, model, way)) from error
    finally:
        tf.config.run_functions_eagerly(run_eagerly=eager)
    graph = traced.graph
    outputs = tuple(zip(keys, traced.structured_outputs, strict=True))
    inputs = tuple(graph.inputs[: len(specs)])
    return Trace(graph, tuple(marks.calls), inputs, outputs, tuple(marks.spans))


def wants_autograph(model: Any) -> bool:
    """Whether AutoGraph rewrites the model's code where a graph of it is made.

    Keras's own code needs none, and rewriting it takes longer than tracing it. What a Keras model has written for AutoGraph
    cannot be described, so nobody trains it either.
    """
    return not is_keras(model)


def call_once(model: Any, way: Way, inputs: Sequence[Any]) -> None:
    """Call ``model`` once, so that it has its variables.

    Raises:
        UnsupportedError: It does not take such inputs.
    """
    try:
        with _without_warnings():
            _anew(model, way, inputs)
    except (XbflError, KeyboardInterrupt):
        raise
    except BaseException as error:
        # A model may raise anything; all of it means that it cannot be built.
        raise untraceable("tensorflow", model, error, inputs, partial(_anew, model, way)) from error


def raised(model: Any, way: Way, inputs: Sequence[Any]) -> BaseException | None:
    """What a call of ``model`` with these inputs, in its own order of inputs and axes, raises; ``None`` if nothing."""
    try:
        with _without_warnings():
            _anew(model, way, inputs)
    except KeyboardInterrupt:
        raise
    except BaseException as error:  # noqa: BLE001  a model may raise anything
        return error
    return None


@contextmanager
def _without_warnings() -> Iterator[None]:
    """Where warnings are errors, a call would end in what the user's own does not."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        yield


def _anew(model: Any, way: Way, inputs: Sequence[Any]) -> None:
    """Call a model that raised once more, with other inputs."""
    call_model(model, way, [tf.constant(item) for item in inputs], training=False)


def outputs_of(returned: Any) -> tuple[tuple[str, Any], ...]:
    """The tensors that a model returned, with their keys."""
    return output_leaves(returned, _is_dense)


def _is_dense(item: object) -> bool:
    composite = isinstance(item, tf.RaggedTensor | tf.SparseTensor | tf.IndexedSlices)
    return bool(tf.is_tensor(item)) and not composite


def callable_of(model: Any) -> Any:
    """The model itself, or the serving signature of a loaded SavedModel.

    Raises:
        UnsupportedError: A SavedModel has no signature.
    """
    signatures = getattr(model, "signatures", None)
    if callable(model) and (is_keras(model) or hasattr(model, "variables")):
        return model
    if not signatures:
        raise UnsupportedError(
            "the SavedModel has no signature and cannot be called",
            hint="save it with model.export(...), or with signatures= in tf.saved_model.save",
        )
    return (
        signatures["serving_default"] if "serving_default" in signatures else next(iter(signatures.values()))
    )


@final
class _Marks:
    """Wraps calls of known layers and functions, and remembers them."""

    def __init__(self, model: Any, known: Callable[[Any], bool]) -> None:
        self.calls: list[Call] = []
        self.spans: list[Span] = []
        self._model, self._known = model, known
        self._path: list[str] = []
        self._inside = False

    def around_layer(self, original: Callable[..., Any]) -> Callable[..., Any]:
        """``Layer.__call__`` that marks known layers and keeps the path of all others."""

        def call(layer: Any, *arguments: Any, **options: Any) -> Any:
            if self._inside or not tf.inside_function():
                return original(layer, *arguments, **options)
            told = _is_told_a_mask(layer, (arguments, options))
            if self._known(layer) and not told and not is_reversed(arguments, options):
                return self._mark(layer, partial(original, layer), arguments, options)
            if layer is self._model:
                return original(layer, *arguments, **options)
            path, start = "".join(self._path), _count()
            self._path.append(f"{layer.name}/")
            try:
                with _unrolled(layer, (arguments, options)):
                    return original(layer, *arguments, **options)
            finally:
                self._path.pop()
                self.spans.append(Span(layer, path, start, _count()))

        return call

    def around_function(self, name: str, original: Callable[..., Any]) -> Callable[..., Any]:
        """A function of ``tf.nn`` that is marked under ``name``."""

        def call(*arguments: Any, **options: Any) -> Any:
            data = arguments or tuple(options.values())
            if self._inside or not tf.inside_function() or not tf.is_tensor(data[0]):
                return original(*arguments, **options)
            if not arguments:
                first = next(iter(inspect.signature(original).parameters))
                arguments = (options.pop(first),)
            return self._mark(name, original, arguments, options)

        return call

    def _mark(self, target: Any, function: Callable[..., Any], arguments: Any, options: Any) -> Any:
        start = _count()
        self._inside = True
        try:
            outputs = tf.nest.map_structure(_copy, function(*arguments, **options))
        finally:
            self._inside = False
        self.calls.append(Call(target, "".join(self._path), arguments, options, outputs, start, _count()))
        return outputs


def is_reversed(arguments: Sequence[Any], options: Mapping[str, Any]) -> bool:
    """Whether a call of an embedding that works both ways asks for logits, and looks nothing up."""
    return bool(options.get("reverse", False)) or any(item is True for item in arguments[1:])


@contextmanager
def _unrolled(layer: Any, given: Any) -> Iterator[None]:
    """A recurrent layer that is walked inside makes its steps one by one: a loop hides its operations, and the gates of its weights.

    One with very many steps stays a loop.
    """
    shapes = (item.shape for item in tf.nest.flatten(given) if tf.is_tensor(item))
    steps = next((shape[1] for shape in shapes if shape.rank > 2), None) or 0
    if getattr(layer, "unroll", None) is not False or not 0 < steps <= _MAX_STEPS:
        yield
        return
    # The legacy package asks the second one which of two implementations it takes.
    before = {
        word: getattr(layer, word) for word in ("unroll", "_could_use_gpu_kernel") if hasattr(layer, word)
    }
    try:
        for word in before:
            setattr(layer, word, word == "unroll")
        yield
    finally:
        for word, value in before.items():
            setattr(layer, word, value)


def _copy(tensor: Any) -> Any:
    """A tensor of its own, with the mask that Keras hands on with it."""
    made = tf.identity(tensor)
    if (mask := getattr(tensor, "_keras_mask", None)) is not None:
        made._keras_mask = mask  # noqa: SLF001  where Keras keeps it
    return made


def _is_told_a_mask(layer: Any, given: Any) -> bool:
    """Whether a layer reads the mask that comes with its data: what it does with it, only its operations say."""
    masked = any(getattr(item, "_keras_mask", None) is not None for item in tf.nest.flatten(given))
    return masked and any(name.endswith("mask") for name in inspect.signature(layer.call).parameters)


@contextmanager
def patched(around: Callable[[Callable[..., Any]], Callable[..., Any]]) -> Iterator[None]:
    """Every call of a Keras layer goes through what ``around`` makes of ``Layer.__call__`` inside."""
    with ExitStack() as stack:
        for package in [keras, sys.modules["tf_keras"]] if "tf_keras" in sys.modules else [keras]:
            base = package.layers.Layer
            _replace(stack, base, "__call__", around(base.__call__))
        yield


@contextmanager
def _marked(marks: _Marks) -> Iterator[None]:
    """Calls are marked inside; everything is put back afterwards."""
    with ExitStack() as stack:
        stack.enter_context(patched(marks.around_layer))
        # The legacy Keras calls the same functions by another module.
        for module in (tf.nn, compat.nn):
            for name in ("gelu", "silu", "swish"):
                _replace(stack, module, name, marks.around_function(name, getattr(module, name)))
        yield


def _replace(stack: ExitStack, owner: Any, name: str, value: Any) -> None:
    stack.callback(setattr, owner, name, getattr(owner, name))
    setattr(owner, name, value)


def _count() -> int:
    return len(tf.compat.v1.get_default_graph().get_operations())
