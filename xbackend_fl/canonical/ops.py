"""The operator table, read from the files of ``canonical/operators``: a file that is there takes part."""

from __future__ import annotations

from itertools import chain

from xbackend_fl.canonical import operators
from xbackend_fl.canonical.row import Operator, Property
from xbackend_fl.registry import discover


def read_families() -> dict[str, Operator]:
    """Every row of every file, by its name."""
    return {row.name: row for row in chain(*discover(operators, "OPERATORS").values())}


OPERATORS = read_families()
"""Operator name to its row."""


def has(operator: str, properties: Property) -> bool:
    """Whether an operator has one of the properties."""
    return OPERATORS[operator].has(properties)
