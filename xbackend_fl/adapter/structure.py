"""The form in which a model takes its inputs: arrays by themselves, or in tuples, lists, dicts, named tuples and dataclasses."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, TypeAlias

Tree: TypeAlias = Any
"""Containers of one another whose leaves are :class:`Leaf`; anything else in them is a constant that is handed on as it is."""

Path: TypeAlias = tuple[str | int, ...]


@dataclass(frozen=True)
class Leaf:
    """The place of an array in a tree: which of the example's arrays it is, from 0."""

    index: int


@dataclass(frozen=True)
class Given:
    """An example as a user gives it.

    Attributes:
        tree: Its form.
        arrays: Its arrays, in the order in which they stand there.
        names: Their names, those of containers and what lies in them joined with dots; empty where only the place tells.
    """

    tree: Tree
    arrays: tuple[Any, ...]
    names: tuple[str, ...]

    @staticmethod
    def from_example(example: Any) -> Given:
        """The arrays of an example in any form, and the form.

        Args:
            example: An array, or containers of arrays; tensors of a framework are arrays too.
        """
        arrays: list[Any] = []

        def place(item: Any) -> Any:
            if item is None or isinstance(item, str):
                return item
            arrays.append(item)
            return Leaf(len(arrays) - 1)

        tree = rebuilt(example, place, stop=lambda item: hasattr(item, "__array__") or _is_numbers(item))
        found = dict(leaves(tree))
        by_index = {leaf.index: dotted(path) for path, leaf in found.items()}
        return Given(tree, tuple(arrays), tuple(by_index[index] for index in range(len(arrays))))


def _is_numbers(item: Any) -> bool:
    """Whether a list is written out numbers, and no container of arrays."""
    if not isinstance(item, list) or not item:
        return False
    return all(isinstance(part, int | float | complex | str) or _is_numbers(part) for part in item)


def parts_of(item: Any) -> list[tuple[str | int, Any]] | None:
    """Name or place, and value, of every part of a container; ``None`` for anything else."""
    if isinstance(item, Mapping):
        return [(str(key), value) for key, value in item.items()]
    if dataclasses.is_dataclass(item) and not isinstance(item, type | Leaf):
        return [(field.name, getattr(item, field.name)) for field in dataclasses.fields(item)]
    if isinstance(item, tuple) and hasattr(item, "_fields"):
        return list(zip(item._fields, item, strict=True))
    if isinstance(item, list | tuple):
        return list(enumerate(item))
    return None


def rebuilt(item: Any, make: Callable[[Any], Any], *, stop: Callable[[Any], bool] = lambda _: False) -> Any:
    """Containers of the same kinds with ``make`` of everything that is none.

    Args:
        item: The containers.
        make: Called once for each, in order.
        stop: Whether something is to be taken for a leaf, whatever it is.
    """
    parts = None if stop(item) else parts_of(item)
    if parts is None:
        return make(item)
    made = [rebuilt(value, make, stop=stop) for _, value in parts]
    if isinstance(item, Mapping):
        return dict(zip(item, made, strict=True))
    if dataclasses.is_dataclass(item):
        return dataclasses.replace(item, **dict(zip((str(name) for name, _ in parts), made, strict=True)))  # type: ignore[type-var]
    if isinstance(item, tuple):
        return item._make(made) if hasattr(item, "_make") else tuple(made)
    return made


def leaves(tree: Tree, path: Path = ()) -> Iterator[tuple[Path, Leaf]]:
    """Every leaf of a tree with the names and places that lead to it, in order."""
    if isinstance(tree, Leaf):
        yield path, tree
        return
    for key, part in parts_of(tree) or ():
        yield from leaves(part, (*path, key))


def keyed_leaves(tree: Tree) -> set[int]:
    """Indices of the leaves that lie in dicts, at any depth."""
    if isinstance(tree, Mapping):
        return {leaf.index for _, leaf in leaves(tree)}
    return {index for _, part in parts_of(tree) or () for index in keyed_leaves(part)}


def filled(tree: Tree, values: Mapping[int, Any] | Sequence[Any]) -> Any:
    """A tree with values in the place of its leaves, by their indices."""
    return rebuilt(tree, lambda item: values[item.index] if isinstance(item, Leaf) else item)


def dotted(path: Path) -> str:
    """The name of a leaf; empty if nothing on the way has one."""
    return ".".join(map(str, path)) if any(isinstance(part, str) for part in path) else ""


def shown_tree(tree: Tree) -> str:
    """A tree in words, its leaves as letters: ``{'user': a, 'item': b}``."""
    if isinstance(tree, Leaf):
        return chr(ord("a") + tree.index % 26)
    parts = parts_of(tree)
    if parts is None:
        return repr(tree)
    words = [shown_tree(part) for _, part in parts]
    if isinstance(tree, Mapping):
        return "{" + ", ".join(f"{key!r}: {word}" for key, word in zip(tree, words, strict=True)) + "}"
    if isinstance(tree, list):
        return f"[{', '.join(words)}]"
    if type(tree) is tuple:
        return f"({', '.join(words)}{',' if len(words) == 1 else ''})"
    named = (f"{key}={word}" for (key, _), word in zip(parts, words, strict=True))
    return f"{type(tree).__name__}({', '.join(named)})"
