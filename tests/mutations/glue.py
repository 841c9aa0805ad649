"""Mutants of what lies between the layers: one change to the graph of a PyTorch model, drawn from its own operations.

Nothing is picked by hand: every number, axis, word, order of operands, constant and operation that an exported graph has is a place for
a fault, and a mutant is what still runs and gives outputs of the same shapes.
"""

from __future__ import annotations

import copy
import inspect
import random
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from itertools import islice
from typing import Any

import torch
from torch import Tensor, fx, nn

_ALIKE = (
    ("relu", "sigmoid", "tanh", "gelu", "silu", "softplus", "abs", "sin", "cos", "exp", "neg", "leaky_relu", "elu"),
    ("add", "sub", "mul", "div"),
    ("lt", "le", "gt", "ge", "eq", "ne"),
    ("maximum", "minimum"),
    ("amax", "amin", "mean", "sum"),
    ("softmax", "log_softmax"),
    ("logical_and", "logical_or"),
    ("bitwise_and", "bitwise_or"),
    ("triu", "tril"),
)  # fmt: skip
"""Operations that people take for each other."""

_WORDS = (("none", "tanh"), ("reflect", "replicate", "constant"), ("nearest", "bilinear"))


@dataclass(frozen=True)
class Mutant:
    """A changed copy of a graph.

    Attributes:
        what: The operation, and what is written otherwise.
        model: The changed model, in evaluation.
    """

    what: str
    model: nn.Module


def exported(model: nn.Module, example: Sequence[Any]) -> fx.GraphModule:
    """A model's graph in evaluation, with its parameters under their own names."""
    tensors = tuple(torch.from_numpy(array) for array in example)
    with torch.no_grad():
        batch = tuple({0: torch.export.Dim.AUTO} if tensor.ndim else None for tensor in tensors)
        found = torch.export.export(model.eval(), tensors, dynamic_shapes=_by_input(model, batch)).module()
    assert isinstance(found, fx.GraphModule)
    for node in [node for node in found.graph.nodes if node.op == "call_module"]:
        # Checks of the example's sizes.
        found.graph.erase_node(node)
    for node in found.graph.nodes:
        if node.target is torch.ops.aten.embedding.default:
            # A padding row is a matter of training, and a function of it has no form.
            node.args = node.args[:2]
    with torch.no_grad():
        single = isinstance(model(*tensors), Tensor)
    # Plain arguments, and outputs by place; and an exported module refuses to change its mode, a module of the same graph does not.
    graph = fx.Graph()
    copied = graph.graph_copy(found.graph, {})
    graph.output(copied[0] if single else tuple(copied))
    return fx.GraphModule(found, graph)


def _by_input(model: nn.Module, batch: tuple[object, ...]) -> object:
    """Free axes as the exporter wants them: inputs of ``*args`` are one."""
    kinds = [item.kind.name for item in inspect.signature(model.forward).parameters.values()]
    return (batch,) if kinds == ["VAR_POSITIONAL"] else batch


def mutants(graph: fx.GraphModule, seed: int, most: int, example: Sequence[Any]) -> Iterator[Mutant]:
    """At most so many mutants, drawn by ``seed``, each of another change; what cannot run is left out.

    Args:
        graph: From :func:`exported`.
        seed: Draws the changes.
        most: How many.
        example: One array per input.
    """
    tensors = tuple(torch.from_numpy(array) for array in example)
    changes = [
        (index, what, change)
        for index, node in enumerate(graph.graph.nodes)
        for what, change in _changes(graph, node)
    ]
    random.Random(seed).shuffle(changes)
    yield from islice(_running(graph, changes, tensors), most)


_Change = Callable[[fx.GraphModule, fx.Node], None]


def _running(
    graph: fx.GraphModule, changes: Sequence[tuple[int, str, _Change]], tensors: tuple[Tensor, ...]
) -> Iterator[Mutant]:
    wanted = shapes(graph, tensors)
    for index, what, change in changes:
        twin = copy.deepcopy(graph)
        node = list(twin.graph.nodes)[index]
        change(twin, node)
        try:
            twin.graph.lint()
            twin.recompile()
            if shapes(twin, tensors) == wanted:
                yield Mutant(f"{node.name}: {what}", plain(twin))
        except Exception:  # noqa: BLE001 -- most changes make a graph that cannot run, for any reason
            continue


def plain(graph: fx.GraphModule) -> nn.Module:
    """A graph as a person's module would be: its forward is the graph's, its parameters are the same tensors."""
    made = type("Mutated", (nn.Module,), {"forward": type(graph).forward})()
    for part in ("_parameters", "_buffers", "_non_persistent_buffers_set", "_modules"):
        setattr(made, part, getattr(graph, part))
    return made


def shapes(model: nn.Module, tensors: tuple[Tensor, ...]) -> list[tuple[int, ...]]:
    """The shapes of all outputs."""
    with torch.no_grad():
        return [tuple(value.shape) for value in torch.utils._pytree.tree_leaves(model(*tensors))]


def _changes(graph: fx.GraphModule, node: fx.Node) -> Iterator[tuple[str, _Change]]:
    if node.op == "get_attr":
        yield from _constants(graph, node)
    if node.op != "call_function":
        return
    for place, value in enumerate(node.args):
        for what, other in _values(value):
            yield f"argument {place} is {what}", _argument(place, other)
    for name, value in node.kwargs.items():
        for what, other in _values(value):
            yield f"{name} is {what}", _keyword(name, other)
    reads = [value for value in node.args if isinstance(value, fx.Node)]
    if len(reads) == 2 and len(set(reads)) == 2:
        yield "operands trade places", _exchanged
    for name in _others(node):
        yield f"{name} in its place", _called(name)
    for place, value in enumerate(node.args):
        if isinstance(value, fx.Node):
            yield f"argument {place} alone", _dropped(place)
            yield from _rewired(node, place, value)


def _values(value: Any) -> Iterator[tuple[str, Any]]:
    """Other values of the same kind."""
    if isinstance(value, bool):
        yield str(not value), not value
    elif isinstance(value, int):
        yield from ((str(other), other) for other in (value + 1, value - 1, -value - 1))
    elif isinstance(value, float):
        yield from ((f"{other:g}", other) for other in (value * 2, value / 2, value + 1, -value))
    elif isinstance(value, str):
        yield from ((other, other) for words in _WORDS if value in words for other in words if other != value)
    elif isinstance(value, list | tuple) and len(value) > 1 and all(isinstance(n, int) for n in value):
        for place in range(len(value) - 1):
            turned = [*value]
            turned[place], turned[place + 1] = turned[place + 1], turned[place]
            if turned != [*value]:
                yield str(turned), turned
    elif isinstance(value, list | tuple) and len(value) == 1 and isinstance(value[0], int):
        yield from ((str([other]), [other]) for other in (value[0] + 1, value[0] - 1))
    elif isinstance(value, list | tuple) and len(value) > 1 and all(isinstance(n, fx.Node) for n in value):
        yield "turned round", list(value)[::-1]


def _constants(graph: fx.GraphModule, node: fx.Node) -> Iterator[tuple[str, _Change]]:
    held = _attribute(graph, str(node.target))
    if not isinstance(held, Tensor) or isinstance(held, nn.Parameter) or held.numel() < 2:
        return
    yield "moved by one", _held(lambda value: value.roll(1, -1))
    yield "turned round", _held(lambda value: value.flip(-1))
    if held.is_floating_point():
        yield "a tenth larger", _held(lambda value: value * 1.1)
    if held.dtype is torch.bool:
        yield "negated", _held(lambda value: ~value)


def _attribute(graph: fx.GraphModule, target: str) -> object:
    found: object = graph
    for part in target.split("."):
        found = getattr(found, part)
    return found


def _held(change: Callable[[Tensor], Tensor]) -> _Change:
    def apply(graph: fx.GraphModule, node: fx.Node) -> None:
        value = _attribute(graph, str(node.target))
        assert isinstance(value, Tensor)
        value.data = change(value.data)

    return apply


def _argument(place: int, value: Any) -> _Change:
    def apply(_: fx.GraphModule, node: fx.Node) -> None:
        node.update_arg(place, _here(node, value))

    return apply


def _keyword(name: str, value: Any) -> _Change:
    def apply(_: fx.GraphModule, node: fx.Node) -> None:
        node.update_kwarg(name, _here(node, value))

    return apply


def _here(node: fx.Node, value: Any) -> Any:
    """Nodes of the graph that was copied, as they are called in the copy."""
    if isinstance(value, list | tuple):
        return type(value)(_here(node, one) for one in value)
    if isinstance(value, fx.Node):
        return next(other for other in node.graph.nodes if other.name == value.name)
    return value


def _exchanged(_: fx.GraphModule, node: fx.Node) -> None:
    places = [place for place, value in enumerate(node.args) if isinstance(value, fx.Node)]
    one, two = (node.args[place] for place in places)
    node.update_arg(places[0], two)
    node.update_arg(places[1], one)


def _dropped(place: int) -> _Change:
    def apply(_: fx.GraphModule, node: fx.Node) -> None:
        value = node.args[place]
        assert isinstance(value, fx.Node)
        node.replace_all_uses_with(value)
        node.graph.erase_node(node)

    return apply


def _rewired(node: fx.Node, place: int, value: fx.Node) -> Iterator[tuple[str, _Change]]:
    """Other values of the same shape and kind that are there already."""
    kind = _kind(value)
    if kind is None:
        return
    for other in node.graph.nodes:
        if other is node:
            return
        if other is not value and other not in node.args and _kind(other) == kind:
            yield f"argument {place} is {other.name}", _argument(place, other)


def _kind(node: fx.Node) -> object:
    value = node.meta.get("val")
    return (tuple(value.shape), value.dtype) if isinstance(value, Tensor) else None


def _others(node: fx.Node) -> Iterator[str]:
    name = _name(node)
    for group in _ALIKE:
        if name in group:
            yield from (other for other in group if other != name)


def _name(node: fx.Node) -> str:
    """``add`` of ``aten.add.Tensor``, also in place."""
    target = node.target
    return (
        target._schema.name.partition("::")[2].rstrip("_")
        if isinstance(target, torch._ops.OpOverload)
        else ""
    )


def _called(name: str) -> _Change:
    def apply(_: fx.GraphModule, node: fx.Node) -> None:
        packet = getattr(torch.ops.aten, name)
        target = node.target
        assert isinstance(target, torch._ops.OpOverload)
        overloads = packet.overloads()
        same = target._overloadname
        chosen = same if same in overloads else "dim" if "dim" in overloads else overloads[0]
        node.target = getattr(packet, chosen)

    return apply
