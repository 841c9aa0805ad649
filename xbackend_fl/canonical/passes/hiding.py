"""Masks in front of a softmax: any number that leaves nothing of a score is the same mask, added or filled in.

Models add ``(1 - mask) · -10000``, the least float32 or minus infinity, choose by ``where`` or fill in place; behind a softmax
all of these are zero. Here it is one ``CausalMask``, if the future is hidden, and one ``Masked`` with everything else.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace

import numpy as np

from xbackend_fl.canonical.draft import Draft, Graph
from xbackend_fl.canonical.passes.edit import Edit
from xbackend_fl.canonical.passes.truths import two_valued

HIDES = -1e4
"""A number that, added to scores, leaves nothing of them behind a softmax; so does every smaller one."""

_FILL = -1e9


def hide_before_softmax(graph: Graph) -> tuple[Draft, ...]:
    """One mask in front of every softmax, and none behind that hides nothing more."""
    edit = Edit(graph)
    seen: dict[str, _Scores] = {}
    for draft in graph.drafts:
        if draft.operator in {"Softmax", "LogSoftmax"}:
            scores = _Scores(edit, draft)
            edit.keep(replace(draft, inputs=(scores.masked(),)))
            seen |= {draft.outputs[0]: scores} if draft.operator == "Softmax" else {}
        elif (weights := _hidden_again(edit, draft, seen)) is not None:
            edit.keep(edit.renamed(draft, weights))
        else:
            edit.keep(draft)
    return tuple(edit.drafts)


def _hidden_again(edit: Edit, draft: Draft, seen: Mapping[str, _Scores]) -> str | None:
    """The weights of which ``draft`` sets to zero what is nothing already: all that a mask in front of the softmax hid."""
    if draft.operator != "Mul" or len(draft.inputs) != 2:
        return None
    for weights, shown in (draft.inputs, draft.inputs[::-1]):
        source, chain = edit.behind_moves(shown)
        cast = edit.producer(source)
        if weights in seen and cast is not None and cast.operator == "Cast":
            truth = cast.inputs[0]
            if edit.dtype(truth) == "bool" and seen[weights].hides(draft, edit.moved(draft, truth, chain)):
                return weights
    return None


class _Scores:
    """What a softmax reads, taken apart."""

    def __init__(self, edit: Edit, softmax: Draft) -> None:
        self._edit = edit
        self._softmax = softmax
        self._causal = False
        self._hidden: list[str] = []
        self._scales: list[Draft] = []

    def masked(self) -> str:
        """The scores behind one mask, or as they were if there was none."""
        value, edit, near = self._bare(self._softmax.inputs[0]), self._edit, self._softmax
        if not self._hidden and not self._causal:
            return near.inputs[0]
        shape = edit.shape(near.inputs[0])
        for scale in reversed(self._scales):
            value = edit.make(near, "Mul", [value], edit.shape(value), scale.attributes)
        if self._causal:
            value = edit.make(near, "CausalMask", [value], shape)
        if self._hidden:
            mask = self._hidden[0]
            if len(self._hidden) > 1:
                shapes = [edit.shape(item) for item in self._hidden]
                mask = edit.make(near, "Or", self._hidden, np.broadcast_shapes(*shapes))
            value = edit.make(near, "Masked", [value, mask], shape, {"value": _FILL})
        return value

    def hides(self, near: Draft, shown: str) -> bool:
        """Whether all is hidden that a truth value does not show."""
        other = _Scores(self._edit, near)
        other._hide(self._edit.negated(near, shown))
        return set(other._hidden) <= set(self._hidden) and other._causal <= self._causal

    def _bare(self, value: str) -> str:
        """The scores without masks; what hides is noted."""
        draft = self._edit.producer(value)
        if draft is None:
            return value
        match draft.operator:
            case "CausalMask":
                self._causal = True
                return self._bare(draft.inputs[0])
            case "Masked" if float(str(draft.attributes["value"])) <= HIDES:
                self._hide(draft.inputs[1])
                return self._bare(draft.inputs[0])
            case "Mul" if "constant" in draft.attributes and float(str(draft.attributes["constant"])) > 0:
                before = (len(self._hidden), self._causal)
                inner = self._bare(draft.inputs[0])
                if (len(self._hidden), self._causal) == before:
                    return value
                self._scales.append(draft)
                return inner
            case "Add" if len(draft.inputs) == 2:
                for scores, mask in (draft.inputs, draft.inputs[::-1]):
                    found = self._hiding(mask)
                    if found is not None:
                        for item in found:
                            self._hide(item)
                        return self._bare(scores)
        return value

    def _hide(self, mask: str) -> None:
        """Note a truth value that hides; one that hides the future alone is the causal mask."""
        source, chain = self._edit.behind_moves(mask)
        draft = self._edit.producer(source)
        if draft is not None and draft.operator == "Or":
            for item in draft.inputs:
                self._hide(self._edit.moved(self._softmax, item, chain))
        elif draft is not None and draft.operator == "Constant" and not any(_numbers(draft)):
            return
        elif draft is not None and draft.operator == "Constant" and _hides_future(draft):
            self._causal = True
        elif mask not in self._hidden:
            self._hidden.append(mask)

    def _hiding(self, value: str) -> list[str] | None:
        """Truth values that hide where ``value`` is added; ``None`` if it does more than to hide."""
        edit, near = self._edit, self._softmax
        source, chain = edit.behind_moves(value)
        draft = edit.producer(source)
        if draft is None:
            return None
        if draft.operator == "Add" and len(draft.inputs) == 2:
            parts = [self._hiding(item) for item in draft.inputs]
            return None if None in parts else [edit.moved(near, m, chain) for p in parts for m in p or ()]
        if draft.operator == "Constant":
            return self._constant(draft, chain)
        found = two_valued(edit, value)
        if found is None or {found.false, found.true} & {0.0} != {0.0}:
            return None
        if max(found.false, found.true) > 0.0 or min(found.false, found.true) > HIDES:
            return None
        truth = edit.negated(near, found.truth) if found.false else found.truth
        return [edit.moved(near, truth, found.chain)]

    def _constant(self, draft: Draft, chain: list[Draft]) -> list[str] | None:
        numbers = np.asarray(draft.attributes["value"])
        hidden = numbers <= HIDES
        if not (hidden | (numbers == 0)).all():
            return None
        if not hidden.any():
            return []
        attributes = {**draft.attributes, "value": tuple(int(n) for n in hidden), "dtype": "bool"}
        made = self._edit.make(self._softmax, "Constant", [], draft.shape, attributes)
        return [self._edit.moved(self._softmax, made, chain)]


def _numbers(constant: Draft) -> tuple[object, ...]:
    numbers = constant.attributes["value"]
    assert isinstance(numbers, tuple)
    return numbers


def _hides_future(constant: Draft) -> bool:
    shape = constant.shape
    if len(shape) < 2:
        return False
    hidden = np.asarray(_numbers(constant), bool).reshape((-1, *shape[-2:]))
    return bool((hidden == ~np.tril(np.ones(shape[-2:], bool))).all())
