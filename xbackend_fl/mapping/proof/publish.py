"""What a coordinator publishes and a silo needs: the schema, and the reference's evidence, as files."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from xbackend_fl.canonical import Schema
from xbackend_fl.errors import FileError, SchemaError
from xbackend_fl.mapping.probe.probe import Case, Evidence
from xbackend_fl.weights import read_tensors, write_tensors
from xbackend_fl.writing import check_new, write_text

Array = NDArray[Any]

_NAMED = ("statistics", "gradients", "moved", "updated", "rounding", "losses")


def write_schema(path: Path, schema: Schema) -> None:
    """Write a schema as JSON.

    Raises:
        FileError: The file exists.
    """
    check_new(path, "choose another file")
    write_text(path, schema.to_json())


def read_schema(path: Path) -> Schema:
    """Read a schema.

    Raises:
        FileError: The file is missing.
        SchemaError: It is not a schema.
    """
    if not path.is_file():
        raise FileError(f"no such file: {path}")
    return Schema.from_json(path.read_bytes())


def write_evidence(path: Path, schema: Schema, evidence: Sequence[Evidence]) -> None:
    """Write evidence as safetensors; it holds data, outputs and sketches, and no weight of anybody.

    Raises:
        FileError: The file exists.
    """
    check_new(path, "choose another file")
    arrays, about = pack_evidence(schema, evidence)
    write_tensors(path, arrays, about)


def pack_evidence(schema: Schema, evidence: Sequence[Evidence]) -> tuple[dict[str, Array], dict[str, str]]:
    """Evidence as arrays by name and text by key, for a file or a message."""
    arrays: dict[str, Array] = {}
    cases = []
    for index, item in enumerate(evidence):
        plain = asdict(item.case)
        del plain["inputs"]
        cases.append(plain)
        for kind, several in (("inputs", item.case.inputs), ("outputs", item.outputs)):
            arrays |= {f"{index}/{kind}/{i}": np.asarray(a, order="C") for i, a in enumerate(several)}
        for kind in _NAMED:
            named: Mapping[str, Array] = getattr(item, kind)
            arrays |= {f"{index}/{kind}/{name}": np.asarray(a, order="C") for name, a in named.items()}
    return arrays, {"fingerprint": schema.fingerprint, "cases": json.dumps(cases)}


def read_evidence(path: Path, schema: Schema) -> tuple[Evidence, ...]:
    """Read evidence.

    Raises:
        FileError: The file is missing or corrupt.
        SchemaError: It belongs to another schema, or is no evidence.
    """
    return unpack_evidence(*read_tensors(path), schema, str(path))


def unpack_evidence(
    arrays: Mapping[str, Array], about: Mapping[str, str], schema: Schema, where: str
) -> tuple[Evidence, ...]:
    """Evidence from what :func:`pack_evidence` made.

    Raises:
        SchemaError: It belongs to another schema, or is no evidence.
    """
    if about.get("fingerprint") != schema.fingerprint or "cases" not in about:
        raise SchemaError(f"{where} is no evidence for the schema {schema.fingerprint[:12]}")
    parts: dict[tuple[int, str], dict[str, Array]] = {}
    for key, array in arrays.items():
        index, kind, name = key.split("/", 2)
        parts.setdefault((int(index), kind), {})[name] = array

    def several(index: int, kind: str) -> tuple[Array, ...]:
        found = parts.get((index, kind), {})
        return tuple(found[str(i)] for i in range(len(found)))

    return tuple(
        Evidence(
            Case(inputs=several(index, "inputs"), **plain),
            outputs=several(index, "outputs"),
            statistics=parts.get((index, "statistics"), {}),
            gradients=parts.get((index, "gradients"), {}),
            moved=parts.get((index, "moved"), {}),
            updated=parts.get((index, "updated"), {}),
            rounding=parts.get((index, "rounding"), {}),
            losses=parts.get((index, "losses"), {}),
        )
        for index, plain in enumerate(json.loads(about["cases"]))
    )
