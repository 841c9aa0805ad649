"""Weights that a course begins with, from a file or from another run: nothing is taken that does not fit as a whole."""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from xbackend_fl import weights as files
from xbackend_fl.aggregation import is_finite
from xbackend_fl.canonical import Schema
from xbackend_fl.course import Course
from xbackend_fl.errors import FileError, RefusedInput, SchemaError
from xbackend_fl.rounds.engine import Engine
from xbackend_fl.rounds.folder import RunFolder
from xbackend_fl.text import line
from xbackend_fl.weights import Weights, digest, load_weights
from xbackend_fl.writing import write_text


def initial_file(course: Course) -> Path | None:
    """The file that ``initial`` names, of a run its last weights; ``None`` if the course begins with the reference model's.

    Raises:
        FileError: There is none, or nobody reads its format.
    """
    if course.initial is None:
        return None
    path = course.base / course.initial
    run = RunFolder(path)
    if run.course.is_file():
        path = run.last
    try:
        files.open_weights(path)
    except FileError as error:
        raise FileError(line(f"initial: {error.message}"), hint=error.hint) from error
    return path


def initial_weights(
    course: Course, engine: Engine, schema: Schema, own: Mapping[str, NDArray[Any]]
) -> tuple[Weights, str]:
    """The weights before the first round, and where they come from, in words.

    Args:
        course: The course.
        engine: Reads files in a model's own names.
        schema: The schema.
        own: The reference model's.

    Raises:
        SchemaError: The file does not fit; the message names the parameter.
        RefusedInput: Nobody here can read a file of its kind.
    """
    path = initial_file(course)
    if path is None:
        return Weights.from_schema(schema, own), "the reference model"
    archive = files.open_weights(path)
    if "fingerprint" in archive.metadata:
        try:
            found, whose = load_weights(path, schema.fingerprint), "canonical weights"
        except SchemaError as error:
            raise SchemaError(
                f"initial: {error.message}",
                hint="they are of another model; xbfl diff says in what the two schemas differ",
            ) from error
    else:
        arrays, whose = engine.read_native(path)
        found = Weights.from_schema(schema, arrays)
    for name, array in found.items():
        wrong = (
            "NaN or infinity"
            if array.dtype.kind == "f" and array.size and not is_finite(array)
            else "a negative variance"
            if name in schema.variances and np.any(array < 0)
            else ""
        )
        if wrong:
            raise RefusedInput(f"initial: {name!r} of {path} holds {wrong}")
    return Weights.from_schema(schema, found), f"{path} ({whose})"


def keep_initial(folder: RunFolder, weights: Weights, source: str) -> None:
    """Write down with which weights the run begins."""
    about = {"from": source, "digest": digest(weights)}
    write_text(folder.initial, json.dumps(about, indent=1))
