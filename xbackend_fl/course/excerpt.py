"""Mistakes with their place: file, line and column, and the line with a mark below."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, field

from xbackend_fl.text import escaped, line

SHOWN = 20
"""Mistakes that one message lists."""
_WIDTH = 120
_BEFORE = 60
_WORD = 80


@dataclass(frozen=True)
class Location:
    """Where something stands.

    Attributes:
        row: Line, from 0.
        column: Character in it, from 0.
        width: Characters; 1 if it goes over several lines.
    """

    row: int
    column: int
    width: int = 1


@dataclass(frozen=True)
class Source:
    """A text, for excerpts.

    Attributes:
        name: As messages call it.
        lines: Its lines, as YAML counts them.
    """

    name: str
    lines: list[str] = field(default_factory=list)

    def where(self, place: Location | None) -> Iterator[str]:
        """File, line and column, and the line with a mark below; a long line is cut."""
        if place is None:
            yield f"  --> {self.name}"
            return
        written = self.lines[place.row] if place.row < len(self.lines) else ""
        start = max(0, place.column - _BEFORE) if len(written) > _WIDTH else 0
        before, rest = (
            escaped(part.replace("\t", " "))
            for part in (written[start : place.column], written[place.column : start + _WIDTH])
        )
        margin = " " * len(str(place.row + 1))
        yield f" {margin}--> {self.name}:{place.row + 1}:{place.column + 1}"
        yield f" {margin} |"
        yield f" {place.row + 1} | {before}{rest}"
        yield f" {margin} | {' ' * len(before)}{'^' * max(1, min(place.width, len(rest)))}"


def block(message: str, where: Iterable[str], hint: str | None) -> str:
    """One mistake: what, where, and what to do."""
    return "\n".join([f"error: {line(message)}", *where, *([f"  = help: {line(hint)}"] if hint else [])])


def listed(blocks: Sequence[str], count: int | None = None) -> str:
    """Mistakes below each other, and how many there are if not all are shown."""
    total = count or len(blocks)
    more = [f"and {total - len(blocks)} more"] if total > len(blocks) else []
    return "\n\n".join([*blocks, *more, f"{total} error{'s' if total > 1 else ''}; nothing was run."])


def printed(text: str) -> str:
    """A word of the file, in a message."""
    return line(text, _WORD)
