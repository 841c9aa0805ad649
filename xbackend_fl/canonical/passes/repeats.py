"""A constant that is written out for every example is one for all of them: the mask of a model that attends within windows."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from xbackend_fl.canonical.draft import Draft, Graph
from xbackend_fl.canonical.layout import Shape
from xbackend_fl.canonical.node import AttributeValue
from xbackend_fl.canonical.passes.edit import Edit, axes_of


def add_once_for_all(graph: Graph) -> tuple[Draft, ...]:
    """``x + c`` where ``c`` repeats p entries along the first axis of ``x`` is ``[-1, p, ...] + [p, ...]``, of any number of examples."""
    edit = Edit(graph)
    for draft in graph.drafts:
        made = _added(edit, draft) if draft.operator == "Add" and len(draft.inputs) == 2 else None
        edit.keep(draft if made is None else edit.renamed(draft, made))
    return tuple(edit.drafts)


def _added(edit: Edit, draft: Draft) -> str | None:
    shape = draft.shape
    for value, other in (draft.inputs, draft.inputs[::-1]):
        if edit.shape(value) != shape or len(shape) < 2:
            continue
        rows = _rows_once(edit, draft, other)
        if rows:
            return edit.make(draft, "Add", [value, rows], shape)
        rest, constant = _parts(edit, other)
        if constant is None or constant.ndim != len(shape) or constant.shape[0] != shape[0]:
            continue
        period = _period(constant)
        if period == len(constant):
            continue
        summand = edit.make(draft, "Add", [value, rest], shape) if rest else value
        once = _constant(edit, draft, constant[:period])
        if period == 1:
            return edit.make(draft, "Add", [summand, once], shape)
        apart = (-1, period, *shape[1:])
        split = edit.make(draft, "Reshape", [summand], (shape[0] // period, *apart[1:]), {"shape": apart})
        summed = edit.make(draft, "Add", [split, once], (shape[0] // period, *apart[1:]))
        return edit.make(draft, "Reshape", [summed], shape, {"shape": (-1, *shape[1:])})
    return None


def _rows_once(edit: Edit, near: Draft, value: str) -> str:
    """The rows of a table for one example, where constant places, the same for every example, pick them; empty otherwise."""
    shape, node = near.shape, edit.producer(value)
    gather = edit.producer(node.inputs[0]) if node is not None and node.operator == "Reshape" else node
    if gather is None or gather.operator != "Gather" or len(gather.inputs) != 1:
        return ""
    places = edit.producer(gather.inputs[0])
    own = edit.shape(value)
    if (
        places is None
        or places.operator != "Constant"
        or len(own) != len(shape)
        or own[0] != shape[0]
        or own[0] < 2
    ):
        return ""
    numbers = np.asarray(places.attributes["value"]).reshape(-1)
    each = len(numbers) // shape[0]
    if len(numbers) % shape[0] or not (numbers.reshape(shape[0], each) == numbers[:each]).all():
        return ""
    attributes = {**places.attributes, "value": tuple(numbers[:each].tolist()), "shape": (each,)}
    picked = edit.again(
        gather, [edit.make(near, "Constant", [], (each,), attributes)], (each, gather.shape[-1])
    )
    once = (1, *own[1:])
    return edit.make(near, "Reshape", [picked], once, {"shape": once})


def _parts(edit: Edit, value: str) -> tuple[str, NDArray[np.float32] | None]:
    """A constant, and what was added to it that has one entry for all examples; both in the order of axes that ``value`` has."""
    chain: list[Draft] = []
    node = edit.producer(value)
    while node is not None and node.operator == "Transpose":
        chain.append(node)
        node = edit.producer(node.inputs[0])
    if node is None:
        return "", None
    if node.operator == "Constant":
        return "", _turned(_array(node), chain)
    if node.operator != "Add" or len(node.inputs) != 2:
        return "", None
    for one, other in (node.inputs, node.inputs[::-1]):
        held = edit.producer(one)
        if held is not None and held.operator == "Constant" and len(held.shape) == len(node.shape):
            rest = edit.moved(node, other, chain)
            if len(edit.shape(other)) == len(node.shape) and edit.shape(rest)[0] == 1:
                return rest, _turned(_array(held), chain)
    return "", None


def _array(constant: Draft) -> NDArray[np.float32]:
    return np.asarray(constant.attributes["value"], np.float32).reshape(constant.shape)


def _turned(array: NDArray[np.float32], chain: list[Draft]) -> NDArray[np.float32]:
    for node in reversed(chain):
        if array.ndim != len(node.shape):
            return np.zeros(0, np.float32)
        array = array.transpose(axes_of(node))
    return array


def _period(array: NDArray[np.float32]) -> int:
    """The fewest entries of the first axis of which it is made, in turn."""
    length = len(array)
    for period in range(1, length // 2 + 1):
        if length % period == 0 and (array[period:] == array[:-period]).all():
            return period
    return length


def _constant(edit: Edit, near: Draft, array: NDArray[np.float32]) -> str:
    shape: Shape = array.shape
    attributes: dict[str, AttributeValue] = {
        "value": tuple(array.reshape(-1).tolist()),
        "shape": shape,
        "dtype": "float32",
    }
    return edit.make(near, "Constant", [], shape, attributes)
