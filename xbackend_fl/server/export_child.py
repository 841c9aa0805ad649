"""The program of the process that :mod:`xbackend_fl.server.export` starts: ``RUN INPUTS OUTPUTS [INPUT.AXIS …]``."""

from __future__ import annotations

import sys
from collections.abc import Sequence
from pathlib import Path

import onnx
import onnxruntime

from xbackend_fl.canonical import Schema
from xbackend_fl.canonical.onnx_export import to_onnx
from xbackend_fl.server.folder import RunFolder
from xbackend_fl.weights import load_weights, read_tensors, write_tensors
from xbackend_fl.weights.store import whole_or_absent


def main(folder: RunFolder, asked: Path, answered: Path, sequence_axes: Sequence[tuple[int, int]]) -> None:
    """Write the model, check it, and answer the inputs with it."""
    schema = Schema.from_json(folder.schema.read_text(encoding="utf-8"))
    with whole_or_absent(folder.onnx) as path:
        weights = load_weights(folder.last, schema.fingerprint)
        path.write_bytes(to_onnx(schema, weights, sequence_axes=sequence_axes).SerializeToString())
        # From the file: it is what others will read, and the checker would make two more copies of a model in memory.
        onnx.checker.check_model(str(path), full_check=True)
    options = onnxruntime.SessionOptions()
    options.log_severity_level = 3
    session = onnxruntime.InferenceSession(str(folder.onnx), options, providers=["CPUExecutionProvider"])
    inputs, _ = read_tensors(asked)
    feeds = {port.name: inputs[str(index)] for index, port in enumerate(schema.inputs)}
    write_tensors(answered, {str(i): array for i, array in enumerate(session.run(None, feeds))}, {})


if __name__ == "__main__":
    run, asked, answered = map(Path, sys.argv[1:4])
    pairs = [text.split(".") for text in sys.argv[4:]]
    try:
        main(RunFolder(run), asked, answered, [(int(index), int(axis)) for index, axis in pairs])
    except OSError as error:
        sys.stderr.write(f"{error}\n")
        sys.exit(error.errno or 1)
