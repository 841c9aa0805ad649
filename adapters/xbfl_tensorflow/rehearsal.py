"""Traces a model in training mode too, and notes what training does that no graph of evaluation says."""

from __future__ import annotations

import re
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from itertools import zip_longest
from typing import Any

import numpy as np
import tensorflow as tf

from xbackend_fl.adapter.calling import Way
from xbackend_fl.adapter.contract import Array
from xbackend_fl.canonical import TrainingEffect
from xbackend_fl.errors import UnsupportedError
from xbfl_tensorflow.calling import call_model
from xbfl_tensorflow.graph import family
from xbfl_tensorflow.trace import Call, Trace, outputs_of

_ROUNDED = 1e-5
"""Two answers to the same data that differ by less, relatively, differ in the order of a sum."""

_RANDOM = re.compile(r"Random|TruncatedNormal|Multinomial|^Rng|Poisson")
_CHANGES = re.compile(r"^(Assign|Resource(Scatter|Apply|StridedSliceAssign))")
_STATISTICS = frozenset({"BatchNormalization"})
_DROPPING = re.compile(r"^(Spatial)?Dropout(\dD)?$|^MultiHeadAttention$")
_BOUNDS = re.compile(r"(regularizer|constraint)$")


@dataclass(frozen=True)
class Rehearsal:
    """What a trace in training mode shows.

    Attributes:
        effects: What training does beside the graph of evaluation.
        active: For every marked call, in order, whether it moves statistics or draws random numbers.
        unlike: The effect that makes two runs of one step differ, or that changes weights; ``None`` if there is none.
    """

    effects: tuple[TrainingEffect, ...] = ()
    active: tuple[bool, ...] = ()
    unlike: TrainingEffect | None = None


def rehearse(model: Any, still: Trace, again: Callable[[], Trace]) -> Rehearsal:
    """Compare a model's graph in evaluation with that in training.

    Args:
        model: The model.
        way: How it is called.
        still: Its trace in evaluation mode.
        again: Traces it in training mode.

    Raises:
        UnsupportedError: Evaluation draws random numbers.
    """
    library = _library(still.graph)
    for call in still.calls:
        if _may(call) and _does(_RANDOM, still, call, library):
            raise UnsupportedError(
                f"keras layer {_name(call)!r} draws random numbers in evaluation mode too",
                hint=f"keras: call {_name(call)!r} without training=True",
            )
    try:
        moving = again()
    except UnsupportedError as error:
        effect = TrainingEffect(
            f"tensorflow model {type(model).__name__}", f"it cannot be called in training mode: {error.message}",
            "keras: make model(x, training=True) work",
        )  # fmt: skip
        return Rehearsal((effect, *_settings(model)), (True,) * len(still.calls), effect)
    effects = [*_settings(model), *_added_losses(model)]
    other = next((pair for pair in zip_longest(still.calls, moving.calls) if not _same(*pair)), None)
    if other is not None:
        call = next(call for call in other[::-1] if call is not None)
        cure = "keras: call it in both modes; Keras's own layers look at training themselves"
        unlike = TrainingEffect(f"keras layer {_name(call)!r}", "is called in one mode only", cure)
        return Rehearsal((*effects, unlike), (True,) * len(still.calls), unlike)
    library = _library(moving.graph)
    expected = [call for call in moving.calls if _may(call)]
    strange = list(_strange(moving, expected, library))
    active = tuple(
        _does(_CHANGES if _kind(call) in _STATISTICS else _RANDOM, moving, call, library)
        for call in moving.calls
    )
    if not strange:
        effects += _other_function(still, moving)
    return Rehearsal((*effects, *strange), active, strange[0] if strange else None)


def require_still(model: Any, way: Way, still: Trace, inputs: Sequence[Array]) -> None:
    """Call a model twice in evaluation mode on the same data.

    Args:
        model: The model.
        way: How it is called.
        still: Its trace in evaluation mode.
        inputs: Data in its own axis order.

    Raises:
        UnsupportedError: Its answers differ by more than rounding: evaluation draws random numbers.
    """
    data = [tf.constant(array) for array in inputs]
    try:
        answers = [outputs_of(call_model(model, way, data, training=False)) for _ in range(2)]
    except Exception:  # noqa: BLE001  whoever proves the model calls it again, and says so
        return
    # What layers add to their losses in a call is nobody's here either.
    for layer in layers_of(model):
        if getattr(layer, "_losses", None):
            layer._losses.clear()  # noqa: SLF001  Keras itself clears them so
    pairs = zip(*([np.asarray(leaf) for _, leaf in answer] for answer in answers), strict=True)
    differ = any(_differ(one, two) for one, two in pairs)
    if not differ:
        return
    library = _library(still.graph)
    drawing = (
        index
        for index, operation in enumerate(still.graph.get_operations())
        if any(map(_RANDOM.search, _kinds(operation, library)))
    )
    index = next(drawing, None)
    # What draws outside the graph, as NumPy does, leaves a constant in it.
    where = f"tensorflow model {type(model).__name__}" if index is None else _owner(still, index)[0]
    raise UnsupportedError(
        f"{where} draws random numbers in evaluation mode too: two calls on the same data differ",
        hint="keras: draw only if training is true (call(self, x, training=False)), or leave it out",
    )


def _differ(one: Array, two: Array) -> bool:
    size = float(np.abs(one)[np.isfinite(one)].max(initial=0.0))
    with np.errstate(invalid="ignore"):
        return bool((np.abs(np.subtract(one, two, dtype=np.float64)) > _ROUNDED * size).any())


def _strange(
    moving: Trace, expected: Sequence[Call], library: Mapping[str, list[str]]
) -> Iterator[TrainingEffect]:
    """Random draws and changes of variables that do not belong to a dropout or a batch normalisation."""
    inside = [range(call.start, call.stop) for call in expected]
    seen: set[str] = set()
    # A layer that draws changes the state of its generator too.
    for pattern, what in (
        (_RANDOM, "draws random numbers in training"),
        (_CHANGES, "changes variables in training"),
    ):
        for index, operation in enumerate(moving.graph.get_operations()):
            if any(index in part for part in inside) or not any(
                map(pattern.search, _kinds(operation, library))
            ):
                continue
            where, layer = _owner(moving, index)
            if where not in seen:
                seen.add(where)
                yield TrainingEffect(where, what, _cure(layer, pattern))


def _cure(layer: Any, pattern: re.Pattern[str]) -> str:
    if hasattr(layer, "layer"):
        return f"keras: put the layer that {layer.name!r} wraps in its place"
    if pattern is _RANDOM:
        return "keras: leave it out for the course, or use keras.layers.Dropout, which follows the schema"
    return "keras: change variables outside the model's call"


def _other_function(still: Trace, moving: Trace) -> Iterator[TrainingEffect]:
    """A model whose operations outside known layers are others in training."""
    lists = [list(_outside(trace)) for trace in (still, moving)]
    pair = next(
        (
            pair
            for pair in zip_longest(*lists)
            if pair[0] is None or pair[1] is None or pair[0][1] != pair[1][1]
        ),
        None,
    )
    if pair is not None:
        side, trace = (1, moving) if pair[1] is not None else (0, still)
        index, kind = pair[side]
        what = f"computes something else in training mode, first a {kind}"
        yield TrainingEffect(
            _owner(trace, index)[0], what, "keras: compute the same in both modes", compared=True
        )


_SILENT = frozenset({"Const", "Identity", "NoOp", "ReadVariableOp", "Placeholder", "Shape", "StopGradient"})


def _outside(trace: Trace) -> Iterator[tuple[int, str]]:
    inside = [range(call.start, call.stop) for call in trace.calls]
    for index, operation in enumerate(trace.graph.get_operations()):
        if operation.type not in _SILENT and not any(index in part for part in inside):
            yield index, operation.type


def _settings(model: Any) -> Iterator[TrainingEffect]:
    """Penalties and constraints of weights, as the layers and the variables hold them."""
    seen: set[int] = set()
    for layer in layers_of(model):
        for argument, value in sorted(vars(layer).items()):
            # Legacy Keras keeps an empty list under such a name.
            if callable(value) and _BOUNDS.search(argument) and id(value) not in seen:
                seen.add(id(value))
                yield _setting(f"keras layer {_path(layer)!r}", _path(layer), argument, value)
    for variable in getattr(model, "variables", ()):
        for argument in ("regularizer", "constraint"):
            value = getattr(variable, argument, None)
            if value is not None and id(value) not in seen:
                seen.add(id(value))
                name = str(getattr(variable, "path", variable.name))
                yield _setting(f"keras variable {name!r}", name, argument, value)


def _setting(where: str, name: str, argument: str, value: Any) -> TrainingEffect:
    argument = argument.lstrip("_")
    what = (
        "adds a penalty to the loss" if "regularizer" in argument else "changes the weight after every step"
    )
    settings = value.get_config() if hasattr(value, "get_config") else {}
    inner = ", ".join(
        f"{key}={float(number):g}" for key, number in settings.items() if isinstance(number, float | int)
    )
    # A penalty may be a plain function.
    shown = str(getattr(value, "__name__", f"{type(value).__name__}({inner})"))
    cure = f"keras: {name}: {argument}=None"
    squared = float(settings.get("l2", 0.0) or 0.0)
    if "kernel_regularizer" in argument and squared and not float(settings.get("l1", 0.0) or 0.0):
        cure += f" (training.optimizer.weight_decay: {2 * squared:g} decays every weight as it does this one)"
    return TrainingEffect(where, f"{argument}={shown} {what}, and training here does not", cure)


def _added_losses(model: Any) -> Iterator[TrainingEffect]:
    """Losses that layers added while they were traced; those of a graph are nobody's, and are taken away again."""
    for layer in layers_of(model):
        losses = getattr(layer, "_losses", None)
        if losses:
            losses.clear()
            if getattr(layer, "activity_regularizer", None) is None:
                what = (
                    "adds a loss of its own (add_loss), and training here minimises the course's loss alone"
                )
                yield TrainingEffect(
                    f"keras layer {_path(layer)!r}", what, f"keras: {_path(layer)}: take add_loss out"
                )


def layers_of(model: Any) -> list[Any]:
    """All layers of a model, cells and wrapped layers too, each once."""
    if hasattr(model, "_flatten_layers"):
        found: Iterable[Any] = model._flatten_layers()  # noqa: SLF001  model.layers stops at the first level
    else:
        found = [
            part
            for part in getattr(model, "submodules", ())
            if hasattr(part, "call") and hasattr(part, "weights")
        ]
    return list({id(layer): layer for layer in found}.values())


def _may(call: Call) -> bool:
    """Whether a call may draw or change something: the schema says what."""
    return _kind(call) in _STATISTICS or bool(_DROPPING.search(_kind(call)))


def _does(pattern: re.Pattern[str], trace: Trace, call: Call, library: Mapping[str, list[str]]) -> bool:
    operations = trace.graph.get_operations()[call.start : call.stop]
    return any(pattern.search(kind) for operation in operations for kind in _kinds(operation, library))


def _kinds(operation: Any, library: Mapping[str, list[str]]) -> list[str]:
    """Type of an operation and of those in the functions it calls."""
    found = [operation.type]
    for name in operation.node_def.attr:
        value = operation.node_def.attr[name]
        for function in (value.func.name, *(item.name for item in value.list.func)):
            found += library.get(function, ())
    return found


def _library(graph: Any) -> dict[str, list[str]]:
    """Types of the operations of every function that a graph may call, of those that they call too."""
    functions = graph.as_graph_def().library.function
    return {item.signature.name: [node.op for node in item.node_def] for item in functions}


def _same(one: Call | None, two: Call | None) -> bool:
    return (one is not None and two is not None and one.target is two.target) or (
        isinstance(getattr(one, "target", None), str)
        and getattr(one, "target", 0) == getattr(two, "target", 1)
    )


def _kind(call: Call) -> str:
    return type(call.target).__name__ if family(call.target) else ""


def _name(call: Call) -> str:
    return f"{call.path}{getattr(call.target, 'name', call.target)}"


def _path(layer: Any) -> str:
    path = str(getattr(layer, "path", "") or layer.name)
    return path.rpartition("/")[2] if not path.endswith("_cell") else path


def _owner(trace: Trace, index: int) -> tuple[str, Any]:
    """The innermost layer that an operation comes from, in words and itself; ``None`` if it comes from none."""
    calls = [
        (call.stop - call.start, _name(call), call.target)
        for call in trace.calls
        if call.start <= index < call.stop
    ]
    calls += [
        (span.stop - span.start, f"{span.path}{span.layer.name}", span.layer)
        for span in trace.spans
        if span.start <= index < span.stop
    ]
    if not calls:
        return f"tensorflow operation {trace.graph.get_operations()[index].name!r}", None
    _, name, layer = min(calls, key=lambda item: item[0])
    return f"keras layer {name!r} ({type(layer).__name__})", layer
