"""Keeps the weights that were drawn last: many probes in a row share a draw, and to draw a large model's takes longer than to run it."""

from __future__ import annotations

import weakref
from collections.abc import Callable, Hashable, Iterable, Iterator, Mapping
from dataclasses import dataclass
from typing import Any, TypeAlias, final

from numpy.typing import NDArray

from xbackend_fl.canonical import Schema
from xbackend_fl.mapping.probe.draw import draw_by_shape, draw_weights

Array = NDArray[Any]
_Make: TypeAlias = Callable[[], dict[str, Array]]

_LARGEST = 1 << 30
"""Bytes of a draw that is kept at all."""

_TOGETHER = 256 << 20
"""Bytes of the draws that are kept beside the last one."""


def drawn_weights(schema: Schema, seed: int) -> dict[str, Array]:
    """What :func:`draw_weights` draws; the arrays are read-only."""
    return _DRAWS.arrays(schema, seed, lambda: draw_weights(schema, seed))


def drawn_by_shape(schema: Schema, *, alike: bool = False) -> dict[str, Array]:
    """What :func:`draw_by_shape` draws; the arrays are read-only."""
    return _DRAWS.arrays(schema, f"alike: {alike}", lambda: draw_by_shape(schema, alike=alike))


def forget_draws() -> None:
    """Free the weights that are kept: whoever has proven all that there is to prove trains next, and needs the memory for that."""
    _DRAWS.forget()


@dataclass(frozen=True)
class _Draw:
    schema: weakref.ReferenceType[Schema]
    key: Hashable
    weights: Mapping[str, Array]

    @property
    def nbytes(self) -> int:
        return sum(array.nbytes for array in self.weights.values())


@final
class _Draws:
    """The last draws, the last one first; a schema's are forgotten with it."""

    def __init__(self) -> None:
        # A tuple that is replaced as a whole: two threads at worst draw the same twice.
        self._kept: tuple[_Draw, ...] = ()

    def arrays(self, schema: Schema, key: Hashable, make: _Make) -> dict[str, Array]:
        """The weights of a draw, made if they are not kept."""
        kept = self._kept
        found = next((draw for draw in kept if draw.key == key and draw.schema() is schema), None)
        if found is None:
            weights = make()
            for array in weights.values():
                array.flags.writeable = False
            found = _Draw(weakref.ref(schema, self._forget_dead), key, weights)
        if found.nbytes <= _LARGEST:
            self._kept = (found, *_fitting(draw for draw in kept if draw is not found))
        return dict(found.weights)

    def forget(self) -> None:
        """Keep nothing."""
        self._kept = ()

    def _forget_dead(self, _: object) -> None:
        self._kept = tuple(draw for draw in self._kept if draw.schema() is not None)


def _fitting(draws: Iterable[_Draw]) -> Iterator[_Draw]:
    left = _TOGETHER
    for draw in draws:
        left -= draw.nbytes
        if left < 0:
            return
        yield draw


_DRAWS = _Draws()
