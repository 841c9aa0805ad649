"""What a model returns, in one order on every backend: tuples by position, everything with names by name."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import Any

from xbackend_fl.adapter.structure import parts_of
from xbackend_fl.errors import UnsupportedError

_ALONE = ""


def output_leaves(returned: Any, is_tensor: Callable[[Any], bool]) -> tuple[tuple[str, Any], ...]:
    """The tensors of what a model returned, each with its key.

    A dict, a named tuple and a dataclass give their values names, and names have no order: outputs with names are sorted by
    name, so that two models that return the same names agree however either was written. A nested output joins its names
    with dots; ``None`` is no output.

    Args:
        returned: What a call of the model gave.
        is_tensor: Whether a leaf is a tensor of the framework.

    Returns:
        ``(key, tensor)`` pairs; every key is empty if nothing has a name.

    Raises:
        UnsupportedError: A leaf is no tensor, or there is none.
    """
    found = [item for item in _walk(returned, (), is_tensor) if item[1] is not None]
    for path, leaf in found:
        if not is_tensor(leaf):
            where = f"the output {_dotted(path)!r}" if path else "the output"
            raise UnsupportedError(
                f"{where} of the model is of the type {type(leaf).__name__}, not a tensor",
                hint="return tensors only; None, tuples, dicts, named tuples and dataclasses of tensors are read",
            )
    if not found:
        raise UnsupportedError(
            "the model returns no tensor", hint="return what the loss is to be computed of"
        )
    if not any(isinstance(part, str) for path, _ in found for part in path):
        return tuple((_ALONE, leaf) for _, leaf in found)
    return tuple(sorted(((_dotted(path), leaf) for path, leaf in found), key=lambda item: item[0]))


def require_float32(dtype: str, name: str) -> None:
    """Refuse an output that cannot be compared, or trained on, in float32.

    Args:
        dtype: Its type of numbers, as NumPy names it.
        name: Its key, or its place among the outputs.

    Raises:
        UnsupportedError: It is something else.
    """
    if dtype == "float32":
        return
    cure = (
        f"end it with a cast to float32; the toolkit computes in float32, and {dtype} is another function"
        if "float" in dtype
        else "return scores, and take classes or comparisons of them outside the model"
    )
    raise UnsupportedError(f"the output {name!r} of the model is {dtype}; expected float32", hint=cure)


def _walk(
    item: Any, path: tuple[str | int, ...], is_tensor: Callable[[Any], bool]
) -> Iterator[tuple[tuple[str | int, ...], Any]]:
    if is_tensor(item):
        yield path, item
        return
    parts = parts_of(item)
    if parts is None:
        yield path, item
        return
    for key, part in parts:
        yield from _walk(part, (*path, key), is_tensor)


def _dotted(path: tuple[str | int, ...]) -> str:
    return ".".join(map(str, path))
