"""Weights of two models that are equal where the models are, before anybody knows a map."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import suppress
from dataclasses import dataclass, replace
from itertools import chain, islice
from typing import Any, TypeAlias

from numpy.typing import NDArray

from xbackend_fl.adapter.contract import Trainer
from xbackend_fl.canonical import Binding, Schema
from xbackend_fl.errors import SchemaError
from xbackend_fl.mapping.align.holdings import holdings
from xbackend_fl.mapping.align.recut import recut
from xbackend_fl.mapping.probe.draw import draw_by_shape
from xbackend_fl.mapping.probe.drawn import drawn_weights
from xbackend_fl.mapping.probe.frozen import FrozenValues, without
from xbackend_fl.mapping.probe.pieces import binding_in_pieces, in_pieces, put_together, taken_apart

Array = NDArray[Any]
Weighting: TypeAlias = tuple[Mapping[str, Array], Mapping[str, Array]]
"""Canonical weights of the reference and of the candidate, each in its own names."""

Parts: TypeAlias = tuple[Mapping[str, Array], Mapping[str, Array]]
"""What is drawn for the reference and for the candidate, piece by piece: a gate of a recurrent layer is one."""


@dataclass(frozen=True)
class Draw:
    """Makes equal weights of both.

    Attributes:
        parts: What is drawn for a number.
        put: Makes weights of both of that.
        in_parts: Whether the candidate's parameters are joined or cut, in an order that is a guess.
        by_place: Whether every parameter has numbers of its own; else all that have one shape are equal, and symmetric.
    """

    parts: Callable[[int], Parts]
    put: Callable[[Mapping[str, Array], Mapping[str, Array]], Weighting]
    by_place: bool = False
    in_parts: bool = False

    def __call__(self, number: int) -> Weighting:
        """Other weights for another number."""
        return self.put(*self.parts(number))


_WAYS = 8
"""Most ways to see the candidate's parameters."""


def weightings(
    schema: Schema, trainer: Trainer, frozen: FrozenValues | None, binding: Binding | None, until: float
) -> Iterator[Draw]:
    """Equal weights of both: under a map that was found, else by shape, features weighing as they are and alike.

    Args:
        schema: The reference.
        trainer: The candidate.
        frozen: What both models keep as it is.
        binding: A map that the numbers contradict, if there is one.
        until: Processor time after which no further way to see the parameters is looked for.
    """
    own = trainer.description.binding
    natives = {**trainer.read(), **(frozen.natives if frozen else {})}
    kept = frozen.values if frozen else {}

    def candidate(restored: Mapping[str, Array]) -> dict[str, Array]:
        return own.export({**natives, **restored})

    if binding is not None:

        def drawn(number: int) -> Parts:
            weights = {**drawn_weights(schema, number), **kept}
            return weights, binding.restore(weights)

        mapped = Draw(drawn, lambda ours, theirs: (ours, candidate(theirs)), by_place=True)

        # Constants of a map hold no drawn values.
        with suppress(SchemaError):
            mapped(0)
            yield mapped
    # What nobody trains is a weight like others where both models have it, and a constant where one has.
    for one in (None, frozen) if frozen and frozen.values and frozen.own else (frozen,):
        yield from _by_shape(schema, trainer, one, until)


def _by_shape(schema: Schema, trainer: Trainer, frozen: FrozenValues | None, until: float) -> Iterator[Draw]:
    """Equal weights by shape, features weighing as they are and alike, for every way to see the candidate's parameters."""
    own, plain = trainer.description.binding, trainer.description.schema
    natives, kept = {**trainer.read(), **(frozen.natives if frozen else {})}, frozen.values if frozen else {}
    ours, theirs, layouts = schema, plain, own
    if frozen is not None:
        ours, theirs = without(schema, frozenset(kept)), without(plain, frozen.own)
        layouts = replace(own, parameters={n: x for n, x in own.parameters.items() if n not in frozen.own})
    sides = in_pieces(ours), in_pieces(theirs), binding_in_pieces(theirs, layouts)
    # A branch that one model alone has holds parameters of its own; the others have equal shapes all the same.
    shapes = [sorted(item.shape for item in side.parameters) for side in sides[:2]]
    as_they_are = [] if shapes[0] == shapes[1] else [(sides[1], sides[2])]
    for seen, there in chain(islice(chain(holdings(*sides), recut(*sides, until)), _WAYS), as_they_are):
        if time.process_time() > until:
            return
        for alike in (False, True):

            def by_shape(number: int, seen: Schema = seen, *, alike: bool = alike) -> Parts:
                salt = str(number or "")
                made = (draw_by_shape(side, salt, alike=alike) for side in (ours, seen))
                return taken_apart(ours, next(made)), taken_apart(seen, next(made))

            def put(
                one: Mapping[str, Array],
                two: Mapping[str, Array],
                seen: Schema = seen,
                there: Binding = there,
            ) -> Weighting:
                restored = there.restore(put_together(seen, two))
                return {**put_together(ours, one), **kept}, own.export({**natives, **restored})

            yield Draw(by_shape, put, in_parts=seen.by_name.keys() != sides[1].by_name.keys())
