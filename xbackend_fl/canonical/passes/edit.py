"""New nodes that a pass puts in front of those that it rewrites."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import final

import numpy as np

from xbackend_fl.canonical.draft import Draft, Graph, free_sizes
from xbackend_fl.canonical.dtypes import output_dtypes
from xbackend_fl.canonical.layout import Layout, Shape
from xbackend_fl.canonical.node import AttributeValue
from xbackend_fl.canonical.ops import has
from xbackend_fl.canonical.row import Property


@final
class Edit:
    """The nodes of one pass, in execution order.

    Args:
        graph: The graph that is rewritten.
    """

    def __init__(self, graph: Graph) -> None:
        self.graph = graph
        self.drafts: list[Draft] = []
        self._made: dict[object, str] = {}
        self._producers = dict(graph.producers)

    def producer(self, value: str) -> Draft | None:
        """The node that makes a value, after what was rewritten so far."""
        return self._producers.get(value)

    def keep(self, draft: Draft) -> None:
        """The next node of the new graph."""
        self.drafts.append(draft)
        self._producers |= dict.fromkeys(draft.outputs, draft)

    def shape(self, value: str) -> Shape:
        """Canonical shape of a value."""
        draft = self.producer(value)
        return self.graph.inputs[value][0] if draft is None else draft.shapes[draft.outputs.index(value)]

    def dtype(self, value: str) -> str:
        """NumPy dtype name of a value."""
        draft = self.producer(value)
        if draft is None:
            return self.graph.inputs[value][1]
        given = [self.dtype(item) for item in draft.inputs]
        made = output_dtypes(
            draft.operator, draft.attributes, given, len(draft.outputs), parametric=bool(draft.layouts)
        )
        return made[draft.outputs.index(value)]

    def make(
        self,
        near: Draft,
        operator: str,
        inputs: Sequence[str],
        shape: Shape,
        attributes: Mapping[str, AttributeValue] | None = None,
        layouts: Mapping[str, Layout] | None = None,
        name: str = "",
    ) -> str:
        """The value of a new node in front of ``near``; the same node is made once.

        Args:
            near: The node that it is made for.
            operator: Row of the operator table.
            inputs: Values that it reads.
            shape: Of what it makes.
            attributes: Its attributes.
            layouts: Its parameters.
            name: After what to call it; after ``near`` if left out.
        """
        given, held = dict(attributes or {}), dict(layouts or {})
        key = (
            operator,
            tuple(inputs),
            tuple(sorted(given.items(), key=str)),
            tuple(sorted(held.items(), key=str)),
        )
        if key not in self._made:
            made = self._unique(f"{name or near.name}.{operator.lower()}")
            self._made[key] = made
            self.keep(Draft(made, operator, tuple(inputs), (made,), held, given, near.origin, (shape,)))
        return self._made[key]

    def moved(self, near: Draft, value: str, chain: Sequence[Draft]) -> str:
        """``value`` after the nodes of ``chain``, the last one first, which only move values."""
        steps = [draft for draft in reversed(chain) if draft.operator != "Identity"]
        if not steps:
            return value
        lead = len(self.shape(steps[0].inputs[0])) - len(self.shape(value))
        source = self.producer(value)
        if source is not None and source.operator == "Constant" and all(map(self._turns, steps)):
            return self._turned(near, source, lead, steps)
        if lead > 0:
            # Broadcasting needs no leading ones; a node that moves axes counts them.
            shape = (*(1,) * lead, *self.shape(value))
            sizes = free_sizes(self.shape(value), shape)
            value = self.make(near, "Reshape", [value], shape, {"shape": sizes})
        for draft in steps:
            value = self._moved_once(near, value, draft)
        return value

    def _moved_once(self, near: Draft, value: str, step: Draft) -> str:
        """``value`` after one of those nodes; where it is broadcast to what the node moves, axes of one stay axes of one."""
        whole, own = self.shape(step.inputs[0]), self.shape(value)
        if whole != own and len(whole) == len(own):
            if step.operator == "Transpose":
                shape = tuple(own[axis] for axis in axes_of(step))
                return self.make(near, "Transpose", [value], shape, step.attributes)
            places = with_ones(whole, step.shape) if step.operator == "Reshape" else None
            if places is not None:
                shape = tuple(1 if place is None else own[place] for place in places)
                return self.make(near, "Reshape", [value], shape, {"shape": free_sizes(own, shape)})
        return self.make(near, step.operator, [value], step.shape, step.attributes)

    def _turns(self, step: Draft) -> bool:
        """Whether a node gives axes another order, or adds some of length one, and nothing else."""
        if step.operator == "Reshape":
            return with_ones(self.shape(step.inputs[0]), step.shape) is not None
        return step.operator == "Transpose"

    def _turned(self, near: Draft, constant: Draft, lead: int, steps: Sequence[Draft]) -> str:
        """A constant with its axes in another order, and new ones of length one."""
        array = np.asarray(constant.attributes["value"]).reshape((*(1,) * lead, *constant.shape))
        for draft in steps:
            if draft.operator == "Transpose":
                array = array.transpose(axes_of(draft))
                continue
            places = with_ones(self.shape(draft.inputs[0]), draft.shape)
            assert places is not None
            array = array.reshape([1 if place is None else array.shape[place] for place in places])
        keep = next((place for place, n in enumerate(array.shape) if n != 1), max(array.ndim - 1, 0))
        shape = array.shape[keep:]
        attributes = {**constant.attributes, "shape": shape, "value": tuple(array.reshape(-1).tolist())}
        return self.make(near, "Constant", [], shape, attributes)

    def behind_moves(self, value: str) -> tuple[str, list[Draft]]:
        """What a value is before nodes that only move values, and those nodes, the last one first."""
        chain: list[Draft] = []
        draft = self.producer(value)
        while draft is not None and _only_moves(draft.operator):
            chain.append(draft)
            value = draft.inputs[0]
            draft = self.producer(value)
        return value, chain

    def _unique(self, name: str) -> str:
        """``name``, or ``name@2`` and so on if there is one already: a graph may be read that was rewritten before."""
        found, count = name, 1
        while found in self._producers or found in self.graph.inputs:
            count += 1
            found = f"{name}@{count}"
        return found

    def negated(self, near: Draft, value: str) -> str:
        """What ``value`` is not: Not moves in front of And and Or, never stands twice, and turns constants."""
        source, chain = self.behind_moves(value)
        draft = self.producer(source)
        if draft is None:
            made = self.make(near, "Not", [source], self.shape(source))
        elif draft.operator == "Not":
            made = draft.inputs[0]
        elif draft.operator in _DUALS:
            parts = [self.negated(near, item) for item in draft.inputs]
            made = self.make(near, _DUALS[draft.operator], parts, draft.shape)
        elif draft.operator == "Constant":
            numbers = draft.attributes["value"]
            assert isinstance(numbers, tuple)
            opposite = {**draft.attributes, "value": tuple(int(not n) for n in numbers)}
            made = self.make(near, "Constant", [], draft.shape, opposite)
        else:
            made = self.make(near, "Not", [source], self.shape(source))
        return self.moved(near, made, chain)

    def again(self, draft: Draft, inputs: Sequence[str], shape: Shape) -> str:
        """The value of ``draft`` with other inputs, and with the parameters that it has."""
        name = self._unique(f"{draft.name}.once")
        self.keep(replace(draft, name=name, inputs=tuple(inputs), outputs=(name,), shapes=(shape,)))
        return name

    def renamed(self, draft: Draft, value: str) -> Draft:
        """``draft`` as a node that yields ``value`` as it is."""
        return replace(draft, operator="Identity", inputs=(value,), layouts={}, attributes={})


def axes_of(draft: Draft) -> tuple[int, ...]:
    """The order of axes of a Transpose."""
    perm = draft.attributes["perm"]
    assert isinstance(perm, tuple)
    return tuple(int(axis) for axis in perm)


def with_ones(source: Shape, target: Shape) -> list[int | None] | None:
    """For each axis of ``target`` the axis of ``source`` that it is, ``None`` for a new one of length one; ``None`` if it is no such reshape."""
    places: list[int | None] = []
    axis = 0
    for length in target:
        if axis < len(source) and source[axis] == length:
            places.append(axis)
            axis += 1
        elif length == 1:
            places.append(None)
        else:
            return None
    return places if axis == len(source) else None


_DUALS = {"And": "Or", "Or": "And"}


def _only_moves(operator: str) -> bool:
    return has(operator, Property.SHAPE_ONLY) and operator not in {"Cast", "Dropout"}
