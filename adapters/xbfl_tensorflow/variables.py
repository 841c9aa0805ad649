"""The variables of any TensorFlow model by unique name, whoever made them."""

from __future__ import annotations

from typing import Any

import keras

from xbackend_fl.canonical import NativeTensor
from xbackend_fl.errors import UnsupportedError


def variable_names(model: Any) -> dict[str, Any]:
    """Variables by unique name: weights, and states of random generators."""
    seen: dict[str, Any] = {}
    for variable in variables_of(model):
        if any(variable is known for known in seen.values()):
            continue
        path = _path(variable)
        name, count = path, 2
        while name in seen:
            name, count = f"{path}#{count}", count + 1
        seen[name] = variable
    return seen


def raw(variable: Any) -> Any:
    """The ``tf.Variable`` of a Keras variable."""
    return variable.value if isinstance(variable, keras.Variable) else variable


def trainable(variable: Any) -> bool:
    """Whether training changes a variable."""
    return bool(variable.trainable) and "float" in dtype_name(variable)


def natives_of(names: dict[str, Any]) -> dict[str, NativeTensor]:
    """Shape and dtype of every variable.

    Raises:
        UnsupportedError: A variable is a float of another width than 32.
    """
    wrong = [n for n, v in names.items() if "float" in dtype_name(v) and dtype_name(v) != "float32"]
    if wrong:
        raise UnsupportedError(
            f"weight {wrong[0]!r} is {dtype_name(names[wrong[0]])}; expected float32",
            hint="build the model under the float32 dtype policy",
        )
    return {name: NativeTensor(tuple(v.shape), dtype_name(v)) for name, v in names.items()}


def refuse_policies(model: Any) -> None:
    """Refuse a Keras model with a layer that computes in another width than 32 bits.

    Raises:
        UnsupportedError: The message names the layer and its dtype policy.
    """
    for layer in model._flatten_layers(include_self=False):  # noqa: SLF001  Keras lists layers inside layers nowhere else
        computes = str(getattr(layer, "compute_dtype", None) or "float32")
        if "float" in computes and computes != "float32" and type(layer).__name__ != "InputLayer":
            policy = getattr(getattr(layer, "dtype_policy", None), "name", computes)
            raise UnsupportedError(
                f"keras layer {layer.name!r} ({type(layer).__name__}) has the dtype policy {policy!r} and computes in {computes}; "
                "expected float32",
                hint="build the model under the policy float32: keras.config.set_dtype_policy('float32')",
            )


def variables_of(model: Any) -> list[Any]:
    """Weights, and states of random generators; some models name one several times."""
    if isinstance(model, keras.Model):
        generators = [v for v in model.non_trainable_variables if v.path.endswith("seed_generator_state")]
        return [*model.weights, *generators]
    if hasattr(model, "weights"):
        return list(model.weights)
    return list(model.variables)


def _path(variable: Any) -> str:
    return str(getattr(variable, "path", None) or variable.name.partition(":")[0])


def dtype_name(variable: Any) -> str:
    """NumPy dtype name of a variable."""
    dtype = variable.dtype
    return str(getattr(dtype, "name", dtype))
