"""The schema: parameters and graph of one model in canonical form, and its fingerprint."""

from __future__ import annotations

import hashlib
import json
import math
from collections.abc import Mapping
from dataclasses import dataclass
from functools import cached_property
from typing import Annotated

from pydantic import Field, TypeAdapter, ValidationError

from xbackend_fl.canonical.layout import Shape
from xbackend_fl.canonical.node import AttributeValue, Node
from xbackend_fl.canonical.ops import OPERATORS
from xbackend_fl.canonical.row import OPAQUE, Kind
from xbackend_fl.errors import SchemaError
from xbackend_fl.text import line

LAYOUT_VERSION = 2
"""Version of the layout rules; part of every fingerprint."""

_MAX_AXES = 32
"""Axes that an array has at most."""

_AGAIN = "describe the reference model again with this version"


@dataclass(frozen=True)
class Parameter:
    """One tensor of the model.

    Attributes:
        name: ``<node>.<role>``.
        operator: ONNX operator of the node that owns it.
        role: Slot of that operator (see ``canonical.ops``).
        formal: Formal ONNX input the slot feeds.
        shape: Canonical shape.
        dtype: NumPy dtype name.
        kind: How it trains and how it is merged.
        storage: NumPy dtype name in which the model that was described holds it, where that is shorter than ``dtype``; else empty.
            Not part of the fingerprint: whatever moves and is merged is of ``dtype``.
    """

    name: str
    operator: str
    role: str
    formal: str
    shape: Shape
    dtype: str
    kind: Kind
    storage: str = ""


@dataclass(frozen=True)
class Port:
    """A data input or output.

    Attributes:
        name: Value name.
        dtype: NumPy dtype name.
        shape: Shape at the example the model was described with, in ONNX layout. Not part of the fingerprint.
        key: Name under which the model returns an output, or takes an input as dicts do; empty where only the position tells.
        binary: Whether an input is a mask: in the example it is 0 and 1 and nothing else. Not part of the fingerprint.
        padded: Whether rows of an input end in zeros and have none before, because the model counts how long they are. Not part of
            the fingerprint.
    """

    name: str
    dtype: str
    shape: Shape
    key: str = ""
    binary: bool = False
    padded: bool = False


@dataclass(frozen=True)
class TrainingEffect:
    """What a model does in training that no node of its graph says, and that training here does not do.

    Attributes:
        where: The framework and the native layer, for people.
        what: What it does.
        cure: Code of the framework without it.
        compared: Whether one optimizer step shows it: the proof then decides, and this only names the cause.
        dropout: Whether it does not matter where nothing drops.
    """

    where: str
    what: str
    cure: str
    compared: bool = False
    dropout: bool = False

    def __str__(self) -> str:
        return f"{self.where}: {self.what}"


@dataclass(frozen=True)
class Schema:
    """Canonical parameters and graph skeleton of one model.

    Attributes:
        inputs: Data inputs in the order of the model's own.
        outputs: What the model returns, in order.
        nodes: In execution order.
        parameters: In the order in which nodes first use them.
        layout_version: Version of the layout rules.
        training_effects: What the model does in training beside its graph. Not part of the fingerprint: weights fit all the same.
    """

    inputs: tuple[Port, ...]
    outputs: tuple[Port, ...]
    nodes: tuple[Node, ...]
    parameters: tuple[Parameter, ...]
    layout_version: Annotated[int, Field(json_schema_extra={"const": LAYOUT_VERSION})] = LAYOUT_VERSION
    training_effects: tuple[TrainingEffect, ...] = ()

    @cached_property
    def fingerprint(self) -> str:
        """SHA-256 (hex) over the canonical serialisation, without the example's sizes."""
        plain = _ADAPTER.dump_python(self, mode="json")
        del plain["training_effects"]
        for item in plain["parameters"]:
            del item["storage"]
        for item in (*plain["inputs"], *plain["outputs"]):
            item["shape"] = len(item["shape"])
            del item["binary"], item["padded"]
            if not item["key"]:
                # A model whose outputs have no names keeps the fingerprint it has always had.
                del item["key"]
        text = json.dumps(plain, sort_keys=True, separators=(",", ":"))
        return hashlib.sha256(text.encode()).hexdigest()

    @cached_property
    def by_name(self) -> dict[str, Parameter]:
        """Parameters by name."""
        return {parameter.name: parameter for parameter in self.parameters}

    @cached_property
    def opaque(self) -> tuple[str, ...]:
        """Names of the nodes without a canonical form: only their own framework runs them, and there is no ONNX graph."""
        return tuple(node.name for node in self.nodes if node.operator == OPAQUE)

    @cached_property
    def variances(self) -> frozenset[str]:
        """Names of the parameters that are read as variances, of which none is negative."""
        return frozenset(node.parameters["variance"] for node in self.nodes if "variance" in node.parameters)

    @property
    def num_values(self) -> int:
        """Number of scalars in all parameters."""
        sizes = (_size(parameter.shape) for parameter in self.parameters)
        return sum(sizes)

    def to_json(self) -> str:
        """Serialise; :meth:`from_json` is the inverse."""
        return _ADAPTER.dump_json(self, indent=1).decode()

    @staticmethod
    def from_json(text: str | bytes) -> Schema:
        """Read a schema.

        Raises:
            SchemaError: The text is not a schema, an attribute of training has no meaning, or it was written under other layout rules.
        """
        try:
            schema = _ADAPTER.validate_json(text)
        except ValidationError as error:
            raise SchemaError(f"not a schema: {error.errors()[0]['msg']}") from error
        if schema.layout_version != LAYOUT_VERSION:
            raise SchemaError(
                f"the schema was written under layout rules {schema.layout_version}; "
                f"this version knows {LAYOUT_VERSION}",
                hint=_AGAIN,
            )
        for node in schema.nodes:
            _check_known(node)
            _check_training(node, schema.by_name)
        return schema


def _check_known(node: Node) -> None:
    """Attributes come and go without new rules of layout; a node of another version would fail anywhere, or be read wrongly."""
    operator = OPERATORS.get(node.operator)
    if operator is None:
        raise SchemaError(f"node {node.name!r}: this version has no operator {node.operator!r}", hint=_AGAIN)
    unknown = sorted({*node.attributes} - {*operator.attributes})
    if unknown:
        raise SchemaError(
            f"node {node.name!r} has the attribute {unknown[0]!r}, and {node.operator} has none of that name in this version",
            hint=_AGAIN,
        )
    roles = sorted({*node.parameters} - {slot.role for slot in operator.slots})
    if roles:
        raise SchemaError(
            f"node {node.name!r} has the parameter {roles[0]!r}, and {node.operator} has none of that name in this version",
            hint=_AGAIN,
        )


def _check_training(node: Node, parameters: Mapping[str, Parameter]) -> None:
    """What only training reads, no proof of a function compares: a value without a meaning would end the training of everybody."""
    for name, value in node.attributes.items():
        match name:
            case "ratio" | "dropout":
                good, expected = 0 <= _number(value) < 1, "a number from 0 to below 1"
            case "momentum":
                good, expected = 0 <= _number(value) <= 1, "a number from 0 to 1"
            case "padding_idx":
                weight = parameters.get(node.parameters.get("weight", ""))
                last = weight.shape[0] - 1 if weight is not None and weight.shape else -1
                good = isinstance(value, int) and -1 <= _number(value) <= last
                expected = f"a row from 0 to {last}, or -1"
            case "shared_axes":
                good = isinstance(value, tuple) and all(
                    isinstance(axis, int) and 0 <= axis < _MAX_AXES for axis in value
                )
                expected = "numbers of axes"
            case _:
                continue
        if not good:
            found = line(repr(value), 60)
            raise SchemaError(
                f"node {node.name!r}: {name} of {node.operator} is {found}, expected {expected}"
            )


def _number(value: AttributeValue) -> float:
    """NaN for what is none; True is 1 to Python."""
    return value if isinstance(value, int | float) and not isinstance(value, bool) else math.nan


def _size(shape: Shape) -> int:
    size = 1
    for length in shape:
        size *= length
    return size


_ADAPTER: TypeAdapter[Schema] = TypeAdapter(Schema)


def json_schema() -> dict[str, object]:
    """JSON Schema of the schema file, as published in ``schemas/``."""
    return _ADAPTER.json_schema()


def parameters_behind(schema: Schema, value: str) -> frozenset[str]:
    """Names of the parameters that a value of the graph is computed with."""
    found: set[str] = set()
    wanted = {value}
    for node in reversed(schema.nodes):
        if not wanted.isdisjoint(node.outputs):
            wanted.update(node.inputs)
            found.update(node.parameters.values())
    return frozenset(found)
