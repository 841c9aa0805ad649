"""Which input of one model is which of the other: by name, by place, or as the numbers say where names and places are no evidence."""

from __future__ import annotations

import re
from collections.abc import Iterator, Sequence
from dataclasses import replace
from itertools import islice, permutations
from typing import TypeAlias, final

from xbackend_fl.adapter import Rounding, Trainer
from xbackend_fl.adapter.calling import same_names
from xbackend_fl.adapter.likeness import likeness
from xbackend_fl.canonical import Description, Schema
from xbackend_fl.errors import MismatchError
from xbackend_fl.mapping.match.match import match
from xbackend_fl.mapping.match.skeleton import Skeleton, skeleton_of

Order: TypeAlias = tuple[int, ...]
"""The reference's input ``i`` is the candidate's input ``order[i]``."""

ORDERS = 24
"""Orders of inputs that are tried."""

_LOOKED_AT = 5040
"""Orders of which the likeliest are chosen: all of seven inputs."""

_NUMBERED = re.compile(r"input_\d+")


def input_orders(reference: Schema, candidate: Schema) -> list[Order]:
    """The orders of inputs that are worth a proof, the likeliest first.

    Where both models have the same names, names pair the inputs, and nothing else is asked. Where a model takes its inputs by keys, which have no order, or where names are alike in another order, or the sizes fit in
    another one only, every order is asked that keeps equal names together. Else place pairs them, and nothing else is asked: two
    models in which inputs trade places are two functions.
    """
    ours, theirs = own_names(reference), own_names(candidate)
    count, plain = len(ours), tuple(range(len(ours)))
    if count != len(theirs) or count < 2:
        return [plain]
    keyed = any(port.key for port in (*reference.inputs, *candidate.inputs))
    if same_names(ours, theirs):
        by_name = tuple(theirs.index(name) for name in ours)
        return [by_name if _fits(reference, candidate, by_name) else plain]
    alike = [[likeness(one, two) for two in theirs] for one in ours]

    def rank(order: Order) -> tuple[float, bool]:
        return -sum(alike[place][index] for place, index in enumerate(order)), order != plain

    equal = {place: theirs.index(name) for place, name in enumerate(ours) if name and name in theirs}
    every = [
        order
        for order in islice(permutations(range(count)), _LOOKED_AT)
        if _fits(reference, candidate, order) and all(order[place] == index for place, index in equal.items())
    ]
    every = sorted(every, key=rank)[:ORDERS]
    if keyed or not _fits(reference, candidate, plain):
        return every or [plain]
    return [plain, every[0]] if every and rank(every[0]) < rank(plain) else [plain]


def matching_first(reference: Schema, description: Description, orders: Sequence[Order]) -> list[Order]:
    """Orders in which the two graphs are one come first; the rest stays as it is."""
    if len(orders) < 2:
        return list(orders)
    wanted = skeleton_of(reference)

    def unlike(order: Order) -> bool:
        return not _is_one(wanted, match_masks(reference, description.with_inputs(order)).schema)

    return sorted(orders, key=unlike)


def match_masks(reference: Schema, description: Description) -> Description:
    """A candidate whose inputs are masks where the reference's are: in its own order the example said so of others."""
    ports = tuple(
        replace(port, binary=other.binary)
        for port, other in zip(description.schema.inputs, reference.inputs, strict=False)
    )
    return replace(description, schema=replace(description.schema, inputs=ports))


def order_notes(reference: Schema, own: Description, order: Order) -> Iterator[str]:
    """How inputs were paired, where that is not plain to see, and whether they may trade places.

    Args:
        reference: The reference's schema.
        own: The candidate as it was described.
        order: The order that was proven.
    """
    candidate = own.schema
    ours, theirs = own_names(reference), own_names(candidate)
    if len(order) < 2:
        return
    paired = [theirs[index] for index in order]
    pairs = ", ".join(
        f"{one.name!r} is {candidate.inputs[index].name!r}"
        for one, index in zip(reference.inputs, order, strict=True)
    )
    if all(ours) and ours == paired:
        taken = own.binding.in_own_order(theirs)
        if taken != ours:
            yield f"inputs are paired by name: the reference takes {_listed(ours)}, the candidate {_listed(taken)}"
    elif order != tuple(range(len(order))):
        yield f"inputs are paired as the numbers say: {pairs}"
    elif ours != theirs:
        yield f"inputs are paired by place: {pairs}"
    wanted = skeleton_of(reference)
    ports = [candidate.inputs[index] for index in order]
    for one, two in _neighbours(len(order)):
        turned = list(ports)
        turned[one], turned[two] = ports[two], ports[one]
        same = (ports[one].shape, ports[one].dtype) == (ports[two].shape, ports[two].dtype)
        if same and _is_one(wanted, replace(candidate, inputs=tuple(turned))):
            names = f"{reference.inputs[one].name!r} and {reference.inputs[two].name!r}"
            yield f"inputs {names} may trade places: the graphs are one in either order, and this one is proven"


def inputs_in_other_order(
    reference: Schema, candidate: Schema, asked: Sequence[Order]
) -> MismatchError | None:
    """The refusal of two graphs that are one if inputs trade places against their names or places; ``None`` if they are not.

    Args:
        reference: The reference's schema.
        candidate: The candidate's own.
        asked: Orders that were tried, and are no others.
    """
    count, wanted = len(candidate.inputs), skeleton_of(reference)
    if count != len(reference.inputs):
        return None
    for order in islice(permutations(range(count)), ORDERS):
        turned = replace(candidate, inputs=tuple(candidate.inputs[index] for index in order))
        if order not in asked and _fits(reference, candidate, order) and _is_one(wanted, turned):
            names = [port.name for port in candidate.inputs]
            return MismatchError(
                "the two models take their inputs in different orders: the reference's "
                f"{_listed([port.name for port in reference.inputs])} are the candidate's "
                f"{_listed([names[index] for index in order])}, which takes {_listed(names)}",
                hint="inputs are paired by their names if both models have the same ones, else by place: call what is the same data "
                "by one name on both sides, or take them in one order",
            )
    return None


def own_names(schema: Schema) -> list[str]:
    """What a model calls its inputs; empty where it only counts them."""
    return ["" if _NUMBERED.fullmatch(port.name) else port.name for port in schema.inputs]


def _fits(reference: Schema, candidate: Schema, order: Order) -> bool:
    pairs = zip(reference.inputs, (candidate.inputs[index] for index in order), strict=True)
    return all((one.shape, one.dtype) == (two.shape, two.dtype) for one, two in pairs)


def _is_one(wanted: Skeleton, candidate: Schema) -> bool:
    return match(wanted, skeleton_of(candidate)) is not None


def _neighbours(count: int) -> Iterator[tuple[int, int]]:
    for one in range(min(count, ORDERS) - 1):
        yield one, one + 1


def _listed(names: Sequence[str]) -> str:
    return ", ".join(map(repr, names))


@final
class Turned:
    """A trainer behind another description of it, such as one in another order of inputs; what it does is the trainer's.

    Args:
        trainer: The trainer.
        description: Its schema and binding, seen otherwise.
    """

    def __init__(self, trainer: Trainer, description: Description) -> None:
        self._description = description
        self.read, self.write, self.reset = trainer.read, trainer.write, trainer.reset
        self.forward, self.predict, self.gradients = trainer.forward, trainer.predict, trainer.gradients
        self.train, self.save, self._formats = trainer.train, trainer.save, trainer.formats
        if isinstance(trainer, Rounding):
            self.precision, self.forward_by_itself = trainer.precision, trainer.forward_by_itself

    @property
    def description(self) -> Description:
        """Schema and binding, seen otherwise."""
        return self._description

    @property
    def formats(self) -> tuple[str, ...]:
        """The trainer's."""
        return self._formats
