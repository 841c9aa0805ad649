"""What a data set of a framework gives at a time: an example or a batch, as arrays of inputs and of targets."""

from __future__ import annotations

import importlib
import sys
from collections import Counter
from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple

import numpy as np

from xbackend_fl.data.arrays import to_array
from xbackend_fl.data.column import Array
from xbackend_fl.data.dataset import input_names
from xbackend_fl.data.source import Reading
from xbackend_fl.data.targets import apart, named
from xbackend_fl.errors import ConfigError, shortened
from xbackend_fl.losses import joined

_TARGETS = ("label", "labels", "target", "targets", "y")

ONE_FORM = "give all examples one shape and one dtype: pad, cut or cast them in the data set"
"""The cure of examples that differ in form."""

Form = tuple[tuple[int, ...], np.dtype[Any]]
"""Shape of one example, and dtype."""


class Element(NamedTuple):
    """Arrays of one example, or of several with the batch first.

    Attributes:
        inputs: One per model input.
        targets: Of the same examples.
    """

    inputs: tuple[Array, ...]
    targets: Array

    def forms(self, *, batched: bool) -> tuple[Form, ...]:
        """Shape and dtype of an example of every input, and of a target."""
        return tuple((array.shape[batched:], array.dtype) for array in (*self.inputs, self.targets))


def element_of(where: str, value: Any, how: Reading, done: Counter[str]) -> Element:
    """What a data set gave, as arrays with the same values and axes.

    Args:
        where: Which it is, for messages.
        value: ``(input, target)``, ``((input, input), target)``, ``(input, input, target)``, or a dict.
        how: The inputs that the model takes, and their names.
        done: Counts what was done to images of Pillow's, which become arrays in the order of ONNX.

    Raises:
        ConfigError: It is something else, or what it holds are no numbers.
    """
    inputs, targets = _pair(where, value, how)
    names = [f"{where}: {name}" for name in input_names(len(inputs))]
    parts = apart(f"{where}: targets", targets, how.heads)
    called = [named(f"{where}: targets", name) for name in parts]
    for name, each in zip((*names, *called), (*inputs, *parts.values()), strict=True):
        if each is None:
            raise ConfigError(
                f"{name}: a missing value (None)", hint="fill it, or leave its example out of the data set"
            )
    if "PIL" in sys.modules:
        inputs = tuple(
            _without_image(names[place], each, how, place, done) for place, each in enumerate(inputs)
        )
    # A list of one, since a target may be a number without axes.
    arrays = tuple(to_array([array], name)[0][0] for name, array in zip(names, inputs, strict=True))
    wanted = {
        name: to_array([each], place)[0][0] for (name, each), place in zip(parts.items(), called, strict=True)
    }
    return Element(arrays, _joined(where, wanted, arrays, how))


def _joined(where: str, parts: Mapping[str, Array], inputs: Sequence[Array], how: Reading) -> Array:
    """Targets of one example or of a batch, with a field for every head if there are several."""
    if "" in parts:
        return parts[""]
    alone = [array.shape for array in inputs] == [example.shape[1:] for example in how.inputs]
    if alone or not all(array.ndim for array in parts.values()):
        return joined({name: array[None] for name, array in parts.items()}).reshape(())
    lengths = {f"targets: {name}": len(array) for name, array in parts.items()}
    if len({*lengths.values()}) != 1:
        shown = ", ".join(f"{length} in {name}" for name, length in lengths.items())
        raise ConfigError(
            f"{where}: targets differ in length: {shown}", hint="every example of a batch has one of each"
        )
    return joined(parts)


def article(value: object) -> str:
    """The type of a value with its article."""
    name = type(value).__name__
    return f"{'an' if name[0].lower() in 'aeiou' else 'a'} {name}" if value is not None else "nothing (None)"


def forms_text(forms: tuple[Form, ...]) -> str:
    """Forms in words."""
    *inputs, target = (_form_text(*form) for form in forms)
    return f"inputs of {', '.join(inputs)} and targets of {target}"


def _form_text(shape: tuple[int, ...], dtype: np.dtype[Any]) -> str:
    if dtype.names is None:
        return f"{dtype} {list(shape)}"
    fields = ((name, dtype[name]) for name in dtype.names)
    return ", ".join(f"{name} {field.base} {list(field.shape)}" for name, field in fields)


def unread(where: str, error: BaseException, hint: str | None = None) -> ConfigError:
    """The refusal of what a data set raised in the middle."""
    text = str(error)
    if "daemonic" in text:
        hint = "num_workers=0: a worker of a simulation has no processes of its own"
    elif "xbfl_user" in text or "exited unexpectedly" in text:
        hint = "num_workers=0; or put the data set's class in a module that can be imported, which processes that are spawned need"
    return ConfigError(f"{where} cannot be read: {type(error).__name__}: {shortened(error)}", hint=hint)


def _without_image(where: str, value: Any, how: Reading, place: int, done: Counter[str]) -> Any:
    """An image of Pillow's as ``[channels, height, width]``, and anything else as it is.

    Raises:
        ConfigError: It has another size or other colours than the model takes, or it is broken.
    """
    if not isinstance(value, sys.modules["PIL.Image"].Image) or place >= len(how.inputs):
        return value
    shape = how.inputs[place].shape[1:]
    # Pillow is no requirement of this room.
    pictures = importlib.import_module("xbackend_fl.data.pictures")
    if len(shape) != 3 or shape[0] not in {1, 3} or value.mode not in pictures.MODES:
        return value
    if value.size != (shape[2], shape[1]):
        raise ConfigError(
            f"{where}: an image of {value.width} × {value.height}, and the course's `input` says {shape[2]} × {shape[1]} (width × height)",
            hint=f"let the data set give image.resize(({shape[2]}, {shape[1]})); or change `input`",
        )
    try:
        found, changes = pictures.of_image(value, pictures.Wanted(*shape, resize=False))
    except pictures.UnfitImageError as error:
        raise ConfigError(f"{where} {error}", hint=error.cure) from error
    except pictures.BrokenImageError as error:
        raise unread(where, error) from error
    done.update(changes)
    return found


def _pair(where: str, value: Any, how: Reading) -> tuple[tuple[Any, ...], Any]:
    if isinstance(value, Mapping):
        return _of_mapping(where, value, how)
    count = how.num_inputs or 1
    if isinstance(value, tuple | list) and len(value) == 2:
        inputs, targets = value
        if count == 1:
            return (inputs,), targets
        if isinstance(inputs, Mapping) and {*inputs} == {*how.names}:
            return tuple(inputs[name] for name in how.names), targets
        if isinstance(inputs, tuple | list) and len(inputs) == count:
            return tuple(inputs), targets
    if isinstance(value, tuple | list) and len(value) == count + 1 > 2:
        return tuple(value[:-1]), value[-1]
    if isinstance(value, tuple | list) and len(value) == count + len(how.heads) > count:
        return tuple(value[:count]), tuple(value[count:])
    size = f" of {len(value)}" if isinstance(value, tuple | list) else ""
    raise ConfigError(
        f"{where}: {article(value)}{size}, expected (inputs, target)",
        hint="let the data set give a pair, or a dict with the names of the course's `input` and 'label'"
        + (
            "; Hugging Face's does: .with_format('numpy')"
            if hasattr(value, "column_names") or hasattr(value, "iloc")
            else ""
        ),
    )


def _of_mapping(where: str, value: Mapping[str, Any], how: Reading) -> tuple[tuple[Any, ...], Any]:
    if how.heads and {*how.heads} <= {*value}:
        parts = {name: value[name] for name in how.heads}
        value = {name: one for name, one in value.items() if name not in parts} | {_TARGETS[0]: parts}
    targets = [name for name in _TARGETS if name in value and name not in how.names]
    rest = [name for name in value if name not in targets]
    names = list(how.names) if {*how.names} <= {*value} and how.names else rest
    if len(targets) != 1 or len(names) != (how.num_inputs or 1):
        raise ConfigError(
            f"{where}: a dict with the keys {', '.join(map(str, value))}, of which it is not clear which are inputs and which is the target",
            hint="call the target 'label', and name the inputs as the data do: input: ['ids=int64:1,128', 'mask=1,128']",
        )
    return tuple(value[name] for name in names), value[targets[0]]
