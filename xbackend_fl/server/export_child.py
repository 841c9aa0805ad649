"""The program of the process that :mod:`xbackend_fl.server.export` starts: ``RUN INPUTS OUTPUTS``."""

from __future__ import annotations

import sys
from pathlib import Path

import onnx
import onnxruntime

from xbackend_fl.canonical import Schema
from xbackend_fl.canonical.onnx_export import to_onnx
from xbackend_fl.server.folder import RunFolder
from xbackend_fl.weights import load_weights, read_tensors, write_tensors
from xbackend_fl.weights.store import whole_or_absent


def main(folder: RunFolder, asked: Path, answered: Path) -> None:
    """Write the model, check it, and answer the inputs with it."""
    schema = Schema.from_json(folder.schema.read_text(encoding="utf-8"))
    with whole_or_absent(folder.onnx) as path:
        weights = load_weights(folder.last, schema.fingerprint)
        path.write_bytes(to_onnx(schema, weights).SerializeToString())
        # From the file: it is what others will read, and the checker would make two more copies of a model in memory.
        onnx.checker.check_model(str(path), full_check=True)
    options = onnxruntime.SessionOptions()
    options.log_severity_level = 3
    session = onnxruntime.InferenceSession(str(folder.onnx), options, providers=["CPUExecutionProvider"])
    inputs, _ = read_tensors(asked)
    feeds = {port.name: inputs[str(index)] for index, port in enumerate(schema.inputs)}
    write_tensors(answered, {str(i): array for i, array in enumerate(session.run(None, feeds))}, {})


if __name__ == "__main__":
    try:
        main(RunFolder(Path(sys.argv[1])), Path(sys.argv[2]), Path(sys.argv[3]))
    except OSError as error:
        sys.stderr.write(f"{error}\n")
        sys.exit(error.errno or 1)
