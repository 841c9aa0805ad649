"""Describes an ``nn.Module``: walks the graph of ``torch.export`` and tells it to the builder.

The training IR keeps whole operators (``conv2d``, ``lstm``, ``batch_norm``); only multi-head attention is
taken apart, and is put together again here by the module its nodes come from.
"""

from __future__ import annotations

import logging
import operator
import re
import warnings
from collections.abc import Callable, Collection, Iterator, Mapping, Sequence
from contextlib import contextmanager, redirect_stderr, redirect_stdout
from dataclasses import dataclass, replace
from functools import partial
from io import StringIO
from typing import Any

import numpy as np
import torch
from torch.fx import Graph, Node

from xbackend_fl.adapter.axes import Declared
from xbackend_fl.adapter.blame import untraceable
from xbackend_fl.adapter.calling import Way
from xbackend_fl.adapter.contract import Array
from xbackend_fl.adapter.outputs import output_leaves
from xbackend_fl.adapter.structure import Given
from xbackend_fl.adapter.walk import table
from xbackend_fl.canonical import Description, GraphBuilder, NativeTensor, TrainingEffect
from xbackend_fl.canonical.graph import training
from xbackend_fl.canonical.graph.operands import LARGEST_CONSTANT, Operand, as_value
from xbackend_fl.canonical.graph.recorder import described_with_data
from xbackend_fl.canonical.layout import Native
from xbackend_fl.errors import UnsupportedError, XbflError
from xbfl_torch import (
    activations,
    attention,
    cells,
    contractions,
    layers,
    masks,
    moving,
    opaque,
    operations,
    reductions,
    sequences,
)
from xbfl_torch.calling import called_flat, chosen_way, tensors_in_own_order
from xbfl_torch.changes import refuse_hidden_changes
from xbfl_torch.constants import fold
from xbfl_torch.decomposed import decomposed
from xbfl_torch.effects import effects_of
from xbfl_torch.graph import Context, Handler, base_name
from xbfl_torch.modes import evaluation_mode
from xbfl_torch.packed import PACKS
from xbfl_torch.plain import natives_of
from xbfl_torch.reads import decisions_of, refuse_decisions
from xbfl_torch.rehearsal import Rehearsal, rehearse
from xbfl_torch.sizes import decided_by_size
from xbfl_torch.states import State
from xbfl_torch.tracing import Traced, executed, exported

_FAMILIES = (
    *(operations, masks, activations, reductions, moving),
    *(contractions, layers, sequences, cells, attention),
)
_HANDLERS: dict[str, Handler] = table(*(family.HANDLERS for family in _FAMILIES))
"""Operations by their names without overloads; a family a module."""

_TALKATIVE = ("torch._subclasses.fake_tensor", "torch.fx.experimental.symbolic_shapes")


@dataclass(frozen=True)
class Described:
    """What describing a model yields.

    Attributes:
        description: Schema and binding.
        calls: Native place of every call that drops, in order; empty if attributes of modules say the rates as well.
        way: How the model is called.
        packs: Whether it packs examples by their lengths.
    """

    description: Description
    calls: tuple[str, ...]
    way: Way
    packs: bool = False


def describe(
    model: torch.nn.Module,
    given: Given,
    computed: Sequence[TrainingEffect] = (),
    declared: Declared = Declared(),  # noqa: B008  it is frozen
) -> Described:
    """Schema and binding of ``model`` at an example (ONNX layout).

    Args:
        model: The model, its weights plain.
        given: The example; the schema has the inputs in its order.
        computed: Weights that the user's own model computes from others, and a plain copy does not.
        declared: What the user says about the order of axes.

    Raises:
        UnsupportedError: An operation or layer has no canonical form.
    """
    batch = [np.concatenate([array[:1]] * 2) for array in given.arrays]
    way = chosen_way(model, given, batch, declared)
    tensors_in, told = tensors_in_own_order(way, batch, declared)
    native, natives = tuple(tensors_in), natives_of(model, tensors_of(model))
    # What is seen of a model does not depend on which of its tensors are data.
    rehearsal = rehearse(model, way, native)
    traced, keys = _traced(model, way, [name for name, _ in way.words], native, rehearsal.error)
    seen = _Seen(natives, way.own(batch), told, rehearsal, traced, keys)
    return described_with_data(lambda names: _describe(model, way, seen, computed, declared, names))


def is_tensor(item: object) -> bool:
    """Whether an output is a tensor of PyTorch."""
    return isinstance(item, torch.Tensor)


def tensors_of(model: torch.nn.Module) -> dict[str, torch.Tensor]:
    """Parameters and buffers by name; a tied tensor appears once, under its first name."""
    return dict(model.named_parameters()) | dict(model.named_buffers())


@dataclass(frozen=True)
class _Seen:
    """A model traced at two examples.

    Attributes:
        natives: Its tensors.
        example: The examples, in its own order of inputs and in ONNX layout.
        told: What the user says about the order of every input's axes.
        rehearsal: What it does in training.
        traced: Its graph in evaluation mode.
        keys: Of its outputs, in the graph's order.
    """

    natives: Mapping[str, NativeTensor]
    example: Sequence[Array]
    told: Sequence[tuple[int, ...] | None]
    rehearsal: Rehearsal
    traced: Traced
    keys: tuple[str, ...]


def _describe(
    model: torch.nn.Module,
    way: Way,
    seen: _Seen,
    computed: Sequence[TrainingEffect],
    declared: Declared,
    as_data: Collection[str],
) -> Described:
    traced, rehearsal, words = seen.traced, seen.rehearsal, way.words
    perms = [order or tuple(range(array.ndim)) for order, array in zip(seen.told, seen.example, strict=True)]
    notes = ["declared" if order else "as given" for order in seen.told]
    tensors = tensors_of(model)
    frozen = [name for name, tensor in tensors.items() if not tensor.requires_grad]
    builder = GraphBuilder("torch", seen.natives, frozen)
    if computed:
        names = ", ".join(effect.where for effect in computed)
        builder.one_way(f"{names} is computed by a parametrization; a plain copy stands for it")
    effects = (*computed, *rehearsal.effects, *effects_of(model))
    training.add_effects(builder, effects, rehearsal.unlike)
    context = Context(builder, model, rehearsal, _handle)
    aliases, tables = _aliases(model, tensors), _tables(model)
    data, read = iter(zip(words, seen.example, perms, notes, strict=True)), _read(traced.graph)
    builder.recorder.notes += (*traced.notes, *rehearsal.notes)
    for node in traced.graph.nodes:
        if node.op == "placeholder" and node.name in traced.parameters:
            name = aliases[traced.parameters[node.name]]
            tensor = tensors[name]
            # Whole numbers do not train and have no mean, and what no file holds is no weight: both are constants of the model.
            fixed = not tensor.is_floating_point() or (name in tables and tensor.numel() <= LARGEST_CONSTANT)
            layout = Native(name, tuple(tensor.shape))
            context.values[node] = (
                tensor.numpy() if fixed else as_value(builder, layout) if name in as_data else layout
            )
        elif node.name in traced.constants:
            context.values[node] = traced.constants[node.name]
        elif node.op == "placeholder" and node.name in traced.data:
            (word, key), array, perm, note = next(data)
            context.values[node] = builder.input(word, str(array.dtype), array.shape, perm, note, key=key)
        elif node.op == "call_function" and node not in context.values:
            with context.reading(str(node.target), partial(frames_of, node), model):
                refuse_hidden_changes(node)
                if node in read:
                    _operation(context, node)
                else:
                    operations.pass_by(context, node)
        elif node.op == "output":
            returned: Any = node.args[0]
            for index, (key, made) in enumerate(zip(seen.keys, returned, strict=True)):
                dtype = str(made.meta["val"].dtype).removeprefix("torch.")
                context.output(index, key, _returned(context.stored(made), key), dtype, declared)
    description = builder.build().with_inputs(way.back)
    packs = any(str(node.target) == PACKS for node in traced.graph.nodes)
    return Described(description, context.calls, way, packs)


def _operation(context: Context, node: Node) -> None:
    """Tell the builder about one operation."""
    if attention.attention(context, node):
        return
    _handle(context, node)


def _handle(context: Context, node: Node) -> None:
    if node.target is operator.getitem:
        source, index = node.args
        context.values[node] = context.stored(source)[index]
    elif (folded := fold(context, node)) is not None:
        context.values[node] = folded
    else:
        context.values[node] = _made(context, node)


def _made(context: Context, node: Node) -> Any:
    handler, made, name = _HANDLERS.get(base_name(node)), None, partial(context.name, node)
    if handler and str(node.target).startswith("aten."):
        final = partial(opaque.stands, context, node)
        made = context.attempt(name, partial(handler, context, node), final)
    if made is None or _lacks(made, node):
        made = context.attempt(name, partial(decomposed, context, node, _HANDLERS))
    return opaque.record(context, node) if made is None or _lacks(made, node) else made


def _lacks(made: Any, node: Node) -> bool:
    """Whether an operation has outputs that its canonical form does not have, and that something reads."""
    if not isinstance(made, tuple) or base_name(node) in sequences.HANDLERS:
        return False
    read = {user.args[1] for user in node.users if user.target is operator.getitem and user.users}
    return any(item is None and index in read for index, item in enumerate(made))


def _read(graph: Graph) -> set[Node]:
    """The nodes that the outputs come from: assertions, and what the model only looks at, are not its function."""
    found: set[Node] = set()
    waiting = [node for node in graph.nodes if node.op == "output"]
    while waiting:
        node = waiting.pop()
        if node not in found:
            found.add(node)
            waiting.extend(node.all_input_nodes)
    return found


def frames_of(node: Node) -> list[tuple[str, int]]:
    """The calls that a node comes from, as the exporter noted them."""
    return frames_in(str(node.meta.get("stack_trace") or ""))


def frames_in(trace: str) -> list[tuple[str, int]]:
    """The calls of a stack trace that is text."""
    return [(file, int(line)) for file, line in re.findall(r'File "([^"]+)", line (\d+)', trace)]


def _returned(value: Any, key: str) -> Operand:
    """What the model returns: also a parameter or a constant that reaches an output as it is."""
    if isinstance(value, State):
        raise UnsupportedError(
            f"the model returns the final state{f' {key!r}' if key else ''} of a recurrent layer as it is",
            hint="return its sequence alone, layer(x)[0], or index the state by layer: h_n[-1]",
        )
    returned: Operand = value
    return returned


def _traced(
    model: torch.nn.Module,
    way: Way,
    words: Sequence[str],
    native: tuple[torch.Tensor, ...],
    raised: BaseException | None,
) -> tuple[Traced, tuple[str, ...]]:
    """The graph of a model in evaluation mode, and the keys of its outputs in the graph's order.

    Args:
        model: The model.
        way: How it is called.
        words: Names of its inputs.
        native: Two examples.
        raised: What the model raised with them. The tracer may pass them all the same: its tensors have no numbers.
    """
    keys: list[str] = []

    def flat(_: object, __: object, returned: object) -> tuple[torch.Tensor, ...]:
        found = output_leaves(returned, is_tensor)
        keys[:] = [key for key, _ in found]
        return tuple(leaf for _, leaf in found)

    with evaluation_mode(model), _quiet(), called_flat(model, way, words):
        # The exporter knows no dataclasses, and keeps dicts in the order of their making.
        hook = model.register_forward_hook(flat)
        try:
            traced = exported(torch.export.export(model, native))
            refuse_decisions(type(model).__name__, decisions_of(model, traced.graph, model, native))
        except (XbflError, KeyboardInterrupt):
            raise
        except BaseException as error:
            # torch.export raises whatever the model raises; all of it means that it makes no graph.
            found = executed(model, model, native) if raised is None else None
            if found is None:
                raise untraceable("torch.export", model, error, *_anew(model, way, native)) from error
            traced = found
        finally:
            hook.remove()
        notes = decided_by_size(model, model, native)
    if raised is not None:
        raise untraceable("torch", model, raised, *_anew(model, way, native)) from raised
    return replace(traced, notes=(*traced.notes, *notes)), tuple(keys)


def _anew(
    model: torch.nn.Module, way: Way, native: tuple[torch.Tensor, ...]
) -> tuple[list[Array], Callable[[Sequence[Array]], object]]:
    """Two examples, and what calls a model with some."""

    def call(arrays: Sequence[Array]) -> None:
        with evaluation_mode(model), torch.no_grad():
            way.call(model, [torch.tensor(array) for array in arrays])

    return [tensor.numpy() for tensor in native], call


@contextmanager
def _quiet() -> Iterator[None]:
    """The exporter comments on its internals and prints graphs; what matters to the user is raised anyway."""
    logs = [logging.getLogger(name) for name in _TALKATIVE]
    before = [log.disabled for log in logs]
    for log in logs:
        log.disabled = True
    try:
        with warnings.catch_warnings(), redirect_stdout(StringIO()), redirect_stderr(StringIO()):
            warnings.simplefilter("ignore")
            yield
    finally:
        for log, disabled in zip(logs, before, strict=True):
            log.disabled = disabled


def _tables(model: torch.nn.Module) -> set[str]:
    """Buffers that are no part of the model's state: tables that it computes when it is made."""
    return {
        f"{path}.{name}" if path else name
        for path, module in model.named_modules()
        for name in module._non_persistent_buffers_set  # noqa: SLF001  the only place that says so
    }


def _aliases(model: torch.nn.Module, tensors: dict[str, torch.Tensor]) -> dict[str, str]:
    """Every name of a parameter or buffer to its first name (tied weights have several)."""
    first = {id(tensor): name for name, tensor in tensors.items()}
    every = [
        *model.named_parameters(remove_duplicate=False),
        *model.named_buffers(remove_duplicate=False),
    ]
    return {name: first[id(tensor)] for name, tensor in every}
