"""A node of the canonical graph."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Annotated, TypeAlias

from pydantic import BeforeValidator


def _tuples(value: object) -> object:
    return tuple(value) if isinstance(value, list) else value


AttributeValue: TypeAlias = Annotated[
    bool | int | float | str | tuple[int, ...] | tuple[float, ...], BeforeValidator(_tuples)
]
"""What an attribute may hold."""


@dataclass(frozen=True)
class Node:
    """One operator application.

    Attributes:
        name: Module path or layer name in the reference model.
        operator: Row of the operator table.
        inputs: Names of the values it reads, in order.
        outputs: Names of the values it makes, in order.
        parameters: Role to parameter name (two nodes that share a layer name the same parameter).
        attributes: Attribute name to value.
    """

    name: str
    operator: str
    inputs: tuple[str, ...]
    outputs: tuple[str, ...]
    parameters: Mapping[str, str] = field(default_factory=dict)
    attributes: Mapping[str, AttributeValue] = field(default_factory=dict)
