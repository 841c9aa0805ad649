"""Refuses a graph in which the data decide what is computed: a condition, or a loop whose length the data say."""

from __future__ import annotations

from collections.abc import Collection, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from tensorflow.core.framework.function_pb2 import FunctionDef
from tensorflow.python.framework.function_def_to_graph import function_def_to_graph

from xbackend_fl.errors import UnsupportedError
from xbackend_fl.places import users_place
from xbfl_tensorflow.trace import Call, Trace, needed, steps

_CONDITIONS = frozenset({"If", "StatelessIf", "Case", "StatelessCase"})
_LOOPS = frozenset({"While", "StatelessWhile"})
_CALLS = frozenset({"PartitionedCall", "StatefulPartitionedCall"})
_PYTHON = frozenset({"PyFunc", "PyFuncStateless", "EagerPyFunc"})
_GIVEN = frozenset({"Placeholder", "VarHandleOp", "ReadVariableOp"})
_SIZES = frozenset(
    {"Shape", "ShapeN", "Size", "Rank", "ZerosLike", "OnesLike", "TensorListLength", "TensorListElementShape"}
)
"""Operations whose values do not depend on those that they are given; a list of tensors is as long as the loop that fills it."""

_SIZING = frozenset(
    {"Where", "Unique", "UniqueV2", "UniqueWithCounts", "UniqueWithCountsV2", "DynamicPartition", "Range"}
)
"""Operations that yield as much as the data say."""


@dataclass
class _Walk:
    """What is known while the functions of one graph are walked.

    Attributes:
        library: Functions by name.
        graphs: Those that were made graphs of.
        found: Operations at which the data decide, each with the operation of the outermost graph that it lies in.
    """

    library: Mapping[str, Any]
    graphs: dict[str, Any] = field(default_factory=dict)
    found: list[tuple[Any, Any]] = field(default_factory=list)

    def graph(self, name: str) -> Any:
        """The body of a function."""
        if name not in self.graphs:
            body = FunctionDef()
            body.CopyFrom(self.library[name])
            for node in body.node_def:
                node.attr.pop("_output_shapes", None)
            self.graphs[name] = function_def_to_graph(body)
        return self.graphs[name]


def refuse_decisions(traced: Trace, read: Collection[str]) -> list[Any]:
    """Refuse a graph in which the data decide what is computed.

    Args:
        traced: The graph; what marked calls do inside is Keras's own.
        read: Names of the operations that the outputs come from.

    Returns:
        Operations that choose by a constant.

    Raises:
        UnsupportedError: They do.
    """
    operations = [
        step for step in steps(traced.graph, traced.calls) if not isinstance(step, Call) and step.name in read
    ]
    if not any(item.type in _CONDITIONS | _LOOPS | _CALLS | _PYTHON for item in operations):
        return []
    walk = _Walk({item.signature.name: item for item in traced.graph.as_graph_def().library.function})
    marked = {item.name for item in traced.graph.get_operations()} - {item.name for item in operations}
    _follow(walk, traced.graph, {tensor.name for tensor in traced.inputs}, silent=marked)
    for inner, outer in walk.found:
        place = users_place(_frames(inner)) or users_place(_frames(outer))
        where = f"{f' (at {place})' if place else ''}: tensorflow operation {outer.name!r} ({inner.type})"
        if inner.type in _PYTHON:
            raise UnsupportedError(
                f"Python looks into the data{where} runs code that is in no graph, and so is what it decides",
                hint="write it with operations of TensorFlow, and choose by tf.where(condition, one, other)",
            )
        raise UnsupportedError(
            f"data-dependent control flow{where} runs what the values of the data say, and no probe finds where they say otherwise",
            hint="compute both sides and choose by tf.where(condition, one, other); run a loop a fixed number of times and mask what is over",
        )
    return [item for item in operations if item.type in _CONDITIONS and _is_constant(item.inputs[0])]


def _is_constant(tensor: Any) -> bool:
    """Whether a value comes from constants alone: a captured variable is a placeholder, too."""
    sources = needed([tensor])
    return all(tensor.graph.get_operation_by_name(name).type not in _GIVEN for name in sources)


def constant_choices(chosen: Sequence[Any]) -> Iterator[str]:
    """What people should know of operations that choose by what is constant in the graph: by a size, most likely."""
    lines = list(dict.fromkeys(users_place(_frames(item)) or repr(item.name) for item in chosen))
    if lines:
        more = f" and {len(lines) - 3} more" if len(lines) > 3 else ""
        yield (
            f"the model chooses by what is constant at the example's size (at {'; '.join(lines[:3])}{more}): the graph has the side of the "
            "example, and nothing is known of sizes for which it chooses otherwise"
        )


def _follow(
    walk: _Walk,
    graph: Any,
    data: set[str],
    outer: Any = None,
    silent: Collection[str] = (),
) -> set[str]:
    """The names of all tensors of a graph that depend on the data.

    Args:
        walk: Receives the operations at which the data decide.
        graph: The graph.
        data: Names of its inputs that do.
        outer: The operation of the outermost graph that this one belongs to.
        silent: Names of operations that may decide.
    """
    from_data, sized = set(data), set[str]()
    for operation in graph.get_operations():
        given = [tensor.name in from_data for tensor in operation.inputs]
        of_size = any(tensor.name in sized for tensor in operation.inputs)
        if not any(given) or (operation.type in _SIZES and not of_size):
            continue
        if of_size or outer is None or operation.type in _SIZING:
            # At the example every other size is known.
            sized |= {tensor.name for tensor in operation.outputs if not tensor.shape.is_fully_defined()}
        within = outer or operation
        told = [True] * len(operation.outputs)
        before = len(walk.found)
        if operation.type in _CONDITIONS:
            if given[0]:
                walk.found.append((operation, within))
            for name in _branches(operation):
                _results(walk, name, given[1:], within)
        elif operation.type in _LOOPS:
            told = _loop(walk, operation, given, within)
        elif operation.type in _CALLS:
            told = _results(walk, operation.get_attr("f").name, given, within)
        elif operation.type in _PYTHON:
            walk.found.append((operation, within))
        if operation.name in silent:
            del walk.found[before:]
        from_data |= {tensor.name for tensor, depends in zip(operation.outputs, told, strict=True) if depends}
    return from_data


def _branches(operation: Any) -> Iterator[str]:
    if operation.type in {"Case", "StatelessCase"}:
        yield from (function.name for function in operation.get_attr("branches"))
    else:
        yield from (operation.get_attr(word).name for word in ("then_branch", "else_branch"))


def _loop(walk: _Walk, operation: Any, given: list[bool], outer: Any) -> list[bool]:
    """Which of the variables of a loop depend on the data at its end."""
    depends, body = list(given), operation.get_attr("body").name
    while (
        after := [one or two for one, two in zip(depends, _results(walk, body, depends, outer), strict=True)]
    ) != depends:
        depends = after
    if _results(walk, operation.get_attr("cond").name, depends, outer)[0]:
        walk.found.append((operation, outer))
    return depends


def _results(walk: _Walk, name: str, given: list[bool], outer: Any) -> list[bool]:
    """Which results of a function depend on the data, if some of its arguments do."""
    graph = walk.graph(name)
    data = {tensor.name for tensor, depends in zip(graph.inputs, given, strict=True) if depends}
    read = needed(graph.outputs)
    from_data = _follow(walk, graph, data, outer, {item.name for item in graph.get_operations()} - read)
    return [tensor.name in from_data for tensor in graph.outputs]


def _frames(operation: Any) -> list[tuple[str, int]]:
    return [(str(frame.filename), int(frame.lineno or 0)) for frame in operation.traceback or ()]
