"""The trained model as ONNX, written, checked and run; a large one by a process of its own.

onnx and ONNX Runtime take 22 MB and several copies of a model. A server must not need them: without them it needs three models.
Of a small model that is nothing, and the start of a process is most of the time that it takes.
"""

from __future__ import annotations

import os
import subprocess
import sys
import tempfile
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from numpy.typing import NDArray

from xbackend_fl.course import Course
from xbackend_fl.errors import RunFailed
from xbackend_fl.rounds.folder import RunFolder
from xbackend_fl.weights import read_tensors, write_tensors
from xbackend_fl.weights.onnx_writing import Writing

Array = NDArray[Any]

_LINES = 12

_LARGE = 4 << 20
"""Bytes of a model from which a process of its own pays."""


def export(
    folder: RunFolder,
    inputs: Sequence[Array],
    writing: Writing = Writing(),  # noqa: B008  frozen
    file: Path | None = None,
) -> list[Array]:
    """Write a run's last weights as ONNX, and run that file.

    Args:
        folder: Has the schema and the last weights.
        inputs: In ONNX layout; without any the file is checked, and not run.
        writing: How the file is written.
        file: The new file; ``model.onnx`` if left out.

    Returns:
        What ONNX Runtime answers to the inputs, in the order of the graph's outputs.

    Raises:
        RunFailed: The file could not be written, or is no valid model; the cause says what the disk said.
    """
    files = (folder.schema, folder.last, file or folder.onnx)
    try:
        files[-1].parent.mkdir(exist_ok=True)
        if folder.last.stat().st_size < _LARGE:
            from xbackend_fl.weights.as_onnx import as_onnx  # noqa: PLC0415  it imports what a server does without

            return as_onnx(*files, inputs, writing)
    except Exception as error:  # whatever onnx and ONNX Runtime say of a graph
        raise _failed(files[-1], str(error)) from error
    return _by_a_process(files, inputs, writing)


def writing_of(course: Course, folder: RunFolder, number: int) -> Writing:
    """How the ONNX file of a round is written, and what it says of itself: the same for whoever writes it."""
    about = {"course": course.name, "run": folder.path.resolve().name, "round": str(number)}
    return Writing(course.free_axes, course.opset, about)


def _by_a_process(files: Sequence[Path], inputs: Sequence[Array], writing: Writing) -> list[Array]:
    with tempfile.TemporaryDirectory(prefix="xbfl-") as name:
        asked, answered = Path(name) / "inputs.safetensors", Path(name) / "outputs.safetensors"
        write_tensors(asked, {str(index): array for index, array in enumerate(inputs)}, {})
        done = subprocess.run(  # noqa: S603  our own program, without a shell
            [
                sys.executable,
                "-m",
                "xbackend_fl.weights.as_onnx",
                *map(str, (*files, asked, answered)),
                writing.to_json(),
            ],
            capture_output=True,
            text=True,
            check=False,
        )
        if done.returncode:
            why = "\n".join(done.stderr.splitlines()[-_LINES:]) or f"it ended with {done.returncode}"
            raise _failed(files[-1], why) from _cause(done.returncode)
        outputs, _ = read_tensors(answered)
        return [outputs[str(index)] for index in range(len(outputs))]


def _failed(file: Path, why: str) -> RunFailed:
    return RunFailed(f"{file} could not be written and run: {why}")


def _cause(code: int) -> OSError | None:
    """A program that could not write ends with the error's number."""
    return OSError(code, os.strerror(code)) if code > 1 else None
