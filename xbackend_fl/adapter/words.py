"""Attributes of ONNX's operators as arguments of a framework: a table of words per adapter, and one way to read it."""

from __future__ import annotations

import ast
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


Pads: TypeAlias = tuple[tuple[int, int], ...]
"""(before, after) per spatial axis, or per axis of a ``Pad``."""


def padded(padding: Callable[[str, Pads], str]) -> Words:
    """Words of the pads of every operator that has some, where ``padding`` makes code of operator and pads."""

    def word(operator: str) -> Word:
        return lambda value: padding(operator, _pads_of(value))

    return {(name, "pads"): word(name) for name in ("Conv", "ConvTranspose", "MaxPool", "AveragePool", "Pad")}


def _pads_of(value: object) -> Pads:
    """ONNX's ``(before…, after…)``, also written as text, as pairs."""
    flat = ast.literal_eval(str(value))
    half = len(flat) // 2
    return tuple((int(low), int(high)) for low, high in zip(flat[:half], flat[half:], strict=True))


COMMON: Words = {
    "kernel_shape": "kernel_size={0}",
    "group": "groups={0}",
    "output_padding": "output_padding={0}",
    "alpha": "alpha={0}",
    ("LeakyRelu", "alpha"): "negative_slope={0}",
    "num_heads": "num_heads={0}",
    "dropout": "dropout={0}",
    "k": "k={0}",
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
"""Words that every framework of Python has, unless its own table says another one."""
