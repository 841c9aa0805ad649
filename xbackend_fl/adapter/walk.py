"""What every adapter needs while it walks a native graph: what its values stand for, functions of them by one name, tables of handlers.

A *function* is told a builder, the name of its node and operands. An adapter makes a handler of it, which knows where in a native call
the operands are.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from typing import Generic, TypeAlias, TypeVar

from xbackend_fl.adapter.axes import Declared
from xbackend_fl.adapter.blame import explained
from xbackend_fl.adapter.outputs import require_float32
from xbackend_fl.canonical import GraphBuilder, Value
from xbackend_fl.canonical.graph import activations, logic, operands
from xbackend_fl.canonical.graph.opaque import may_stand
from xbackend_fl.canonical.graph.operands import Operand
from xbackend_fl.canonical.node import AttributeValue
from xbackend_fl.canonical.operators import functions
from xbackend_fl.errors import UnsupportedError
from xbackend_fl.places import Frames, users_place

Function: TypeAlias = Callable[..., Operand]
"""What a builder, a name and operands make."""

NAMED_FUNCTIONS = tuple(row.name for row in functions.OPERATORS)
"""Operators of one value that mathematics names, and every framework after it."""

Key = TypeVar("Key")
Item = TypeVar("Item")
Made = TypeVar("Made")
Handler = TypeVar("Handler")


class Walk(Generic[Key, Item]):
    """State of one walk.

    Attributes:
        builder: Receives the nodes.
        values: What each value of the native graph stands for.
    """

    def __init__(self, builder: GraphBuilder) -> None:
        self.builder = builder
        self.values: dict[Key, Item] = {}

    def data(self, operand: Operand) -> Value:
        """An operand as data; a parameter or constant becomes a node that yields it."""
        return operands.as_value(self.builder, operand)

    @contextmanager
    def reading(
        self, what: str, frames: Callable[[], Frames] = tuple, model: object = None
    ) -> Iterator[None]:
        """Nodes of the block come from the user's line that ``frames`` know, and so does what it raises.

        Raises:
            UnsupportedError: The block raised something that nobody foresaw.
        """
        self.builder.recorder.location = users_place(frames())
        with explained(f"reading {what}", model, frames):
            yield

    def attempt(
        self, where: Callable[[], str], read: Callable[[], Made], final: Callable[[], bool] = bool
    ) -> Made | None:
        """What reading an operation makes; ``None`` if it failed and the operation may stand as it is.

        Args:
            where: Node name of the operation.
            read: Makes it.
            final: Whether any failure is a refusal.
        """
        try:
            return read()
        except Exception as error:
            if final() or not may_stand(self.builder, where(), error):
                raise
            return None

    def output(self, index: int, key: str, operand: Operand, dtype: str, declared: Declared) -> None:
        """Say that the model returns an operand.

        Args:
            index: Its place among the outputs.
            key: Its key; empty where it has none.
            operand: What it is.
            dtype: Its native dtype, as NumPy names it.
            declared: What the user says about the order of axes.

        Raises:
            UnsupportedError: It is not float32.
        """
        require_float32(dtype, key or str(index))
        value = self.data(operand)
        self.builder.output(value, key, declared.output(index, len(value.shape)))


def require(what: str, condition: bool, where: str, reason: str, cure: str | None = None) -> None:  # noqa: FBT001  reads as an assertion
    """Refuse ``where`` for ``reason`` unless ``condition`` holds; ``what`` says in the framework's words what it is."""
    if not condition:
        raise UnsupportedError(f"{what} {where!r}: {reason}", hint=cure)


def table(*families: Mapping[str, Handler]) -> dict[str, Handler]:
    """The handlers of several files, each for operations of its own."""
    found = {name: handler for family in families for name, handler in family.items()}
    assert len(found) == sum(map(len, families)), "two files handle one operation"
    return found


def handler_of(handlers: Mapping[str, Handler], kind: str, what: str) -> Handler:
    """The handler of an operation.

    Raises:
        UnsupportedError: There is none; ``what`` says which operation it is.
    """
    if kind not in handlers:
        raise UnsupportedError(
            f"{what} has no canonical form",
            hint="express it with the operators that `xbfl adapters --operators` lists",
        )
    return handlers[kind]


def unary(operator: str, **attributes: AttributeValue) -> Function:
    """An operation on every element of one operand."""
    return lambda builder, name, operand: operands.unary(builder, operator, name, operand, **attributes)


def binary(operator: str) -> Function:
    """An operation on the elements of two operands; of more, from the left."""

    def made(builder: GraphBuilder, name: str, total: Operand, *rest: Operand) -> Operand:
        for operand in rest:
            total = operands.combine(builder, operator, name, total, operand)
        return total

    return made


def activation(word: str) -> Function:
    """An activation without arguments."""
    plain = activations.PLAIN[word]
    return lambda builder, name, operand: plain(builder, name, operands.as_value(builder, operand))


def along(operator: str, axis: int) -> Function:
    """An operation along one axis."""
    return lambda builder, name, operand: builder.along(
        operator, name, operands.as_value(builder, operand), axis
    )


def compare(word: str) -> Function:
    """A comparison: ``eq``, ``ne``, ``lt``, ``le``, ``gt`` or ``ge``."""
    return lambda builder, name, left, right: logic.compare(builder, word, name, left, right)


def logical(operator: str) -> Function:
    """``And``, ``Or`` or ``Xor`` of two truth values."""
    return lambda builder, name, left, right: logic.logical(builder, operator, name, left, right)
