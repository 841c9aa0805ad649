"""Canonical weights as an ONNX file, which is checked and answers; also a program: ``SCHEMA WEIGHTS FILE INPUTS OUTPUTS WRITING``.

It is in this room because a process that runs it should import as little as can be: with all that a server is made of, half of
its time went into that.
"""

from __future__ import annotations

import shutil
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import onnx
from numpy.typing import NDArray

from xbackend_fl.canonical import Schema
from xbackend_fl.canonical.onnx_export import to_bytes, to_onnx
from xbackend_fl.canonical.onnx_session import OnnxSession
from xbackend_fl.weights.around import holds_with_more
from xbackend_fl.weights.container import Weights
from xbackend_fl.weights.files import load_weights, read_tensors, write_tensors
from xbackend_fl.weights.onnx_writing import Writing
from xbackend_fl.writing import atomic_write

Array = NDArray[Any]


def as_onnx(
    schema_file: Path,
    weights_file: Path,
    file: Path,
    inputs: Sequence[Array],
    writing: Writing = Writing(),  # noqa: B008  frozen
) -> list[Array]:
    """Write the model, check it, and answer the inputs with it.

    Args:
        schema_file: The schema, as JSON.
        weights_file: Weights of that schema.
        file: Where the ONNX file goes; it is there as a whole, or not at all. One that is there, and is this model with
            further metadata, keeps them.
        inputs: In ONNX layout, one per input of the schema; none if nothing is asked.
        writing: How.

    Returns:
        What ONNX Runtime answers, in the order of the graph's outputs.
    """
    schema = Schema.from_json(schema_file.read_text(encoding="utf-8"))
    with atomic_write(file) as path:
        write_graph(path, schema, load_weights(weights_file, schema.fingerprint), writing)
        if holds_with_more(file, path):
            # A certificate of this very model, for example.
            shutil.copyfile(file, path)
    return answers(file, schema, inputs) if inputs else []


def write_graph(path: Path, schema: Schema, weights: Weights, writing: Writing) -> None:
    """Write a schema with its weights as an ONNX file, and have it checked by ONNX, with the shapes of all values."""
    path.write_bytes(to_bytes(to_onnx(schema, weights, **writing.arguments)))
    # From the file: it is what others will read, and the checker would make two more copies of a model in memory.
    onnx.checker.check_model(str(path), full_check=True)


def answers(file: Path, schema: Schema, inputs: Sequence[Array]) -> list[Array]:
    """What ONNX Runtime answers with ``file`` to inputs in ONNX layout, in the order of the schema's outputs."""
    feeds = {port.name: array for port, array in zip(schema.inputs, inputs, strict=True)}
    return OnnxSession(file, threads=0).run(feeds)


def main(arguments: Sequence[str]) -> None:
    """The program."""
    schema, weights, file, asked, answered = map(Path, arguments[:5])
    inputs, _ = read_tensors(asked)
    outputs = as_onnx(
        schema,
        weights,
        file,
        [inputs[str(index)] for index in range(len(inputs))],
        Writing.from_json(arguments[5]),
    )
    write_tensors(answered, {str(index): array for index, array in enumerate(outputs)}, {})


if __name__ == "__main__":
    try:
        main(sys.argv[1:])
    except OSError as error:
        sys.stderr.write(f"{error}\n")
        sys.exit(error.errno or 1)
