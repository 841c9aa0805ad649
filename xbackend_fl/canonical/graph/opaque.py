"""Operations without a canonical form: they are recorded as what they are, and what they compute is left to the numbers.

An opaque node says which framework's operation it is and what it reads. Values lie in it as they lie in that framework. A
parameter that it reads is a ``Parameter`` node of its own. Nothing but the framework itself can run it, so a model with
opaque nodes has no ONNX graph.
"""

from __future__ import annotations

import hashlib
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np

from xbackend_fl.canonical.graph.builder import GraphBuilder
from xbackend_fl.canonical.graph.expressions import ComputedParameter, Scaled
from xbackend_fl.canonical.graph.operands import LARGEST_CONSTANT, Operand, as_value
from xbackend_fl.canonical.layout import Shape, Step
from xbackend_fl.canonical.row import OPAQUE
from xbackend_fl.canonical.value import Value
from xbackend_fl.errors import UnsupportedError, XbflError, shortened


@dataclass(frozen=True)
class Operation:
    """An operation of a framework.

    Attributes:
        framework: Name of the backend.
        name: The framework's own name of the operation.
        arguments: Positional arguments, nested as they are; operands among them are what the node reads.
        options: Keyword arguments.
    """

    framework: str
    name: str
    arguments: Sequence[Any]
    options: dict[str, Any] = field(default_factory=dict)


def may_stand(builder: GraphBuilder, where: str, error: Exception) -> bool:
    """Whether an operation may stand as it is after reading it ended in ``error``.

    A form that is not known may, and so may one at which a reader stumbles, which is noted; any other refusal is final.
    """
    if isinstance(error, XbflError):
        return isinstance(error, UnsupportedError)
    builder.recorder.notes.append(
        f"{where!r} stands as it is, because reading it failed: {type(error).__name__}: {shortened(error)}"
    )
    return True


def opaque(
    builder: GraphBuilder, where: str, operation: Operation, outputs: Sequence[tuple[Shape, str]]
) -> list[Value]:
    """Record an operation that has no canonical form.

    Args:
        builder: Receives the node.
        where: Wanted name of the node.
        operation: What is done.
        outputs: Native shape and dtype of everything it yields.

    Returns:
        What it yields, axes in native order.

    Raises:
        UnsupportedError: An operand cannot be data.
    """
    operands = list(_operands([*operation.arguments, *operation.options.values()]))
    reads = [builder.plain(as_value(builder, item)) for item in operands]
    words = [_word(item) for item in operation.arguments]
    words += [f"{key}={_word(item)}" for key, item in operation.options.items()]
    names = builder.add(
        OPAQUE,
        where,
        reads,
        [shape for shape, _ in outputs],
        attributes={
            "framework": operation.framework,
            "operation": operation.name,
            "detail": ", ".join(words),
            "dtype": outputs[0][1],
        },
    )
    return [
        Value(name, shape, tuple(range(len(shape)))) for name, (shape, _) in zip(names, outputs, strict=True)
    ]


def _operands(items: Sequence[Any]) -> Iterator[Operand]:
    for item in items:
        if isinstance(item, list | tuple):
            yield from _operands(item)
        elif _is_operand(item):
            yield item


def _is_operand(item: object) -> bool:
    if isinstance(item, np.ndarray):
        return item.size <= LARGEST_CONSTANT and item.dtype.kind in "fiub"
    return isinstance(item, Value | Step | ComputedParameter | Scaled)


def _word(item: Any) -> str:
    if isinstance(item, list | tuple):
        return f"[{', '.join(map(_word, item))}]"
    if _is_operand(item):
        return "_"
    if isinstance(item, np.ndarray):
        return f"{item.dtype}{list(item.shape)}:{hashlib.sha256(np.ascontiguousarray(item).tobytes()).hexdigest()[:16]}"
    return str(item)
