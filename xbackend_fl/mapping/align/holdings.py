"""Ways to see what a model holds as parameters: cut where another model holds parts, and joined where it holds the whole.

A projection may be one matrix or one for each head, experts a stack or a list, scale and shift one table; and a graph shows it only
where its form is known. Each way is a guess, told by outputs under equal weights by shape; the proof has the last word.
"""

from __future__ import annotations

import math
from collections import Counter, defaultdict
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from itertools import accumulate, combinations, islice, product
from typing import TypeAlias

from xbackend_fl.canonical import OPERATORS, Binding, Node, Parameter, Schema, views
from xbackend_fl.canonical.layout import Join, Layout, Stack, Transpose, leaves
from xbackend_fl.errors import UnsupportedError
from xbackend_fl.mapping.align.recut import length_class

Class: TypeAlias = tuple[tuple[int, ...], str]
"""Ascending lengths of axes, and the kind: what a parameter is, whatever the order of its axes."""

_PARTS = 16
"""Most parts that a parameter is cut into."""

_CHOICES = 24
"""Most choices of which parameters of one class are cut or joined."""

_DEEP = 6
"""Most classes that are cut or joined, one after the other."""


@dataclass(frozen=True)
class _Holding:
    parameter: Parameter
    layout: Layout
    owner: Node

    def seen(self, label: str, layout: Layout) -> _Holding:
        """A part of it, or more than it, under a name of its own."""
        named = replace(self.parameter, name=f"{self.parameter.name}[{label}]", shape=layout.shape)
        return replace(self, parameter=named, layout=layout)


_Change: TypeAlias = list[tuple[tuple[_Holding, ...], list[_Holding]]]
"""What is taken away, and what stands there instead."""


def holdings(reference: Schema, own: Schema, binding: Binding) -> Iterator[tuple[Schema, Binding]]:
    """A candidate's schema and binding with its parameters cut or joined so that there are as many of each class as the reference has.

    As they are if there are.

    Args:
        reference: The reference's schema.
        own: The candidate's.
        binding: The candidate's own binding.
    """
    if reference.num_values != own.num_values:
        return
    owners: dict[str, Node] = {}
    for node in own.nodes:
        for name in node.parameters.values():
            owners.setdefault(name, node)
    held = [_Holding(p, binding.parameters[p.name], owners[p.name]) for p in own.parameters]
    wanted = Counter(map(length_class, reference.parameters))
    for found in _solved(held, wanted, 0):
        if found is held:
            yield own, binding
            continue
        names: dict[str, dict[str, str]] = defaultdict(dict)
        for item in found:
            roles, role = names[item.owner.name], item.parameter.role
            roles[role if role not in roles else f"{role}/{len(roles)}"] = item.parameter.name
        nodes = tuple(replace(node, parameters=names[node.name]) for node in own.nodes)
        yield (
            replace(own, nodes=nodes, parameters=tuple(item.parameter for item in found)),
            replace(binding, parameters={item.parameter.name: item.layout for item in found}),
        )


def _solved(held: list[_Holding], wanted: Counter[Class], depth: int) -> Iterator[list[_Holding]]:
    """Cut or join the parameters of the largest class that the reference has fewer of, and so on."""
    have = Counter(length_class(item.parameter) for item in held)
    over, lacks = have - wanted, wanted - have
    if not over:
        if not lacks:
            yield held
        return
    if depth == _DEEP:
        return
    largest = max(over, key=lambda item: (len(item[0]), math.prod(item[0])))
    members = [item for item in held if length_class(item.parameter) == largest]
    for some in islice(combinations(members, over[largest]), _CHOICES):
        for change in (*_cuts(some, held, lacks), *_joins(some, held, lacks)):
            made = Counter(length_class(item.parameter) for _, new in change for item in new)
            if made <= lacks:
                yield from _solved(_changed(held, change), wanted, depth + 1)


def _changed(held: Sequence[_Holding], change: _Change) -> list[_Holding]:
    """What is held after a change; what is new stands where the first of the old stood."""
    gone = {item.parameter.name for old, _ in change for item in old}
    first = {old[0].parameter.name: new for old, new in change}
    found: list[_Holding] = []
    for item in held:
        name = item.parameter.name
        found += first.get(name, []) if name in gone else [item]
    return found


def _bias(weight: _Holding, axis: int, held: Sequence[_Holding]) -> _Holding | None:
    """The bias that lies along the rows of a weight, if these are cut or joined."""
    if axis or weight.parameter.role != "weight" or not OPERATORS[weight.parameter.operator].features_first:
        return None
    name = weight.owner.parameters.get("bias")
    found = next((item for item in held if item.parameter.name == name), None)
    return found if found and found.parameter.shape == weight.parameter.shape[:1] else None


def _cuts(
    some: Sequence[_Holding], held: Sequence[_Holding], lacks: Mapping[Class, int]
) -> Iterator[_Change]:
    """All of some parameters cut in one way, their biases with them."""
    for axis, length in enumerate(some[0].parameter.shape):
        for sizes, strided in _ways(length, lacks):
            change: _Change = []
            for item in some:
                bias = _bias(item, axis, held)
                for one, place in ((item, axis), (bias, 0)):
                    pieces = None if one is None else _cut(one, place, sizes, strided=strided)
                    if one is not None:
                        change.append(((one,), pieces or []))
            if all(new for _, new in change):
                yield change


def _ways(length: int, lacks: Mapping[Class, int]) -> Iterator[tuple[tuple[int, ...], bool]]:
    """Lengths of the parts of an axis, and whether they alternate."""
    for count in range(2, _PARTS + 1):
        if length % count == 0:
            yield (length // count,) * count, False
            yield (length // count,) * count, True
    lengths = sorted({n for shape, _ in lacks for n in shape if n < length}, reverse=True)
    for count in (2, 3):
        for sizes in product(lengths, repeat=count):
            if sum(sizes) == length and len(set(sizes)) > 1:
                yield sizes, False


def _cut(item: _Holding, axis: int, sizes: Sequence[int], *, strided: bool) -> list[_Holding] | None:
    """The parts of a parameter along an axis; ``None`` if no layout says so."""
    layout, shape = item.layout, item.layout.shape
    if axis >= len(shape) or sum(sizes) != shape[axis]:
        return None
    try:
        if strided:
            apart = _apart(layout, axis, len(sizes))
            parts = [views.index(apart, axis + 1, place) for place in range(len(sizes))]
        else:
            ends = list(accumulate(sizes, initial=0))
            parts = [views.slice_axis(layout, axis, *ends[i : i + 2]) for i in range(len(sizes))]
    except UnsupportedError:
        return None
    return [item.seen(str(place), part) for place, part in enumerate(parts)]


def _apart(layout: Layout, axis: int, count: int) -> Layout:
    """An axis as two, the second one of ``count``; as near to the native tensor as it goes, where its own axes are."""
    if isinstance(layout, Transpose):
        inner = layout.perm[axis]
        perm: list[int] = []
        for place in layout.perm:
            perm += [place + (place > inner), place + 1][: 1 + (place == inner)]
        return Transpose(_apart(layout.base, inner, count), tuple(perm))
    shape = layout.shape
    return views.reshaped(layout, (*shape[:axis], shape[axis] // count, count, *shape[axis + 1 :]))


def _joins(
    some: Sequence[_Holding], held: Sequence[_Holding], lacks: Mapping[Class, int]
) -> Iterator[_Change]:
    """Some parameters joined in groups, their biases with them."""
    size = math.prod(some[0].parameter.shape)
    counts = {math.prod(shape) // size for shape, _ in lacks if math.prod(shape) % size == 0}
    for count in sorted(counts - {0, 1}):
        for groups in _groupings(some, count):
            options = [[*_joined(group, held, lacks)] for group in groups]
            for choice in islice(product(*options), _CHOICES):
                yield [pair for change in choice for pair in change]


def _groupings(some: Sequence[_Holding], count: int) -> Iterator[list[list[_Holding]]]:
    """Groups of so many: what lies in one tensor, what stands beside each other, what alternates."""
    if len(some) % count:
        return
    by_tensor: dict[frozenset[str], list[_Holding]] = defaultdict(list)
    for item in some:
        by_tensor[frozenset(leaf.tensor for leaf in leaves(item.layout))].append(item)
    if all(len(group) == count for group in by_tensor.values()):
        yield list(by_tensor.values())
    yield [list(some[start : start + count]) for start in range(0, len(some), count)]
    if len(some) > count:
        step = len(some) // count
        yield [list(some[start::step]) for start in range(step)]


def _joined(
    group: Sequence[_Holding], held: Sequence[_Holding], lacks: Mapping[Class, int]
) -> Iterator[_Change]:
    """One group joined along each axis, one behind the other or alternating, or stacked, where the reference has such a parameter."""
    shape = group[0].layout.shape
    if any(item.layout.shape != shape for item in group):
        return
    kind = length_class(group[0].parameter)[1]
    layouts = tuple(item.layout for item in group)
    if (tuple(sorted(n for n in (len(group), *shape) if n > 1)), kind) in lacks:
        stacked = group[0].seen("stack", Stack(layouts))
        yield [(tuple(group), [replace(stacked, parameter=replace(stacked.parameter, operator="Parameter"))])]
    for axis, length in enumerate(shape):
        whole = (*shape[:axis], length * len(group), *shape[axis + 1 :])
        if (tuple(sorted(n for n in whole if n > 1)), kind) not in lacks:
            continue
        biases = [_bias(item, axis, held) for item in group]
        for strided in (False, True):
            change: _Change = [(tuple(group), [group[0].seen("join", _join(layouts, axis, strided=strided))])]
            if all(biases):
                there = [bias for bias in biases if bias is not None]
                layout = _join(tuple(bias.layout for bias in there), 0, strided=strided)
                change.append((tuple(there), [there[0].seen("join", layout)]))
            yield change


def _join(layouts: tuple[Layout, ...], axis: int, *, strided: bool) -> Layout:
    if not strided:
        return Join(layouts, axis)
    shape = layouts[0].shape
    apart = tuple(views.reshaped(item, (*shape[: axis + 1], 1, *shape[axis + 1 :])) for item in layouts)
    whole = (*shape[:axis], shape[axis] * len(layouts), *shape[axis + 1 :])
    return views.reshaped(Join(apart, axis + 1), whole)
