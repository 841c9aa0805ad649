"""Numbers that say so when a program decides by them: how many examples there are, how long a series is.

A model is traced with data of one size. ``if x.shape[0] > 64`` leaves nothing in its graph, whichever framework made it, and no probe of
four examples shows the other side.
"""

from __future__ import annotations

import linecache
import sys
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass, field
from itertools import dropwhile, islice
from types import FrameType
from typing import Any, Self, TypeAlias, final

from xbackend_fl.adapter.guards import Call, in_a_test, only_refuses
from xbackend_fl.places import is_library, shown_place

Axes: TypeAlias = tuple[int, ...]
"""Axes of every input, counted from 0."""

_PRIMES = (
    11,
    13,
    17,
    19,
    23,
    29,
    31,
    37,
    41,
    43,
    47,
    53,
    59,
    61,
    67,
    71,
    73,
    79,
    83,
    89,
    97,
    101,
    103,
    107,
    109,
    113,
)


def decisions(
    shapes: Sequence[Sequence[int]], held: Iterable[int], call: Callable[[list[list[int]], Decisions], bool]
) -> tuple[str, ...]:
    """A note on the lines at which a model decides by a length, if there are any.

    Args:
        shapes: Of the data, the examples first.
        held: Lengths of the axes of weights.
        call: Calls the model with data of other shapes, and says whether it takes them.
    """
    longest = max(map(len, shapes), default=0)
    groups = [(0,), (1,), tuple(range(2, longest))][: min(longest, 3)]
    found: list[str] = []
    # Of all at once, where the model takes that: a call takes time.
    for asked in (groups, *([group] for group in groups)) if len(groups) > 1 else (groups,):
        kept = {
            n for shape in shapes for axis, n in enumerate(shape) if not any(axis in group for group in asked)
        }
        sizes = _told_apart(shapes, asked, {*held, *kept})
        if len(sizes) < len(asked):
            continue
        other = [
            [
                next((size for size, group in zip(sizes, asked, strict=True) if axis in group), n)
                for axis, n in enumerate(shape)
            ]
            for shape in shapes
        ]
        seen = Decisions(sizes)
        taken = call(other, seen)
        found += seen.found
        if taken and len(asked) == len(groups):
            break
    return tuple(_notes(found))


def _told_apart(
    shapes: Sequence[Sequence[int]], groups: Sequence[Axes], known: Iterable[int]
) -> tuple[int, ...]:
    """A length for each group of axes, larger than those of the data, and prime: no other one is a multiple of it."""
    sizes = set(known) - {0}
    found: list[int] = []
    for group in groups:
        least = max((n for shape in shapes for axis, n in enumerate(shape) if axis in group), default=0)
        fitting = (p for p in _PRIMES if p > least and p not in found and all(n % p for n in sizes))
        found += list(islice(fitting, 1))
    return tuple(found)


@final
@dataclass
class Decisions:
    """Lines of the user's own code that decide by a length; ``sizes`` are those that are looked for, with their multiples."""

    sizes: tuple[int, ...]
    found: list[str] = field(default_factory=list)

    def marked(self, value: int) -> int:
        """A number that says what is decided by it, if it is one of the sizes or a multiple."""
        looked_for = type(value) is int and value and any(value % size == 0 for size in self.sizes)
        return Length(value, self) if looked_for else value

    def note(self, *, beyond: tuple[str, ...] = (), tests_only: bool = False) -> None:
        """Note who decides now, unless it is a library, or the decision can only end in a refusal.

        Args:
            beyond: Beginnings of the names of files that ask on behalf of whoever calls them.
            tests_only: Whether only what stands in a test is a decision.
        """
        calls = list(dropwhile(lambda call: call.file.startswith(beyond), _calls()))
        if not calls or is_library(calls[0].file):
            return
        # Libraries in between hand an exception on, with more words.
        if only_refuses([call for call in calls if not is_library(call.file)]):
            return
        if tests_only and not in_a_test(calls[0]):
            return
        code = linecache.getline(calls[0].file, calls[0].line).strip()
        place = shown_place(calls[0].file, calls[0].line)
        said = f"{place}, {code!r}" if code else place
        if said not in self.found:
            self.found.append(said)


def _notes(found: Iterable[str]) -> Iterator[str]:
    """What people should know of lines that decide by a length."""
    lines = list(dict.fromkeys(found))
    if lines:
        more = f" and {len(lines) - 3} more" if len(lines) > 3 else ""
        yield (
            f"the model decides by how many examples there are or how long they are (at {'; '.join(lines[:3])}{more}): models are compared "
            "at the sizes of the probes, and nothing is known of those for which it decides otherwise"
        )


@final
class Length(int):
    """A length of the data, or a number that is made of one."""

    _decisions: Decisions

    def __new__(cls, value: int, decisions: Decisions) -> Self:
        """Make one that tells ``decisions``."""
        made = super().__new__(cls, value)
        made._decisions = decisions
        return made

    def __bool__(self) -> bool:
        """Whether it is not zero."""
        self._decisions.note()
        return int(self) != 0

    def __hash__(self) -> int:
        """That of the number."""
        return hash(int(self))

    def __reduce__(self) -> tuple[type[int], tuple[int]]:
        """A copy is a plain number."""
        return int, (int(self),)


@final
class Ratio(float):
    """A number that is a part of a length."""

    _decisions: Decisions

    def __new__(cls, value: float, decisions: Decisions) -> Self:
        """Make one that tells ``decisions``."""
        made = super().__new__(cls, value)
        made._decisions = decisions
        return made

    def __hash__(self) -> int:
        """That of the number."""
        return hash(float(self))

    def __reduce__(self) -> tuple[type[float], tuple[float]]:
        """A copy is a plain number."""
        return float, (float(self),)


def _compared(kind: type[int | float], name: str) -> Callable[[Any, object], Any]:
    method = getattr(kind, name)

    def compare(self: Any, other: object) -> Any:
        if not isinstance(other, Length | Ratio):
            self._decisions.note()
        return method(self, other)

    return compare


def _computed(kind: type[int | float], name: str) -> Callable[..., Any]:
    method = getattr(kind, name)

    def compute(self: Any, *others: object) -> Any:
        made = method(self, *others)
        if type(made) is int:
            return Length(made, self._decisions)
        return Ratio(made, self._decisions) if type(made) is float else made

    return compute


_COMPARED = ("lt", "le", "gt", "ge", "eq", "ne")
_COMPUTED = (
    "add",
    "sub",
    "mul",
    "floordiv",
    "mod",
    "radd",
    "rsub",
    "rmul",
    "rfloordiv",
    "rmod",
    "truediv",
    "rtruediv",
    "neg",
    "abs",
)
_ROUNDED = ("ceil", "floor", "trunc", "round")
for _type, _plain in ((Length, int), (Ratio, float)):
    for _name in _COMPARED:
        setattr(_type, f"__{_name}__", _compared(_plain, f"__{_name}__"))
    for _name in (*_COMPUTED, *_ROUNDED):
        setattr(_type, f"__{_name}__", _computed(_plain, f"__{_name}__"))


def _calls() -> Iterator[Call]:
    """The calls that led here, the innermost first, up to the one that watches."""
    frame: FrameType | None = sys._getframe(1)  # noqa: SLF001  the traceback module reads the source of every line
    while frame is not None and frame.f_code.co_name != "watched":
        if frame.f_code.co_filename != __file__:
            yield Call(frame.f_code, frame.f_lasti, frame.f_lineno)
        frame = frame.f_back
