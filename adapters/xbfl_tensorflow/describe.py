"""Describes a TensorFlow model of any kind: traces it once and tells the builder what the graph does."""

from __future__ import annotations

import inspect
from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from typing import Any

import numpy as np
import tensorflow as tf
from tensorflow.core.framework.function_pb2 import FunctionDef
from tensorflow.python.framework.function_def_to_graph import function_def_to_graph

from xbackend_fl.adapter.axes import Declared
from xbackend_fl.adapter.calling import Way, first_taken
from xbackend_fl.adapter.contract import Array
from xbackend_fl.adapter.structure import Given
from xbackend_fl.adapter.walk import table
from xbackend_fl.canonical import Axes, Description, GraphBuilder
from xbackend_fl.canonical.graph import training
from xbackend_fl.canonical.graph.operands import Operand
from xbackend_fl.canonical.graph.recorder import described_with_data
from xbackend_fl.errors import UnsupportedError
from xbfl_tensorflow import layers, moving, opaque, operations, recurrent, sequences, simple, wrapped
from xbfl_tensorflow.axes import default_axes
from xbfl_tensorflow.branches import constant_choices, refuse_decisions
from xbfl_tensorflow.calling import (
    declares_inputs,
    is_keras,
    is_signature,
    likely_ways,
    refusal_of,
    takes_training,
)
from xbfl_tensorflow.constants import fold, settle
from xbfl_tensorflow.graph import Context, Handler, family, knows_activation
from xbfl_tensorflow.reading import read_as_called, read_as_declared, refusal
from xbfl_tensorflow.rehearsal import Rehearsal, rehearse, require_still
from xbfl_tensorflow.sizes import decided_by_size
from xbfl_tensorflow.trace import Call, Trace, needed, steps, trace
from xbfl_tensorflow.variables import natives_of, raw, refuse_policies, trainable, variable_names

_LAYERS: Mapping[str, Handler] = table(layers.HANDLERS, simple.HANDLERS, sequences.HANDLERS)


@dataclass(frozen=True)
class Described:
    """What describing a model yields.

    Attributes:
        description: Schema and binding.
        layers: Layers by node name.
        variables: Variables by native name.
        declared: Native shape that each input is declared with; ``None`` where any size goes.
        way: How the model is called.
    """

    description: Description
    layers: Mapping[str, Any]
    variables: Mapping[str, Any]
    declared: tuple[tuple[int | None, ...], ...]
    way: Way


def describe(model: Any, given: Given, told: Declared = Declared()) -> Described:  # noqa: B008  it is frozen
    """Schema and binding of ``model`` at an example (ONNX layout).

    Args:
        model: The model.
        given: The example; the schema has the inputs in its order.
        told: What the user says about the order of axes.

    Raises:
        UnsupportedError: A layer does in training what nothing here can say.
    """
    inside: list[Any] = []
    way = _chosen_way(model, given, told)
    # What is seen of a model does not depend on which of its tensors are data.
    known: dict[int, _Seen] = {}

    def one(as_data: Collection[str]) -> Described:
        described = None
        while described is None:
            if len(inside) not in known:
                known[len(inside)] = _seen(model, way, given, told, inside)
            described = _described(model, way, told, known[len(inside)], inside, as_data)
        return described

    return described_with_data(one)


def _twice(given: Given) -> list[Array]:
    """Two examples, in the order and the layout of the given one."""
    return [np.concatenate([array[:1]] * 2) for array in given.arrays]


def _chosen_way(model: Any, given: Given, told: Declared) -> Way:
    """The likeliest way to call a model that it takes."""
    batch = _twice(given)

    def refused(way: Way) -> BaseException | None:
        own = way.own(batch)
        try:
            axes = _default_axes(model, own, told)
        except UnsupportedError as error:
            return error
        return None if declares_inputs(model) else refusal(model, way, axes, own)

    return first_taken(likely_ways(model, given), refused, refusal_of(model))


def _default_axes(model: Any, batch: Sequence[Array], told: Declared) -> list[Axes]:
    return [
        default_axes(array, shape, told.input(index, array.ndim))
        for index, (array, shape) in enumerate(zip(batch, _declared(model, batch), strict=True))
    ]


@dataclass(frozen=True)
class _Seen:
    """A model traced at two examples.

    Attributes:
        batch: The examples, in its own order of inputs and in ONNX layout.
        declared: Native shape of every input as the model declares it.
        inferred: How it reads every input.
        traced: Its graph in evaluation mode.
        rehearsal: What it does in training.
        notes: Where it decides by the size of its data.
    """

    batch: list[Array]
    declared: list[tuple[int | None, ...]]
    inferred: list[Axes]
    traced: Trace
    rehearsal: Rehearsal
    notes: tuple[str, ...]


def _seen(model: Any, way: Way, given: Given, told: Declared, inside: list[Any]) -> _Seen:
    """What the graphs of a model say that are walked inside the layers of ``inside``."""
    batch = way.own(_twice(given))
    declared, axes_given = _declared(model, batch), _default_axes(model, batch, told)
    traced_in = partial(_traced, model, way, batch, inside=inside)
    if declares_inputs(model):
        inferred, traced = read_as_declared(traced_in, batch, axes_given, declared)
    else:
        inferred, traced = read_as_called(model, way, traced_in, batch, axes_given, declared)
    if is_keras(model):
        refuse_policies(model)
    rehearsal = _rehearsed(model, way, traced, batch, inferred, inside)
    chosen = refuse_decisions(traced, needed([tensor for _, tensor in traced.outputs]))
    own = [axes.to_native(array) for axes, array in zip(inferred, batch, strict=True)]
    require_still(model, way, traced, own)
    notes = (*decided_by_size(model, way, own), *constant_choices(chosen))
    return _Seen(batch, declared, inferred, traced, rehearsal, notes)


def _described(
    model: Any, way: Way, told: Declared, seen: _Seen, inside: list[Any], as_data: Collection[str]
) -> Described | None:
    """A description that walks inside the layers of ``inside``; ``None`` if further ones were put there."""
    traced, rehearsal = seen.traced, seen.rehearsal
    variables = variable_names(model)
    frozen = [name for name, variable in variables.items() if not trainable(variable)]
    builder = GraphBuilder("tensorflow", natives_of(variables), frozen, channels_last=True)
    builder.recorder.notes += seen.notes
    if is_signature(model):
        builder.inference_only("a SavedModel has no training mode")
    training.add_effects(builder, rehearsal.effects, rehearsal.unlike)
    context = Context(builder, {id(raw(variable)): name for name, variable in variables.items()})
    context.as_data = frozenset(as_data)
    rows = zip(traced.inputs, seen.batch, seen.inferred, way.words, strict=True)
    for tensor, array, axes, (word, key) in rows:
        context.values[tensor.name] = builder.input(
            word, str(array.dtype), array.shape, axes.perm, axes.note, axes.trailing, key
        )
    _captures(context, traced.graph, variables)
    context.active = dict(zip(map(id, traced.calls), rehearsal.active, strict=True))
    _walk(context, traced.graph, traced.calls, [tensor for _, tensor in traced.outputs])
    if context.refused:
        inside += context.refused
        return None
    for index, (key, tensor) in enumerate(traced.outputs):
        context.output(index, key, context.tensor(tensor), tensor.dtype.name, told)
    description = builder.build().with_inputs(way.back)
    return Described(description, context.layers, variables, tuple(seen.declared), way)


def _rehearsed(
    model: Any,
    way: Way,
    traced: Trace,
    batch: Sequence[Array],
    orders: Sequence[Axes],
    inside: Sequence[Any],
) -> Rehearsal:
    """What the model does in training; one without a training mode does in it what it always does."""
    if is_signature(model) or not (is_keras(model) or takes_training(model)):
        return Rehearsal(active=(True,) * len(traced.calls))
    return rehearse(model, traced, lambda: _traced(model, way, batch, orders, inside, training=True))


def _traced(
    model: Any,
    way: Way,
    batch: Sequence[Array],
    orders: Sequence[Axes],
    inside: Sequence[Any],
    *,
    training: bool = False,
) -> Trace:
    specs = [
        tf.TensorSpec(axes.native_shape(array.shape), array.dtype)
        for array, axes in zip(batch, orders, strict=True)
    ]
    walked = {id(layer) for layer in inside}

    def known(layer: Any) -> bool:
        return _known(layer) is not None and id(layer) not in walked

    return trace(model, way, specs, known, training=training)


def _known(layer: Any) -> Handler | None:
    """The handler of a layer of Keras itself.

    Subclasses of the user's own are walked inside, and so are layers with an activation of the user's own.
    """
    if type(layer).__name__ == "TimeDistributed" and family(layer):
        return wrapped.time_distributed(layer, _known)
    handler = _LAYERS.get(type(layer).__name__) if family(layer) else None
    steps = type(layer).__name__ in sequences.HANDLERS
    return handler if steps or knows_activation(getattr(layer, "activation", None)) else None


def _declared(model: Any, batch: Sequence[Array]) -> list[tuple[int | None, ...]]:
    """Declared native shape of each input; a model that declares nothing takes every size."""
    if not declares_inputs(model):
        return [(None,) * array.ndim for array in batch]
    return [tuple(tensor.shape) for tensor in model.inputs]


def _captures(context: Context, graph: Any, variables: Mapping[str, Any]) -> None:
    """What a graph closes over: variables by their handles, and constants."""
    handles = {id(raw(variable).handle): variable for variable in variables.values()}
    for outside, inside in graph.captures:
        if inside.dtype == tf.resource:
            variable = handles.get(id(outside))
            context.handles[inside.name] = None if variable is None else context.native(variable)
            if variable is None:
                context.lookups[inside.name] = outside
        else:
            context.values[inside.name] = outside.numpy()


def _walk(context: Context, graph: Any, calls: Sequence[Call], outputs: Sequence[Any]) -> None:
    """Tell the builder about every operation that an output comes from; a marked call counts as one."""
    read = needed(outputs)
    for step in steps(graph, calls):
        if isinstance(step, Call):
            if _made_by(step).name not in read and not context.knows((step.arguments, step.options)):
                # It looks at what the model does not compute with; its turn among the calls that drop it takes all the same.
                if hasattr(step.target, "rate"):
                    context.register_call(step.target)
                continue
            name = getattr(step.target, "name", step.target)
            with context.reading(f"the layer {name!r}", partial(_frames, _made_by(step))):
                _call(context, step)
        elif step.name in read:
            with context.reading(step.type, partial(_frames, step)):
                _operation(context, graph, step)


def _made_by(call: Call) -> Any:
    return tf.nest.flatten(call.outputs)[0].op


def _frames(operation: Any) -> list[tuple[str, int]]:
    """The calls that an operation comes from, as TensorFlow noted them; a loaded graph has forgotten them."""
    return [(str(frame.filename), int(frame.lineno or 0)) for frame in operation.traceback or ()]


def _call(context: Context, call: Call) -> None:
    context.prefix = call.path
    context.trains = context.active.get(id(call), True)
    tensors = tf.nest.flatten(call.outputs)
    made = _results(context, call)
    if len(made) != len(tensors):
        # Only its operations say what else it returns.
        context.refused.append(call.target)
        made = opaque.placeholders(context, call)
    context.values |= {tensor.name: value for tensor, value in zip(tensors, made, strict=True)}
    context.prefix = ""


def _results(context: Context, call: Call) -> list[Any]:
    """What each tensor that a call returned stands for."""
    arguments = [context.get(item) for item in call.arguments]
    options = {key: context.get(item) for key, item in call.options.items()}
    if isinstance(call.target, str):
        return [operations.function(context, call.target, call.outputs, arguments, options)]
    made = context.attempt(
        lambda: context.prefix + str(call.target.name),
        partial(_of_layer, context, call.target, arguments, options),
        partial(opaque.stands, call.target),
    )
    if made is None:
        # The graph is made again, and the layer is walked inside.
        context.refused.append(call.target)
        return list(opaque.placeholders(context, call))
    return made


def _of_layer(context: Context, layer: Any, arguments: list[Any], options: dict[str, Any]) -> list[Any]:
    options.pop("training", None)
    if type(layer).__name__ in recurrent.KINDS:
        return list(recurrent.recurrent(context, layer, arguments, options))
    return [_layer(context, layer, arguments, options)]


def _layer(context: Context, layer: Any, arguments: list[Any], options: dict[str, Any]) -> Any:
    handler = _known(layer)
    assert handler is not None
    kind = type(layer).__name__
    held = {context.names.get(id(raw(variable))) for variable in layer.weights}
    if not held.isdisjoint(context.as_data):
        raise UnsupportedError(
            f"keras layer {layer.name!r} ({kind}) shares a weight that others read in another layout"
        )
    if not arguments:
        # Its data are given by name: the first parameter of its call.
        word = next(name for name in inspect.signature(type(layer).call).parameters if name in options)
        arguments = [options.pop(word)]
    if getattr(layer, "quantization_mode", None):
        raise UnsupportedError(
            f"keras layer {layer.name!r} ({kind}) is quantized to {layer.quantization_mode}",
            hint="describe the model before quantize(...)",
        )
    if getattr(layer, "lora_enabled", False) and handler is not _LAYERS["Conv2D"]:
        raise UnsupportedError(
            f"keras layer {layer.name!r} ({kind}): enable_lora makes its weight a sum of one weight and a product of two",
            hint="save the weights, which Keras merges then, and load them into a model built without enable_lora",
        )
    if kind == "MultiHeadAttention":
        return sequences.attention(context, layer, arguments, options)
    if isinstance(arguments[0], list):
        return simple.merge(context, layer, [context.data(item) for item in arguments[0]])
    if kind in layers.EMBEDDINGS and not isinstance(arguments[0], list):
        return layers.embedding(context, layer, arguments[0])
    extra = [key for key, value in options.items() if value is not None]
    extra += ["a second input"] * (len(arguments) - 1)
    if extra:
        raise UnsupportedError(
            f"keras layer {layer.name!r} ({kind}) with {', '.join(extra)} has no canonical form",
            hint="express it with the layers that `xbfl adapters --operators` lists",
        )
    return handler(context, layer, context.data(arguments[0]))


def _operation(context: Context, graph: Any, operation: Any) -> None:
    kind, inputs = operation.type, list(operation.inputs)
    if kind in {"Placeholder", "NoOp"}:
        return
    if kind in {"PartitionedCall", "StatefulPartitionedCall"}:
        _function_call(context, graph, operation)
        return
    if inputs and inputs[0].dtype == tf.resource and kind in {"ReadVariableOp", "Identity", "ResourceGather"}:
        _read(context, operation)
        return
    arguments = [context.tensor(tensor) for tensor in inputs if tensor.dtype != tf.resource]
    made: Sequence[Operand] | None = None
    if len(arguments) == len(inputs):
        made = fold(operation, arguments)
        if made is None:
            settle(operation, arguments)
    if made is None and operation.outputs:
        made = _made(context, operation, arguments)
    for tensor, value in zip(operation.outputs, made or (), strict=False):
        context.values[tensor.name] = value


def _made(context: Context, operation: Any, arguments: Sequence[Operand]) -> Sequence[Operand]:
    made = None
    if len(arguments) == len(operation.inputs):
        read = partial(operations.operation, context, operation, arguments)
        made = context.attempt(lambda: context.prefix + str(operation.name), read)
    return opaque.record(context, operation) if made is None else made


def _read(context: Context, operation: Any) -> None:
    layout = context.handles.get(operation.inputs[0].name)
    output = operation.outputs[0].name
    if operation.type == "Identity":
        context.handles[output] = layout
        return
    if layout is None:
        raise UnsupportedError(
            f"tensorflow operation {operation.name!r} reads a variable that the model does not own",
            hint="keras: self.w = self.add_weight(shape=(4,), name='w') or self.w = keras.Variable(value) in the model or a layer: "
            "Keras lists no tf.Variable; tf.Module: self.w = tf.Variable(value)",
        )
    if operation.type == "ReadVariableOp":
        operation.outputs[0].set_shape(layout.shape)
        whole = layout.tensor in context.as_data
        context.values[output] = context.data(layout) if whole else layout
        return
    indices = context.tensor(operation.inputs[1])
    context.values[output] = moving.gather(context, operation, layout, indices)


def _function_call(context: Context, graph: Any, operation: Any) -> None:
    """Walk into a function that the graph calls, as a SavedModel does."""
    if not context.library:
        context.library = {item.signature.name: item for item in graph.as_graph_def().library.function}
    body = FunctionDef()
    body.CopyFrom(context.library[operation.get_attr("f").name])
    for node in body.node_def:
        # Shapes of the time it was saved, with an open batch axis; they are found anew.
        node.attr.pop("_output_shapes", None)
    inner = function_def_to_graph(body, input_shapes=[tensor.shape for tensor in operation.inputs])
    child = context.child(operation.name)
    for outside, inside in zip(operation.inputs, inner.inputs, strict=True):
        if inside.dtype == tf.resource:
            child.handles[inside.name] = context.handles.get(outside.name)
            if outside.name in context.lookups:
                child.lookups[inside.name] = context.lookups[outside.name]
        else:
            child.values[inside.name] = context.tensor(outside)
    _walk(child, inner, (), inner.outputs)
    for outside, inside in zip(operation.outputs, inner.outputs, strict=True):
        context.values[outside.name] = child.tensor(inside)
