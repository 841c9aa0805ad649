"""The graph of a module: as ``torch.export`` makes it, or, where that cannot, as the operations of one execution.

An execution shows what a model does with its example, loops and lists, numbers read with ``.item()`` and sizes included. What it read
from the data would stand in the graph as it was there, so a model whose own code does that is refused, and the graph is compared with
the model on other data as well.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import torch
from torch.export import ExportedProgram
from torch.fx import Graph, GraphModule, Node
from torch.fx.experimental.proxy_tensor import get_proxy_mode, make_fx

from xbackend_fl.adapter.contract import Array
from xbfl_torch.reads import notes_of, reads_of, refuse_decisions

_DRAWS = 6
_CLOSE = 1e-4
"""Relative difference of outputs that rounding makes."""


@dataclass(frozen=True)
class Traced:
    """The operations of a module in evaluation mode.

    Attributes:
        graph: The operations.
        parameters: Nodes that stand for parameters and buffers, by name, to the tensor's name in the module.
        constants: Nodes that stand for other tensors, by name.
        data: Names of the nodes that stand for inputs, in order.
        notes: How the graph was made, if that is worth saying.
    """

    graph: Graph
    parameters: Mapping[str, str]
    constants: Mapping[str, Array] = field(default_factory=dict)
    data: tuple[str, ...] = ()
    notes: tuple[str, ...] = ()


def exported(program: ExportedProgram) -> Traced:
    """The graph of an exported program."""
    signature = program.graph_signature
    held = {**signature.inputs_to_parameters, **signature.inputs_to_buffers}
    # A tensor that is neither parameter nor buffer, or that `forward` writes out, never changes.
    constants = {
        node: program.constants[name].detach().cpu().numpy()
        for node, name in signature.inputs_to_lifted_tensor_constants.items()
    }
    return Traced(program.graph, held, constants, tuple(map(str, signature.user_inputs)))


def executed(
    model: torch.nn.Module, call: Callable[..., Sequence[torch.Tensor]], native: Sequence[torch.Tensor]
) -> Traced | None:
    """The operations of one execution; ``None`` if they are not those of every execution, or nobody could note them.

    Args:
        model: The module, in evaluation mode.
        call: Calls it with tensors, and returns its outputs in a flat list.
        native: Two examples.

    Raises:
        UnsupportedError: The module's own code decides by the values of its data.
    """
    try:
        reads = reads_of(model, call, native)
    except Exception:  # noqa: BLE001  a model may raise anything
        return None
    refuse_decisions(type(model).__name__, reads)
    tensors = {**dict(model.named_parameters()), **dict(model.named_buffers())}

    def function(held: Sequence[torch.Tensor], *inputs: torch.Tensor) -> list[torch.Tensor]:
        with _standing(model, dict(zip(tensors, held, strict=True))):
            return list(call(*inputs))

    values = [tensor.detach() for tensor in tensors.values()]
    make = make_fx(function, tracing_mode="real", pre_dispatch=True, _error_on_data_dependent_ops=False)
    try:
        with torch.no_grad(), _modules_noted(model):
            module: GraphModule = make(values, *native)
        with torch.no_grad():
            if not _is_the_function(module, function, values, native):
                return None
    except KeyboardInterrupt:
        raise
    except BaseException:  # noqa: BLE001  whatever it was, there is no graph
        return None
    module.graph.eliminate_dead_code()
    places = [node.name for node in module.graph.nodes if node.op == "placeholder"]
    constants = {
        node.name: _attribute(module, str(node.target)).detach().cpu().numpy()
        for node in module.graph.nodes
        if node.op == "get_attr"
    }
    _unpack(module.graph)
    note = "torch.export cannot trace this model: its graph is that of one execution, compared with the model on other data"
    return Traced(
        module.graph,
        dict(zip(places, tensors, strict=False)),
        constants,
        tuple(places[len(tensors) :]),
        (note, *notes_of(reads)),
    )


def _unpack(graph: Graph) -> None:
    """A graph that returns one list returns what is in it."""
    for node in graph.nodes:
        if node.op == "output" and isinstance(node.args[0], Node):
            node.args = ((node.args[0],),)


@contextmanager
def _modules_noted(model: torch.nn.Module) -> Iterator[None]:
    """Inside, operations that are noted say which module calls them, as those of the exporter do."""
    handles = []
    for path, module in model.named_modules():

        def enter(inner: torch.nn.Module, _: object, path: str = path) -> None:
            if (mode := get_proxy_mode()) is not None:
                mode.tracer.module_stack[f"{path}@{len(mode.tracer.module_stack)}"] = (path, type(inner))

        def leave(*_: object) -> None:
            if (mode := get_proxy_mode()) is not None and mode.tracer.module_stack:
                mode.tracer.module_stack.popitem()

        handles += [module.register_forward_pre_hook(enter), module.register_forward_hook(leave)]
    try:
        yield
    finally:
        for handle in handles:
            handle.remove()


@contextmanager
def _standing(model: torch.nn.Module, tensors: Mapping[str, torch.Tensor]) -> Iterator[None]:
    """Inside, other tensors stand in the places of a module's parameters and buffers."""
    names = {id(tensor): name for name, tensor in (*model.named_parameters(), *model.named_buffers())}
    # A parameter's place takes no plain tensor by the usual way.
    stores: list[dict[str, Any]] = []
    for module in model.modules():
        stores += [vars(module)["_parameters"], vars(module)["_buffers"]]
    places = [(store, name, held) for store in stores for name, held in store.items() if id(held) in names]
    for store, name, held in places:
        store[name] = tensors[names[id(held)]]
    try:
        yield
    finally:
        for store, name, held in places:
            store[name] = held


def _attribute(module: GraphModule, path: str) -> torch.Tensor:
    found: Any = module
    for word in path.split("."):
        found = getattr(found, word)
    assert isinstance(found, torch.Tensor)
    return found


def _is_the_function(
    graph: Callable[..., Sequence[torch.Tensor]],
    function: Callable[..., Sequence[torch.Tensor]],
    values: Sequence[torch.Tensor],
    native: Sequence[torch.Tensor],
) -> bool:
    """Whether a graph computes with other data and weights what the model computes; what the model refuses tells nothing."""
    asked = 0
    for inputs, held in _others(native, values):
        expected = _answer(function, held, inputs)
        if expected is None:
            continue
        received = graph(held, *inputs)
        asked += 1
        for one, two in zip(expected, received, strict=True):
            if one.shape != two.shape or not torch.allclose(one, two, _CLOSE, _CLOSE, equal_nan=True):
                return False
    return asked > 0


def _answer(
    function: Callable[..., Sequence[torch.Tensor]],
    held: Sequence[torch.Tensor],
    inputs: Sequence[torch.Tensor],
) -> Sequence[torch.Tensor] | None:
    try:
        return function(held, *inputs)
    except Exception:  # noqa: BLE001  a model may raise anything
        return None


def _others(
    native: Sequence[torch.Tensor], values: Sequence[torch.Tensor]
) -> Iterator[tuple[list[torch.Tensor], list[torch.Tensor]]]:
    """Data like the example, and weights: other numbers of any sign and size, other ends, one value everywhere; whole numbers as the example has them."""
    for seed in range(_DRAWS):
        generator = np.random.default_rng(seed)
        inputs = [torch.from_numpy(_drawn(tensor.numpy(), generator)) for tensor in native]
        yield inputs, list(values)
        drawn = [generator.standard_normal(tensor.shape) * 0.7 for tensor in values]
        yield (
            inputs,
            [
                torch.from_numpy(np.asarray(array, np.float32)) if tensor.dtype == torch.float32 else tensor
                for array, tensor in zip(drawn, values, strict=True)
            ],
        )
    yield [torch.full_like(tensor, tensor.flatten()[0].item()) for tensor in native], list(values)
    yield [-tensor if tensor.is_floating_point() else tensor for tensor in native], list(values)


def _drawn(array: Array, generator: np.random.Generator) -> Array:
    if array.dtype.kind == "f":
        size, middle = generator.choice([0.1, 1.0, 5.0]), generator.choice([-1.0, 0.0, 1.0])
        numbers: Array = (size * generator.standard_normal(array.shape) + middle).astype(array.dtype)
        return numbers
    # The same values in other places, of each example its own: ends stay ends where they are tails.
    drawn: Array = generator.choice(array.reshape(-1), array.shape)
    if array.ndim > 1 and (array == 0).any():
        lengths = generator.integers(1, array.shape[1] + 1, array.shape[0])
        tails = np.arange(array.shape[1])[None] >= lengths[:, None]
        whole = array[array != 0]
        drawn = generator.choice(whole if whole.size else array.reshape(-1), array.shape)
        drawn = np.where(tails.reshape(*tails.shape, *(1 for _ in array.shape[2:])), 0, drawn)
    made: Array = drawn.astype(array.dtype)
    return made
