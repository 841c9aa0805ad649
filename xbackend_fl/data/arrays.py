"""What a loader may hand over as an array: NumPy's, a framework's tensor, a list, a data frame."""

from __future__ import annotations

import warnings
from typing import Any

import numpy as np
from numpy.typing import NDArray

from xbackend_fl.errors import ConfigError, shortened

Array = NDArray[Any]

_NUMBERS = "biuf"
_SHOWN = 40


def to_array(value: object, where: str) -> tuple[Array, str | None]:
    """A value as an array of numbers, with the same values.

    Args:
        value: A NumPy array, or anything that becomes one: a tensor of a framework, a list, a data frame.
        where: Whose it is, for messages.

    Returns:
        The array, of bool, integers or floats, in this machine's byte order, with one axis at least; and a note, if
        it was something else before.

    Raises:
        ConfigError: It holds no numbers, or some are missing.
    """
    found = _plain(value, where)
    note = None if isinstance(value, np.ndarray) else f"{where}: read from a {_kind(value)} as {found.dtype}"
    if found.dtype.kind == "O":
        found, note = _of_objects(found, where), f"{where}: read from Python objects"
    if found.dtype.kind == "V" and found.dtype.names is None:
        # bfloat16 and its like, which NumPy knows from outside.
        name = found.dtype.name
        try:
            found, note = found.astype(np.float32), f"{where}: read from {name} as float32"
        except (TypeError, ValueError) as error:
            raise ConfigError(f"{where}: {name} values are no numbers") from error
    if found.dtype.kind not in _NUMBERS:
        raise _no_numbers(found, where)
    if not found.ndim:
        raise ConfigError(
            f"{where}: a single value, {found!s:.{_SHOWN}}, where an array of examples is wanted"
        )
    if not found.dtype.isnative:
        found = found.astype(found.dtype.newbyteorder("="))
        note = f"{where}: turned to this machine's byte order"
    return found, note


def _plain(value: object, where: str) -> Array:
    if isinstance(value, np.ma.MaskedArray):
        masked = np.argwhere(np.asarray(value.mask) if value.mask is not np.ma.nomask else np.zeros(0))
        if count := len(masked):
            row = int(masked[0][0])
            raise ConfigError(
                f"{where}: masked values, {count} in all, the first in row {row}",
                hint="fill them with .filled(VALUE), or leave their examples out",
            )
        return np.asarray(value.data)
    if isinstance(value, np.ndarray):
        return np.asarray(value)
    if isinstance(value, list | tuple | int | float | np.generic):
        return _of_list(value, where)
    return _of_tensor(value, where)


def _of_list(value: Any, where: str) -> Array:
    if isinstance(value, list | tuple) and value and _has_array(value[0]):
        # One by one: NumPy would ask a tensor for every single number.
        rows = [
            to_array(row, f"{where}[{index}]")[0] if np.ndim(row) else row for index, row in enumerate(value)
        ]
        shapes = sorted({np.shape(row) for row in rows})
        if len(shapes) > 1:
            raise ConfigError(
                f"{where}: a list of arrays of different shapes, {list(shapes[0])} and {list(shapes[1])}",
                hint="pad or cut them to one length",
            )
        value = [np.asarray(row) for row in rows]
    try:
        return np.asarray(value)
    except (ValueError, OverflowError) as error:
        raise _uneven(value, where, "a list", error) from error


def _of_tensor(value: Any, where: str) -> Array:
    kind = _kind(value)
    if hasattr(value, "toarray"):
        raise ConfigError(f"{where}: a sparse {kind}", hint="hand over .toarray()")
    if not _has_array(value):
        raise ConfigError(
            f"{where}: a {kind} is no array", hint="hand over NumPy arrays: one of inputs, one of targets"
        )
    try:
        return _asked(value)
    except Exception as error:
        # A tensor that is watched for gradients, or on a GPU, or of a dtype that NumPy does not have.
        if not all(callable(getattr(value, name, None)) for name in ("detach", "cpu", "float")):
            raise ConfigError(f"{where}: a {kind} that cannot become an array: {shortened(error)}") from error
    for widened in (False, True):
        try:
            plain = value.detach().cpu()
            return _asked(plain.float() if widened else plain)
        except Exception as error:  # noqa: BLE001  whatever a framework says
            reason = shortened(error)
    raise ConfigError(f"{where}: a {kind} that cannot become an array: {reason}")


def _asked(value: Any) -> Array:
    """What a foreign array tells NumPy; how it does so, and its warnings, are nothing that a user can mend."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        return np.asarray(value)


def _of_objects(array: Array, where: str) -> Array:
    """Numbers that lie in an array of Python objects."""
    try:
        found = np.asarray(array.tolist())
    except (ValueError, OverflowError) as error:
        raise _uneven(array.tolist(), where, "an array of Python objects", error) from error
    if found.dtype.kind in _NUMBERS:
        return found
    missing = [index for index, item in enumerate(array.flat) if item is None]
    if missing:
        row = int(np.unravel_index(missing[0], array.shape)[0]) if array.ndim else 0
        raise ConfigError(
            f"{where}: missing values (None), {len(missing)} in all, the first in row {row}",
            hint="fill them, or leave their examples out",
        )
    if all(isinstance(item, int | float) for item in array.flat):
        raise ConfigError(
            f"{where}: whole numbers of more than 64 bits", hint="scale them, and hand over float32"
        )
    odd = next((item for item in array.flat if not isinstance(item, int | float | np.number)), None)
    if found.dtype.kind in "US":
        raise _no_numbers(found, where)
    raise ConfigError(
        f"{where}: an array of Python objects, with a {type(odd).__name__} among them: {_short(odd)}",
        hint="hand over an array of numbers: np.stack(rows).astype(np.float32)",
    )


def _uneven(rows: Any, where: str, what: str, error: Exception) -> ConfigError:
    lengths = (
        sorted({len(row) for row in rows if hasattr(row, "__len__")})
        if isinstance(rows, list | tuple)
        else []
    )
    if len(lengths) > 1:
        return ConfigError(
            f"{where}: {what} whose rows have between {lengths[0]} and {lengths[-1]} values",
            hint="pad or cut all rows to one length",
        )
    return ConfigError(f"{where}: {what} that is no array of numbers: {shortened(error)}")


def _no_numbers(array: Array, where: str) -> ConfigError:
    first = _short(array.flat[0].item()) if array.size else "nothing"
    match array.dtype.kind:
        case "U" | "S":
            return ConfigError(
                f"{where}: text, such as {first}, where numbers are wanted",
                hint="number classes in one order for all splits: "
                "names = np.unique(train_labels); np.searchsorted(names, labels)",
            )
        case "V":
            fields = ", ".join(map(str, array.dtype.names or ()))
            return ConfigError(
                f"{where}: a structured array with the fields {fields}",
                hint="hand over plain columns: numpy.lib.recfunctions.structured_to_unstructured(array)",
            )
        case "c":
            return ConfigError(
                f"{where}: complex numbers ({array.dtype})",
                hint="hand over real and imaginary parts as two channels: np.stack([x.real, x.imag], 1)",
            )
        case _:
            return ConfigError(
                f"{where}: {array.dtype} values, such as {first}, are no numbers",
                hint="hand over numbers, for example days since a first day",
            )


def _has_array(value: object) -> bool:
    return hasattr(value, "__array__") or hasattr(value, "__array_interface__")


def _kind(value: object) -> str:
    kind = type(value)
    root = kind.__module__.split(".")[0]
    if root == "builtins" or root.startswith("xbfl_user_"):
        return kind.__name__
    return f"{root} {kind.__name__}"


def _short(value: object) -> str:
    text = repr(value)
    return text if len(text) <= _SHOWN else f"{text[:_SHOWN]}…"
