"""A model as a file of LiteRT, by TensorFlow's own converter."""

from __future__ import annotations

import re
from collections.abc import Callable, Sequence
from importlib.metadata import version
from pathlib import Path
from typing import Any

import numpy as np
import tensorflow as tf
from numpy.typing import NDArray

from xbackend_fl.adapter.contract import LiteModel
from xbackend_fl.errors import AdapterError, RefusedInput, shortened
from xbackend_fl.hushing import hushed, stderr_aside
from xbackend_fl.places import users_place
from xbfl_tensorflow.exporting import without_compiler

Call = Callable[[Sequence[Any]], tuple[Any, ...]]


def export_lite(
    call: Call,
    inputs: Sequence[Any],
    names: Sequence[str],
    batch_axes: Sequence[int],
    path: Path,
    *,
    autograph: bool,
) -> LiteModel:
    """Write a model in evaluation mode; its batch is free, or the example's where the converter needs to know it.

    Args:
        call: Calls the model with tensors, one for each input; returns its outputs in order.
        inputs: An example.
        names: What the inputs are called.
        batch_axes: Where each input has its batch.
        path: The new file.
        autograph: Whether the model's code is written for AutoGraph.

    Raises:
        AdapterError: LiteRT is not installed.
        RefusedInput: The converter cannot write this model, or LiteRT cannot open the file.
    """
    try:
        with stderr_aside():
            from ai_edge_litert.interpreter import Interpreter
    except ImportError as error:
        raise AdapterError(
            f"LiteRT cannot be imported: {shortened(error)}", hint="pip install 'xbackend-fl[litert]'"
        ) from error
    plain = all(name.isidentifier() for name in names) and len(set(names)) == len(names)
    called = tuple(names) if plain else tuple(f"input_{index}" for index in range(len(inputs)))
    count = inputs[0].shape[batch_axes[0]]
    try:
        written, examples = _converted(call, inputs, called, batch_axes, autograph=autograph), (1, None)
    except RefusedInput:
        fixed = [None] * len(inputs)
        written, examples = _converted(call, inputs, called, fixed, autograph=autograph), (count, count)
    path.write_bytes(written)
    try:
        with stderr_aside():
            interpreter = Interpreter(model_path=str(path), num_threads=1)
            runner = interpreter.get_signature_runner()
    except (ValueError, RuntimeError) as error:
        raise RefusedInput(f"LiteRT cannot open what TensorFlow wrote: {shortened(error)}") from error

    def run(arrays: Sequence[NDArray[Any]]) -> tuple[NDArray[Any], ...]:
        try:
            with stderr_aside():
                found = runner(**dict(zip(called, arrays, strict=True)))
        except (ValueError, RuntimeError) as error:
            where = _prepared(interpreter, str(error))
            raise RefusedInput(
                f"LiteRT cannot run what TensorFlow wrote{where}: {shortened(error)}"
            ) from error
        return tuple(np.array(found[_output(index)]) for index in range(len(found)))

    return LiteModel(f"LiteRT {version('ai-edge-litert')}", called, examples, run)


def _output(index: int) -> str:
    return f"output_{index}"


def _converted(
    call: Call,
    inputs: Sequence[Any],
    names: Sequence[str],
    free: Sequence[int | None],
    *,
    autograph: bool,
) -> bytes:
    def answer(**given: Any) -> dict[str, Any]:
        found = call([given[name] for name in names])
        return {_output(index): tf.identity(output) for index, output in enumerate(found)}

    signature = {
        name: tf.TensorSpec([None if i == axis else n for i, n in enumerate(item.shape)], item.dtype, name)
        for name, item, axis in zip(names, inputs, free, strict=True)
    }
    held = tf.Module()
    with hushed("tensorflow"), stderr_aside():
        with without_compiler():
            graph = tf.function(answer, autograph=autograph).get_concrete_function(**signature)
        # The converter writes the values of variables that somebody holds, and leaves the others out without a word.
        held.variables_of_the_graph = list(graph.graph.variables)
        try:
            written: bytes = tf.lite.TFLiteConverter.from_concrete_functions([graph], held).convert()
        except Exception as error:  # whatever the converter raises
            raise _refused(graph.graph, error) from error
    return written


def _refused(graph: Any, error: Exception) -> RefusedInput:
    """What the converter cannot write, with its place in the model."""
    said = str(error)
    lacking = list(dict.fromkeys(re.findall(r"'tf\.(\w+)' op is neither a custom op nor a flex op", said)))
    if not lacking:
        lines = [line for line in said.splitlines() if "error:" in line] or [said]
        return RefusedInput(f"LiteRT's converter cannot write it: {shortened(ValueError(lines[0]))}")
    needs = (f"{name} {_needed(graph, name)}".rstrip() for name in lacking)
    return RefusedInput(
        f"LiteRT has no {', no '.join(needs)}",
        hint="say it otherwise in the model, or run model.onnx with ONNX Runtime",
    )


def _prepared(interpreter: Any, said: str) -> str:
    """The operation and the layer that the runtime speaks of by its number in the file."""
    number = re.search(r"Node number (\d+) \((\w+)\)", said)
    if number is None:
        return ""
    names = {item["index"]: item["name"] for item in interpreter.get_tensor_details()}
    # There is no public list of a file's operations.
    item = next((one for one in interpreter._get_ops_details() if one["index"] == int(number[1])), None)  # noqa: SLF001
    name = names.get(item["outputs"][0], "").partition(";")[0] if item and len(item["outputs"]) else ""
    return f", {number[2]} as {name.rpartition('/')[0] or name!r} needs it" if name else ""


def _needed(graph: Any, kind: str) -> str:
    """Who needs an operation: the layer, and the line of the user's code."""
    found = next((item for item in graph.get_operations() if item.type == kind), None)
    if found is None:
        return ""
    layer, place = found.name.rpartition("/")[0], users_place((f.filename, f.lineno) for f in found.traceback)
    return f"as {layer or 'the model'!r} needs it" + (f" (at {place})" if place else "")
