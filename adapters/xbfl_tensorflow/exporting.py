"""A model as an ONNX file, by tf2onnx."""

from __future__ import annotations

import contextlib
import io
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import keras
import numpy as np
import tensorflow as tf

from xbackend_fl.errors import RefusedInput
from xbackend_fl.hushing import hushed

_OPSET = 18
"""The newest that tf2onnx writes."""


def export_onnx(
    call: Callable[[Sequence[Any]], tuple[Any, ...]],
    variables: Mapping[str, Any],
    inputs: Sequence[Any],
    batch_axes: Sequence[int],
    path: Path,
) -> dict[str, str]:
    """Write a model in evaluation mode.

    TensorFlow folds variables into constants before anything is exported, and their names with them. What a Keras model
    reads can be given from outside, so its variables are inputs until the graph is there. Variables of other models are
    constants of it.

    Args:
        call: Calls the model with tensors, one for each input; returns its outputs in order.
        variables: Of the model, by name.
        inputs: An example.
        batch_axes: Where each input has its batch, which alone is free.
        path: The new file.

    Returns:
        Variables of a Keras model by the names of their initializers.

    Raises:
        RefusedInput: tf2onnx is not installed, or cannot write this model.
    """
    try:
        import tf2onnx
        from onnx import numpy_helper
    except ImportError as error:
        raise RefusedInput(
            f"TensorFlow's exporter needs {error.name}", hint=f"pip install {error.name}"
        ) from error
    given = {
        name: variable
        for name, variable in variables.items()
        if isinstance(variable, keras.Variable) and variable.dtype == "float32"
    }
    count = len(inputs)

    def answer(*arguments: Any) -> tuple[Any, ...]:
        values = zip(given.values(), arguments[count:], strict=True)
        with keras.StatelessScope(state_mapping=list(values)):
            return tuple(tf.identity(output) for output in call(arguments[:count]))

    signature = [
        tf.TensorSpec(
            [None if place == axis else n for place, n in enumerate(tensor.shape)],
            tensor.dtype,
            f"input_{index}",
        )
        for index, (tensor, axis) in enumerate(zip(inputs, batch_axes, strict=True))
    ]
    weights = [
        tf.TensorSpec(variable.shape, tf.float32, f"weight_{index}")
        for index, variable in enumerate(given.values())
    ]
    try:
        with hushed("tf2onnx"), contextlib.redirect_stderr(io.StringIO()), without_compiler():
            function = tf.function(answer, input_signature=[*signature, *weights], autograph=False)
            proto, _ = tf2onnx.convert.from_function(
                function, function.input_signature, opset=_OPSET, custom_op_handlers={"Erfc": (_erfc, [])}
            )
    except Exception as error:  # whatever TensorFlow and tf2onnx raise
        said = str(error).strip().splitlines() or ["no reason given"]
        raise RefusedInput(f"tf2onnx cannot write it: {type(error).__name__}: {said[0]}") from error
    names = {f"weight_{index}": name for index, name in enumerate(given)}
    ports = list(proto.graph.input)
    del proto.graph.input[:]
    proto.graph.input.extend(port for port in ports if port.name not in names)
    proto.graph.initializer.extend(
        numpy_helper.from_array(given[names[port.name]].numpy(), port.name)
        for port in ports
        if port.name in names
    )
    path.write_bytes(proto.SerializeToString())
    return names


def _erfc(ctx: Any, node: Any, name: str, arguments: Sequence[Any]) -> None:
    """What the exact GELU of TensorFlow reads, and tf2onnx does not know, as ``1 - erf(x)``."""
    del arguments
    one = ctx.make_const(f"{name}_one", np.ones((), np.float32))
    erf = ctx.make_node("Erf", list(node.input))
    outputs, shapes, dtypes = list(node.output), node.output_shapes, node.output_dtypes
    ctx.remove_node(node.name)
    ctx.make_node("Sub", [one.output[0], erf.output[0]], outputs=outputs, shapes=shapes, dtypes=dtypes)


@contextmanager
def without_compiler() -> Iterator[None]:
    """Keras compiles grouped convolutions in a function of their own, which tf2onnx cannot look into."""
    usual = tf.function

    def plain(*arguments: Any, **options: Any) -> Any:
        if options.pop("jit_compile", None) and not arguments:
            return lambda function: function
        return usual(*arguments, **options)

    tf.function = plain
    try:
        yield
    finally:
        tf.function = usual
