"""Which output of one model is which output of the other, and how its axes lie."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace

from xbackend_fl.canonical import Binding, Description, Schema
from xbackend_fl.canonical.binding import Axes
from xbackend_fl.canonical.schema import Port
from xbackend_fl.errors import MismatchError


def check_outputs(reference: Schema, candidate: Schema) -> None:
    """Outputs that both models name are paired by name, others by position; a single one needs no name.

    Raises:
        MismatchError: A name or an output is missing on one side, or only one side gives several outputs names.
    """
    ours, theirs = _keys(reference.outputs), _keys(candidate.outputs)
    if all(ours) and all(theirs):
        missing, more = sorted(set(ours) - set(theirs)), sorted(set(theirs) - set(ours))
        if missing or more:
            lines = [f"  {key!r} is returned by the reference alone" for key in missing]
            lines += [f"  {key!r} is returned by the candidate alone" for key in more]
            raise MismatchError(
                "\n".join(["the two models do not return the same outputs:", *lines]),
                hint="give the outputs the same names on both sides, and leave out what only one of them returns",
            )
        return
    if len(ours) != len(theirs):
        raise MismatchError(
            f"the reference returns {_words(ours)}, the candidate {_words(theirs)}",
            hint="return the same outputs on both sides",
        )
    if len(ours) > 1 and (any(ours) or any(theirs)):
        raise MismatchError(
            f"the reference returns {_words(ours)}, the candidate {_words(theirs)}: nothing tells which is which",
            hint="return a dict or a named tuple with the same names on both sides, or a tuple in the same order on both",
        )


def fit_outputs(reference: Schema, candidate: Description) -> Binding:
    """The candidate's binding, its outputs in an order of axes in which they have the reference's shapes.

    What a graph tells of an output's axes is one reading of them; as it is returned, and channels last, are the others. Where
    none of them fits, an axis of length one comes or goes at the end.

    Raises:
        MismatchError: An output has the reference's shape in no order, or was declared in another.
    """
    pairs = zip(reference.outputs, candidate.schema.outputs, candidate.binding.outputs, strict=True)
    fitted = [_fitted(index, *pair) for index, pair in enumerate(pairs)]
    return replace(candidate.binding, outputs=tuple(fitted))


def _fitted(index: int, ours: Port, theirs: Port, axes: Axes) -> Axes:
    rank = len(axes.perm)
    native = tuple(theirs.shape[axis] for axis in axes.perm)
    options = [axes]
    if axes.note != "declared":
        options += [
            Axes(tuple(range(rank)), "as returned"),
            Axes((0, *range(2, rank), 1) if rank > 2 else axes.perm, "channels last"),
        ]
    if axes.note != "declared":
        options += _ends(native)
    for option in options:
        fits = len(option.perm) == len(ours.shape) and option.native_shape(ours.shape) == native
        if fits and (option.trailing >= 0 or ours.shape[option.perm[-1]] == 1):
            return option
    word = f"output {ours.key!r}" if ours.key else f"output {index}"
    raise MismatchError(
        f"{word} has the shape {list(ours.shape)} in the reference, and the candidate returns {list(native)} "
        f"(both for a batch of {ours.shape[0] if ours.shape else 1}; axes {list(axes.perm)}, {axes.note})",
        hint="return the same axes on both sides, channels first for an image of PyTorch and last for one of Keras; with_axes declares another order",
    )


def _ends(native: tuple[int, ...]) -> Iterator[Axes]:
    """Where one model returns one number for each example, and the other a row of one: an axis of length one at the end."""
    rank = len(native)
    yield Axes(tuple(range(rank + 1)), "as returned", -1)
    if rank > 1:
        yield Axes((0, *range(2, rank + 1), 1), "channels last", -1)
        if native[-1] == 1:
            yield Axes(tuple(range(rank - 1)), "as returned", 1)


def trailing_notes(binding: Binding) -> Iterator[str]:
    """Where a candidate has one axis of length one more or less than the reference."""
    for word, edges in (("input", binding.inputs), ("output", binding.outputs)):
        for index, axes in enumerate(edges):
            if axes.trailing:
                more = "one axis more" if axes.trailing > 0 else "one axis less"
                yield f"{word} {index} has {more} here, of length one, at its end: the numbers are the same"


def _keys(ports: tuple[Port, ...]) -> list[str]:
    return [port.key for port in ports]


def _words(keys: list[str]) -> str:
    if any(keys):
        return "outputs named " + ", ".join(map(repr, keys))
    return "one output" if len(keys) == 1 else f"{len(keys)} outputs without names"
