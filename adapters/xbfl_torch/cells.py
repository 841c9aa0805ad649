"""Cells of recurrent layers, one step at a time: they are their dense layers and gates."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from torch.fx import Node

from xbackend_fl.canonical import GraphBuilder, Value, views
from xbackend_fl.canonical.graph.operands import Operand, as_value, combine
from xbackend_fl.canonical.layout import Layout, Sum
from xbfl_torch.graph import Context, Handler, layout_of, parameter


class _Cell:
    """The dense layers of one step; gate ``i`` has a block of their rows."""

    def __init__(self, context: Context, node: Node, gates: int) -> None:
        a = context.arguments(node)
        self.builder: GraphBuilder = context.builder
        self.name = context.name(node, a["w_ih"])
        self._gates = gates
        self._input = context.data(a["input"])
        self._weights = parameter(a["w_ih"], self.name), parameter(a["w_hh"], self.name)
        self._biases = layout_of(a["b_ih"], self.name), layout_of(a["b_hh"], self.name)
        states = a["hx"] if isinstance(a["hx"], list | tuple) else [a["hx"]]
        self.states: list[Operand] = list(states)

    def gate(self, number: int, function: str, *, summed: bool = True) -> Value:
        """A gate of input and state. Its two biases are one (``summed``) where a layer of the kind has one."""
        biases = self.biases(number)
        given = [bias for bias in biases if bias is not None]
        if given and summed:
            biases = [Sum(tuple(given)), None]
        total = self.add(self.project_input(number, biases[0]), self.project_state(number, biases[1]))
        return self.apply(function, total)

    def project_input(self, number: int, bias: Layout | None) -> Value:
        """The part of a gate that reads the input."""
        return self._dense(self._input, self._weights[0], number, bias)

    def project_state(self, number: int, bias: Layout | None) -> Value:
        """The part of a gate that reads the state."""
        return self._dense(as_value(self.builder, self.states[0]), self._weights[1], number, bias)

    def biases(self, number: int) -> list[Layout | None]:
        """Both biases of a gate."""
        return [None if bias is None else self._rows(bias, number) for bias in self._biases]

    def add(self, one: Operand, two: Operand) -> Value:
        """A sum; zeros add nothing."""
        return as_value(self.builder, combine(self.builder, "Add", self.name, one, two))

    def multiply(self, one: Operand, two: Operand) -> Operand:
        """A product; with zeros it is zeros."""
        return combine(self.builder, "Mul", self.name, one, two)

    def apply(self, function: str, value: Value) -> Value:
        """A function of every element."""
        return self.builder.elementwise(function, f"{self.name}.{function.lower()}", value)

    def _dense(self, value: Value, weight: Layout, number: int, bias: Layout | None) -> Value:
        return self.builder.linear(f"{self.name}[{number}]", value, self._rows(weight, number), bias)

    def _rows(self, layout: Layout, number: int) -> Layout:
        rows = layout.shape[0] // self._gates
        return views.slice_axis(layout, 0, number * rows, (number + 1) * rows)


def _lstm(context: Context, node: Node) -> Sequence[Value]:
    cell = _Cell(context, node, 4)
    i, f, g, o = (
        cell.gate(number, function)
        for number, function in enumerate(("Sigmoid", "Sigmoid", "Tanh", "Sigmoid"))
    )
    memory = cell.add(cell.multiply(f, cell.states[1]), cell.multiply(i, g))
    return as_value(cell.builder, cell.multiply(o, cell.apply("Tanh", memory))), memory


def _gru(context: Context, node: Node) -> Value:
    cell = _Cell(context, node, 3)
    reset, update = (cell.gate(number, "Sigmoid", summed=False) for number in (0, 1))
    of_input, of_state = cell.biases(2)
    gated = cell.multiply(reset, cell.project_state(2, of_state))
    new = cell.apply("Tanh", cell.add(cell.project_input(2, of_input), gated))
    rest = cell.builder.elementwise("Mul", cell.name, update, constant=-1.0)
    kept = cell.builder.elementwise("Add", cell.name, rest, constant=1.0)
    return cell.add(cell.multiply(kept, new), cell.multiply(update, cell.states[0]))


def _rnn(function: str) -> Handler:
    def handle(context: Context, node: Node) -> Any:
        return _Cell(context, node, 1).gate(0, function)

    return handle


HANDLERS: Mapping[str, Handler] = {
    "lstm_cell": _lstm,
    "gru_cell": _gru,
    "rnn_tanh_cell": _rnn("Tanh"),
    "rnn_relu_cell": _rnn("Relu"),
}
"""Names of operations, without their overloads, to their handlers."""
