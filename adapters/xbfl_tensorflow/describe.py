"""Describes a Keras model: walks its functional graph and tells it to the builder."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from typing import Any

import keras
from keras import layers as keras_layers

from xbackend_fl.adapter.contract import Array
from xbackend_fl.canonical import Description, GraphBuilder, NativeTensor, Value
from xbackend_fl.errors import UnsupportedError, XbflError
from xbfl_tensorflow import layers, operations, sequences
from xbfl_tensorflow.graph import Context, Handler

_HANDLERS: dict[type, Handler] = {**layers.HANDLERS, **sequences.HANDLERS, **operations.HANDLERS}
_SEQUENCE_LAYERS = (
    keras_layers.RNN,
    keras_layers.Bidirectional,
    keras_layers.Dense,
    keras_layers.Embedding,
    keras_layers.MultiHeadAttention,
    keras_layers.LayerNormalization,
)


def describe(
    model: Any, example: Sequence[Array]
) -> tuple[Description, dict[str, Any], list[tuple[int | None, ...]]]:
    """Schema and binding of ``model`` at ``example`` (ONNX layout).

    Returns:
        The description, the layers by node name, and the native shape that each input is declared with.

    Raises:
        UnsupportedError: A layer or operation has no canonical form.
    """
    perms = [_default_perm(array.ndim) for array in example]
    with _unchanged_nodes(model):
        functional = _functional(model, example, perms)
        inferred = [
            _infer_perm(functional, index, array, default)
            for index, (array, default) in enumerate(zip(example, perms, strict=True))
        ]
        perms = [perm for perm, _ in inferred]
        functional = _functional(model, example, perms)
        names = variable_names(model)
        builder = GraphBuilder("tensorflow", _natives(names), _frozen(names), channels_last=True)
        context = Context(builder, {id(variable): name for name, variable in names.items()})
        for tensor, array, (perm, note) in zip(functional.inputs, example, inferred, strict=True):
            shape = (2, *array.shape[1:])
            word = tensor.name.partition(":")[0]
            context.values[id(tensor)] = builder.input(word, str(array.dtype), shape, perm, note)
        _walk(context, functional)
        for tensor in functional.outputs:
            builder.output(context.values[id(tensor)])
        declared = [tuple(tensor.shape) for tensor in functional.inputs]
        if functional is not model and not isinstance(model, keras.Sequential):
            # A subclass declares nothing; these are the sizes it was traced with.
            declared = [(None,) * len(shape) for shape in declared]
        return builder.build(), context.layers, declared


def variable_names(model: Any) -> dict[str, Any]:
    """Weights and random-generator states by unique name."""
    seen: dict[str, Any] = {}
    generators = [v for v in model.non_trainable_variables if v.path.endswith("seed_generator_state")]
    for variable in (*model.weights, *generators):
        if any(variable is known for known in seen.values()):
            continue
        name, count = variable.path, 2
        while name in seen:
            name, count = f"{variable.path}#{count}", count + 1
        seen[name] = variable
    return seen


def _walk(context: Context, functional: Any) -> None:
    for depth in sorted(functional._nodes_by_depth, reverse=True):  # noqa: SLF001  Keras offers no public walk
        for node in functional._nodes_by_depth[depth]:  # noqa: SLF001
            if not node.is_input:
                value = _apply(context, node.operation, node.arguments)
                for output in node.outputs:
                    context.values[id(output)] = value


def _apply(context: Context, operation: Any, arguments: Any) -> Value:
    args = [context.get(argument) for argument in arguments.args]
    options = {key: context.get(value) for key, value in arguments.kwargs.items()}
    options.pop("training", None)
    if isinstance(operation, keras.Model):
        return _nested(context, operation, args)
    if type(operation) is keras_layers.MultiHeadAttention:
        return sequences.attention(context, operation, args, options)
    handler = _HANDLERS.get(type(operation))
    extra = [key for key, value in options.items() if value is not None]
    if handler is not None and not extra and isinstance(args[0], Value):
        return handler(context, operation, args[0])
    if args and isinstance(args[0], list):
        merged = operations.merge(context, operation, args[0])
        if merged is not None:
            return merged
    function = operations.OPERATIONS.get(type(operation).__name__)
    if function is not None and type(operation).__module__.startswith("keras.src.ops"):
        return function(context, operation, args, options)
    kind = type(operation).__name__
    detail = f" with {', '.join(extra)}" if extra else ""
    raise UnsupportedError(
        f"keras layer {operation.name!r} ({kind}){detail} has no canonical form",
        hint="express it with the layers that `xbfl adapters --operators` lists",
    )


def _nested(context: Context, model: Any, args: list[Any]) -> Value:
    values = args[0] if isinstance(args[0], list) else [args[0]]
    functional = model._functional if isinstance(model, keras.Sequential) else model  # noqa: SLF001
    if not hasattr(functional, "_nodes_by_depth"):
        raise UnsupportedError(
            f"keras model {model.name!r} is a subclass used as a layer",
            hint="build it with the functional API, or call its layers from the outer model",
        )
    outer = context.prefix
    context.prefix = f"{outer}{model.name}/"
    for tensor, value in zip(functional.inputs, values, strict=True):
        context.values[id(tensor)] = value
    _walk(context, functional)
    context.prefix = outer
    (output,) = functional.outputs
    return context.values[id(output)]


def _functional(model: Any, example: Sequence[Array], perms: Sequence[tuple[int, ...]]) -> Any:
    """The model as a functional graph; a subclassed model is called once with symbolic inputs."""
    if isinstance(model, keras.Sequential):
        if not model.built:
            (array,), (perm,) = example, perms
            model.build((None, *(array.shape[axis] for axis in perm[1:])))
        return model._functional  # noqa: SLF001
    if hasattr(model, "_nodes_by_depth"):
        return model
    inputs = [
        keras.Input(tuple(array.shape[axis] for axis in perm[1:]), dtype=str(array.dtype), name=f"input_{i}")
        for i, (array, perm) in enumerate(zip(example, perms, strict=True))
    ]
    try:
        if not model.built:
            model(inputs[0] if len(inputs) == 1 else inputs)
        return keras.Model(inputs, model.call(inputs[0] if len(inputs) == 1 else inputs))
    except XbflError:
        raise
    except Exception as error:
        # A subclass's call() may raise anything; all of it means that there is no graph.
        raise UnsupportedError(
            f"keras cannot trace {type(model).__name__}.call: {error}",
            hint="check that the input shape fits the model; data-dependent control flow has no graph",
        ) from error


def _default_perm(rank: int) -> tuple[int, ...]:
    return (0, *range(2, rank), 1) if rank >= 4 else tuple(range(rank))


def _infer_perm(
    functional: Any, index: int, array: Array, default: tuple[int, ...]
) -> tuple[tuple[int, ...], str]:
    """Axis order of an input: from the first layer that cares, checked against the declared shape."""
    rank = array.ndim
    channels_last, plain = (0, *range(2, rank), 1), tuple(range(rank))
    perm, note = default, ""
    if rank >= 3 and (layer := _first_consumer(functional, functional.inputs[index])) is not None:
        if isinstance(layer, _SEQUENCE_LAYERS):
            perm = plain
        else:
            last = getattr(layer, "data_format", None) != "channels_first" and getattr(layer, "axis", -1) != 1
            perm = channels_last if last else plain
        order = "as given" if perm == plain else "channels-last"
        note = f"{order}: first read by {layer.name!r}"
    declared = tuple(functional.inputs[index].shape)
    if not _fits(array, perm, declared):
        received = [array.shape[axis] for axis in perm]
        if not _fits(array, plain, declared):
            raise UnsupportedError(
                f"input {index} of the Keras model is declared {list(declared)}; "
                f"the example {list(array.shape)} arrives there as {received}",
                hint="give --input in ONNX layout (channels first)",
            )
        perm, note = plain, f"as given: {received} is not what the model declares"
    return perm, note


def _fits(array: Array, perm: tuple[int, ...], declared: tuple[int | None, ...]) -> bool:
    """Whether an example in this axis order has the declared shape, the batch axis aside."""
    received = [array.shape[axis] for axis in perm]
    return len(declared) == len(received) and all(
        n in (None, m) for n, m in zip(declared[1:], received[1:], strict=True)
    )


def _first_consumer(functional: Any, tensor: Any) -> Any:
    """The first layer behind ``tensor`` whose meaning depends on the axis order."""
    reached = {id(tensor)}
    for depth in sorted(functional._nodes_by_depth, reverse=True):  # noqa: SLF001
        for node in functional._nodes_by_depth[depth]:  # noqa: SLF001
            if node.is_input or not reached.intersection(id(item) for item in node.input_tensors):
                continue
            operation = node.operation
            if isinstance(operation, keras.Model):
                inner = operation._functional if isinstance(operation, keras.Sequential) else operation  # noqa: SLF001
                return _first_consumer(inner, inner.inputs[0])
            if isinstance(operation, _SEQUENCE_LAYERS) or hasattr(operation, "data_format"):
                return operation
            if isinstance(operation, keras_layers.BatchNormalization | keras_layers.GroupNormalization):
                return operation
            reached.update(id(item) for item in node.outputs)
    return None


def _natives(names: dict[str, Any]) -> dict[str, NativeTensor]:
    wrong = [n for n, v in names.items() if "float" in str(v.dtype) and str(v.dtype) != "float32"]
    if wrong:
        raise UnsupportedError(
            f"variable {wrong[0]!r} is {names[wrong[0]].dtype}; expected float32",
            hint="build the model under the float32 dtype policy",
        )
    return {name: NativeTensor(tuple(v.shape), str(v.dtype)) for name, v in names.items()}


def _frozen(names: dict[str, Any]) -> list[str]:
    return [name for name, variable in names.items() if not variable.trainable]


@contextmanager
def _unchanged_nodes(model: Any) -> Iterator[None]:
    """Forget the graph nodes that a symbolic call leaves on the user's layers."""
    owners = [model, *model._flatten_layers()]  # noqa: SLF001
    before = [(owner, list(owner._inbound_nodes), list(owner._outbound_nodes)) for owner in owners]  # noqa: SLF001
    try:
        yield
    finally:
        for owner, inbound, outbound in before:
            owner._inbound_nodes[:] = inbound  # noqa: SLF001
            owner._outbound_nodes[:] = outbound  # noqa: SLF001
