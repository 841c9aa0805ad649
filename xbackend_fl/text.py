"""Text from elsewhere, made fit to be shown: on a terminal, in a log, in an event, in a report.

What a silo, a file, a course or an exception says may hold anything: escape sequences that clear a screen, marks that turn the direction
of writing, halves of characters that no file can hold, sixty thousand letters. Everything that people read goes through here.
"""

from __future__ import annotations

from collections.abc import Sequence

LINE = 1_000
"""Characters of a line at most, where nobody says another number."""

_MORE = " …"


def line(text: object, limit: int = LINE) -> str:
    r"""Any text as one line that changes nothing but the place where it is shown.

    Line breaks become spaces. What is not printable (control characters, invisible ones, marks of direction, surrogates) is written as Python writes
    it in a string: ``\x1b``, ``\u202e``. A line that is shown again is the same.

    Args:
        text: Anything with a ``str``.
        limit: Characters at most; what is cut off is marked with ``…``.
    """
    plain = str(text)
    # Whoever sends megabytes does not decide how long it takes.
    parts = (part.strip() for part in plain[: 4 * limit].splitlines())
    found = escaped(" ".join(part for part in parts if part))
    if len(found) <= limit and len(plain) <= 4 * limit:
        return found
    return (found[: limit - len(_MORE)] + _MORE).lstrip()


def lines(text: object, limit: int = 2 * LINE) -> str:
    """As :func:`line`, for text of our own in several lines with parts from elsewhere: line breaks and indents stay.

    Args:
        text: Anything with a ``str``.
        limit: Characters of a line at most.
    """
    return "\n".join(_cut(escaped(part), limit) for part in str(text).split("\n"))


def escaped(text: str) -> str:
    """The text with everything that is not printable written as Python writes it in a string."""
    if text.isprintable():
        return text
    return "".join(char if char.isprintable() else ascii(char)[1:-1] for char in text)


def _cut(text: str, limit: int) -> str:
    return text if len(text) <= limit else text[: limit - len(_MORE)] + _MORE


def number_of(number: int, thing: str) -> str:
    """How many there are of a thing, whose plural is made with an s: ``1 worker``, ``2,000 workers``."""
    return f"{number:,} {thing}" if number == 1 else f"{number:,} {thing}s"


def having(names: Sequence[str]) -> str:
    """The first of many names as the subject of a sentence, with its verb."""
    return f"{shown_names(names)} {'has' if len(names) == 1 else 'have'}"


def shown_names(names: Sequence[str]) -> str:
    """The first of many names, and how many there are."""
    rest = f" and {len(names) - 3} more" if len(names) > 3 else ""
    return ", ".join(map(repr, names[:3])) + rest
