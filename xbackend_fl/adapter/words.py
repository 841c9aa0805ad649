"""Attributes of ONNX's operators as arguments of a framework: a table of words per adapter, and one way to read it."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any, TypeAlias

Word: TypeAlias = str | Callable[[Any], str]
"""Code with ``{0}`` for the value, or what makes code of the value."""
Words: TypeAlias = Mapping[str | tuple[str, str], Word]
"""By attribute, and by (operator, attribute) where an operator's own word is another one."""


def code(words: Words, operator: str, attribute: str, value: Any) -> str:
    """Code that gives an attribute a value.

    Args:
        words: The framework's words.
        operator: The operator.
        attribute: Its attribute, in ONNX's words.
        value: The wanted value; ``None`` for an attribute that the node is not to have.
    """
    word = words.get((operator, attribute)) or words.get(attribute, f"{attribute}={{0}}")
    plain = value[0] if isinstance(value, tuple) and len(value) == 1 else value
    return word(plain) if callable(word) else word.format(plain)


def flag(argument: str) -> Word:
    """A word for an attribute that ONNX writes as 0 or 1."""
    return lambda value: f"{argument}={bool(value)}"


def without(word: str, absent: str) -> Word:
    """A word for an attribute that may be absent."""
    return lambda value: absent if value is None else word.format(value)


COMMON: Words = {
    "start": "begin the slice at {0}",
    "stop": "end the slice in front of {0}",
    ("Add", "constant"): without("x + {0}", "x plus data, and no number"),
    ("Mul", "constant"): without("x * {0}", "x times data, and no number"),
    ("Pow", "constant"): without("x ** {0}", "x to the power of data, and of no number"),
    ("Constant", "shape"): "a constant of the shape {0}",
    ("Equal", "constant"): without("x == {0}", "a comparison with data"),
    ("Less", "constant"): without("x < {0}", "a comparison with data"),
    ("Greater", "constant"): without("x > {0}", "a comparison with data"),
    ("Mod", "constant"): without("x % {0}", "the remainder by data"),
}
"""Words that every framework of Python has."""
