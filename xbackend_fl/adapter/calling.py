"""How a model is called with the arrays of an example: by position, by name, or with some of them in one container."""

from __future__ import annotations

import dataclasses
import inspect
import typing
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from itertools import chain, combinations, islice, pairwise, permutations
from keyword import iskeyword
from typing import Any, TypeAlias

from xbackend_fl.adapter.likeness import likeness
from xbackend_fl.adapter.structure import (
    Given,
    Leaf,
    Path,
    Tree,
    dotted,
    filled,
    keyed_leaves,
    leaves,
    parts_of,
    shown_tree,
)
from xbackend_fl.errors import UnsupportedError, shortened

MAX_WAYS = 64
"""Ways of calling a model that are tried."""


@dataclass(frozen=True)
class Way:
    """A way to call a model.

    Attributes:
        arguments: Trees that are given by position, with the leaves of the example.
        options: Trees that are given by name.
        order: The model's input ``i`` is array ``order[i]`` of the example; it has its inputs in the order of its own parameters.
        names: What the model calls its inputs, in its own order; empty where it has no name for one.
        keyed: Which of them are given by name alone, as keys of a dict are: these have no order.
    """

    arguments: tuple[Tree, ...]
    options: Mapping[str, Tree]
    order: tuple[int, ...]
    names: tuple[str, ...]
    keyed: tuple[bool, ...]

    def __str__(self) -> str:
        words = [shown_tree(tree) for tree in self.arguments]
        words += [f"{name}={shown_tree(tree)}" for name, tree in self.options.items()]
        return f"({', '.join(words)})"

    @property
    def plain(self) -> bool:
        """Whether every argument is one array."""
        return all(isinstance(tree, Leaf) for tree in (*self.arguments, *self.options.values()))

    def call(self, function: Callable[..., Any], inputs: Sequence[Any], **more: Any) -> Any:
        """What a function returns.

        Args:
            function: The model.
            inputs: One per input, in the model's own order.
            more: Further arguments.
        """
        arguments, options = self.filled(inputs)
        return function(*arguments, **options, **more)

    def filled(self, inputs: Sequence[Any]) -> tuple[tuple[Any, ...], dict[str, Any]]:
        """The arguments by position and by name, with ``inputs`` in the model's own order."""
        values = dict(zip(self.order, inputs, strict=True))
        return (
            tuple(filled(tree, values) for tree in self.arguments),
            {name: filled(tree, values) for name, tree in self.options.items()},
        )

    @property
    def words(self) -> list[tuple[str, str]]:
        """Name, or number, and key of every input, in the model's own order; the key is empty where it has none."""
        pairs = zip(self.names, self.keyed, strict=True)
        return [(name or f"input_{place}", name if key else "") for place, (name, key) in enumerate(pairs)]

    @property
    def back(self) -> list[int]:
        """The example's array ``i`` is the model's input ``back[i]``."""
        return [self.order.index(index) for index in range(len(self.order))]

    def own(self, arrays: Sequence[Any]) -> list[Any]:
        """Arrays in the example's order, brought to the model's own."""
        return [arrays[index] for index in self.order]


def way_of(
    arguments: Sequence[tuple[str, Tree]],
    options: Sequence[tuple[str, Tree]] = (),
    by_name_alone: Sequence[str] = (),
) -> Way:
    """A way with the names that follow from it.

    Args:
        arguments: Name of the parameter, empty if it has none, and tree.
        options: Likewise, for what is given by name.
        by_name_alone: Which of these cannot be given by position.
    """
    found: list[tuple[Path, Leaf]] = []
    keys: set[int] = set()
    alone = len(arguments) + len(options) == 1
    for name, tree in (*arguments, *options):
        # One container's own name says nothing about what lies in it.
        hidden = not name or (alone and not isinstance(tree, Leaf))
        found += leaves(tree, () if hidden else (name,))
        keys |= keyed_leaves(tree)
    keys |= {tree.index for name, tree in options if name in by_name_alone and isinstance(tree, Leaf)}
    return Way(
        tuple(tree for _, tree in arguments),
        dict(options),
        tuple(leaf.index for _, leaf in found),
        tuple(dotted(path) for path, _ in found),
        tuple(leaf.index in keys for _, leaf in found),
    )


@dataclass(frozen=True)
class Parameters:
    """What a function takes.

    Attributes:
        placed: Names of the parameters that may be given by position.
        named: Names of those that are given by name only.
        required: Those without a default.
        takes_rest: Whether it takes any number by position.
        annotations: Classes that parameters are annotated with, where they can be found.
    """

    placed: tuple[str, ...]
    named: tuple[str, ...] = ()
    required: frozenset[str] = frozenset()
    takes_rest: bool = False
    annotations: Mapping[str, Any] = dataclasses.field(default_factory=dict)

    @staticmethod
    def from_function(
        function: Callable[..., Any], ignored: Callable[[inspect.Parameter], bool] = lambda _: False
    ) -> Parameters:
        """The parameters of a function; one that does not say takes any number by position.

        Args:
            function: The function.
            ignored: Whether a parameter is for something else than data.
        """
        try:
            found = [p for p in inspect.signature(function).parameters.values() if not ignored(p)]
        except (TypeError, ValueError):
            return Parameters((), takes_rest=True)
        try:
            annotations = typing.get_type_hints(function)
        except Exception:  # noqa: BLE001  a name in an annotation need not exist
            annotations = {}
        rest = {inspect.Parameter.VAR_POSITIONAL, inspect.Parameter.VAR_KEYWORD}
        return Parameters(
            tuple(p.name for p in found if p.kind in {p.POSITIONAL_ONLY, p.POSITIONAL_OR_KEYWORD}),
            tuple(p.name for p in found if p.kind is p.KEYWORD_ONLY),
            frozenset(p.name for p in found if p.default is p.empty and p.kind not in rest),
            any(p.kind is p.VAR_POSITIONAL for p in found),
            annotations,
        )

    def __str__(self) -> str:
        return ", ".join((*self.placed, *(["…"] if self.takes_rest else []), *self.named))

    @property
    def number(self) -> str:
        """How many arrays it takes, in words."""
        limit, least = len(self.placed) + len(self.named), len(self.required)
        return f"{least}" if least == limit or self.takes_rest else f"{least} to {limit}"


def ways(parameters: Parameters, given: Given) -> Iterator[Way]:
    """Ways in which a function may be called with an example, the likeliest first, each once.

    What the example says comes first: its names, its containers. Then its arrays one by one, in one container and in several.

    Args:
        parameters: What the function takes.
        given: The example.
    """
    known: set[str] = set()
    for way in islice(_every(parameters, given), MAX_WAYS):
        if repr(way) not in known:
            known.add(repr(way))
            yield way


def likeliest(what: str, parameters: Parameters, given: Given) -> Iterator[Way]:
    """:func:`ways` of a function for which there is one.

    Args:
        what: Who is called, for the message.
        parameters: What it takes.
        given: The example.

    Raises:
        UnsupportedError: It takes more or fewer inputs.
    """
    several = ways(parameters, given)
    first = next(several, None)
    if first is None:
        raise UnsupportedError(
            f"{what} takes {parameters.number} inputs ({parameters}); the example has {len(given.arrays)}",
            hint="give one --input per input of the model, or give what is no data a default",
        )
    return chain([first], several)


Failed: TypeAlias = Sequence[tuple[Way, BaseException]]
"""Ways that were tried, with what was raised."""


def first_taken(
    several: Iterator[Way],
    raises: Callable[[Way], BaseException | None],
    refusal: Callable[[Failed], UnsupportedError] | None,
) -> Way:
    """The first way that a model takes.

    One array for one argument is not tried, and where each argument is one array the likeliest is taken whatever it raises: what it raises there says most.

    Args:
        several: One way at least, the likeliest first.
        raises: What a call in this way raises.
        refusal: Made of the ways that failed, if the model takes containers; without it the likeliest is taken then, too.

    Raises:
        UnsupportedError: It takes containers, and none of those that were tried.
    """
    failed: list[tuple[Way, BaseException]] = []
    for way in islice(several, MAX_WAYS):
        if not failed and way.plain and len(way.order) == 1:
            return way
        if (error := raises(way)) is None:
            return way
        failed.append((way, error))
    if failed[0][0].plain or refusal is None:
        return failed[0][0]
    raise refusal(failed)


def by_names(
    names: Sequence[str], given: Given, made: Callable[[Sequence[Leaf]], Way], *, keyed: bool = False
) -> Iterator[Way]:
    """Ways to call a model that has a number of inputs, all named: by name if the example has the same names; else in any order.

    Args:
        names: What the model calls its inputs, in its own order.
        given: The example.
        made: Makes the way of leaves in the model's own order.
        keyed: Whether its inputs have keys and no order: what is called alike comes first then.
    """
    leaves = [Leaf(index) for index in range(len(given.arrays))]
    if same_names(names, given.names):
        yield made([Leaf(given.names.index(name)) for name in names])
        return
    if keyed and all(given.names) and len(leaves) <= _MAX_NAMES:
        alike = [[likeness(name, other) for other in given.names] for name in names]

        def rank(order: tuple[Leaf, ...]) -> float:
            return -sum(row[leaf.index] for row, leaf in zip(alike, order, strict=True))

        yield from map(made, sorted(permutations(leaves), key=rank))
        return
    for order in permutations(leaves):
        yield made(order)


def same_names(one: Sequence[str], two: Sequence[str]) -> bool:
    """Whether names pair inputs: every input has one, no two have the same, and both sides have the same."""
    return all(one) and len({*one}) == len(one) == len(two) and {*one} == {*two}


def _every(parameters: Parameters, given: Given) -> Iterator[Way]:
    tree = given.tree
    parts = parts_of(tree)
    if parts is None:
        yield from _by_place(parameters, [tree])
        return
    named = all(isinstance(name, str) for name, _ in parts)
    if named:
        yield from _by_name(parameters, [(str(name), part) for name, part in parts])
        if not isinstance(tree, dict):
            yield from _whole(parameters, tree)
    else:
        yield from _by_place(parameters, [part for _, part in parts])
    flat = [Leaf(index) for index in range(len(given.arrays))]
    if named and len(flat) == len(parts):
        for container in _containers(parameters, [str(name) for name, _ in parts], flat):
            yield from _whole(parameters, container)
        yield from _nested(parameters, given)
    elif named:
        yield from _whole(parameters, {str(name): part for name, part in parts})
    orders = permutations(flat) if all(isinstance(part, Leaf) for _, part in parts) else iter([flat])
    for order in orders:
        yield from _by_place(parameters, order)
        for container in _containers(parameters, [], order):
            yield from _whole(parameters, container)
        yield from _grouped(parameters, order)


def _assigned(parameters: Parameters, trees: Mapping[str, Tree]) -> Iterator[Way]:
    """The way that gives some parameters something, if these are all that it needs."""
    if parameters.required <= trees.keys() <= {*parameters.placed, *parameters.named}:
        first = next((i for i, n in enumerate(parameters.placed) if n not in trees), len(parameters.placed))
        rest = [*parameters.placed[first:], *parameters.named]
        yield way_of(
            [(name, trees[name]) for name in parameters.placed[:first]],
            [(name, trees[name]) for name in rest if name in trees],
            parameters.named,
        )


def _by_name(parameters: Parameters, parts: Sequence[tuple[str, Tree]]) -> Iterator[Way]:
    trees = dict(parts)
    own = {*parameters.placed, *parameters.named}
    yield from _assigned(parameters, trees)
    missing, left = parameters.required - trees.keys(), {n: t for n, t in parts if n not in own}
    if len(missing) == 1 and left and parameters.required != missing:
        # What has no parameter of its own lies in the one that nothing is named for.
        (name,) = missing
        yield from _assigned(parameters, {n: t for n, t in trees.items() if n in own} | {name: left})


def _by_place(parameters: Parameters, trees: Sequence[Tree]) -> Iterator[Way]:
    if parameters.takes_rest:
        names = [*parameters.placed, *[""] * len(trees)]
        arguments = list(zip(names, trees, strict=False))
        if not parameters.required - {*parameters.placed[: len(trees)]}:
            yield way_of(arguments)
        return
    every = [*parameters.placed, *parameters.named]
    if len(trees) > len(every):
        return
    yield from _assigned(parameters, dict(zip(every, trees, strict=False)))
    needed = [name for name in every if name in parameters.required]
    free = [name for name in every if name not in parameters.required]
    chosen = {*needed, *free[: len(trees) - len(needed)]}
    if len(chosen) == len(trees):
        yield from _assigned(parameters, dict(zip((n for n in every if n in chosen), trees, strict=True)))


def _whole(parameters: Parameters, tree: Tree) -> Iterator[Way]:
    """Everything in the first parameter."""
    if parameters.placed:
        yield from _assigned(parameters, {parameters.placed[0]: tree})
    elif len(parameters.named) == 1:
        yield from _assigned(parameters, {parameters.named[0]: tree})


def _containers(parameters: Parameters, names: Sequence[str], items: Sequence[Tree]) -> Iterator[Tree]:
    """Containers that hold some trees, by name if there are names."""
    kind = parameters.annotations.get(parameters.placed[0]) if parameters.placed else None
    fields = _fields(kind)
    if fields and len(fields) == len(items):
        by_name = dict(zip(names, items, strict=True)) if {*names} == {*fields} else None
        if kind is not None and (by_name or not names):
            yield kind(**(by_name or dict(zip(fields, items, strict=True))))
    if names:
        yield dict(zip(names, items, strict=True))
        if all(name.isidentifier() and not iskeyword(name) for name in names):
            # What is read as attributes, if nothing says what class it is.
            yield dataclasses.make_dataclass("Inputs", names)(*items)
    else:
        yield tuple(items)
        yield list(items)


def _fields(kind: Any) -> tuple[str, ...]:
    if not isinstance(kind, type):
        return ()
    if dataclasses.is_dataclass(kind):
        return tuple(field.name for field in dataclasses.fields(kind) if field.init)
    if issubclass(kind, tuple):
        return tuple(getattr(kind, "_fields", ()))
    return tuple(kind.__annotations__) if typing.is_typeddict(kind) else ()


def _nested(parameters: Parameters, given: Given) -> Iterator[Way]:
    """Names with dots are names in containers."""
    if not any("." in name for name in given.names):
        return
    tree: dict[str, Any] = {}
    for index, name in enumerate(given.names):
        inner = tree
        *outer, last = name.split(".")
        for word in outer:
            inner = inner.setdefault(word, {})
            if not isinstance(inner, dict):
                return
        inner[last] = Leaf(index)
    listed = _listed(tree)
    yield from _by_name(parameters, list(listed.items()) if isinstance(listed, dict) else [])
    yield from _whole(parameters, listed)


def _listed(tree: Tree) -> Tree:
    """Dicts whose keys are the numbers from 0 on are tuples."""
    if not isinstance(tree, dict):
        return tree
    made = {key: _listed(item) for key, item in tree.items()}
    return tuple(made.values()) if list(made) == [str(i) for i in range(len(made))] else made


def _grouped(parameters: Parameters, items: Sequence[Tree]) -> Iterator[Way]:
    """Neighbours in one container each, if there are more arrays than parameters that need one."""
    needed = [name for name in parameters.placed if name in parameters.required]
    if not 1 < len(needed) < len(items) or parameters.takes_rest:
        return
    for kind in (tuple, list):
        for cuts in combinations(range(1, len(items)), len(needed) - 1):
            edges = [0, *cuts, len(items)]
            groups = [items[a:b] for a, b in pairwise(edges)]
            trees = [group[0] if len(group) == 1 else kind(group) for group in groups]
            yield from _assigned(parameters, dict(zip(needed, trees, strict=True)))


def not_callable(what: str, parameters: Parameters, failed: Failed) -> UnsupportedError:
    """The refusal of a model that takes its inputs in containers, and in none of those that were tried.

    Args:
        what: Who is called.
        parameters: What it takes.
        failed: The ways that were tried, with what was raised.
    """
    shown = [item for item in failed if isinstance(item[1], KeyError | AttributeError)] or failed
    way, error = shown[0]
    return UnsupportedError(
        f"{what} takes {parameters.number} inputs ({parameters}); the example has {len(way.order)}, and as {way} it raises "
        f"{type(error).__name__}: {shortened(error)}",
        hint="give one --input per input of the model, in the form that it takes: {'name': array, …} for a dict, ((a, b), c) for a pair "
        "and one; --input name=1,3,64,64 names one on the command line and in a course",
    )


_MAX_NAMES = 7
"""Of inputs whose names are compared in every order."""
