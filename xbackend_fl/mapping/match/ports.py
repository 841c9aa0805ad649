"""Which output of one model is which output of the other, and how its axes lie."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import replace
from itertools import islice, permutations

from xbackend_fl.canonical import Binding, Description, Schema
from xbackend_fl.canonical.binding import Axes
from xbackend_fl.canonical.schema import Port
from xbackend_fl.errors import MismatchError


def check_outputs(reference: Schema, candidate: Schema) -> None:
    """Outputs that both models name are paired by name, others by position (:func:`output_orders`); a single one needs no name.

    Raises:
        MismatchError: A name or an output is missing on one side.
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


_ORDERS = 24
"""Most orders of outputs that are tried."""


def output_orders(reference: Schema, candidate: Schema) -> list[tuple[int, ...]]:
    """Orders in which a candidate's outputs may be the reference's: as they are, unless names on one side alone say nothing of places.

    Then the numbers tell them apart, among the orders in which shapes have the same lengths.
    """
    ours, theirs = _keys(reference.outputs), _keys(candidate.outputs)
    as_it_is = [tuple(range(len(theirs)))]
    if any(ours) == any(theirs):
        return as_it_is
    return fitting_orders(reference, candidate) or as_it_is


def fitting_orders(reference: Schema, candidate: Schema) -> list[tuple[int, ...]]:
    """Orders of a candidate's outputs in which shapes have the reference's lengths, as many as are tried; none where there is one output."""
    count = len(reference.outputs)
    if count < 2 or count != len(candidate.outputs):
        return []
    sizes = [[sorted(n for n in p.shape if n > 1) for p in one.outputs] for one in (reference, candidate)]
    fitting = (
        order
        for order in permutations(range(count))
        if all(sizes[0][place] == sizes[1][index] for place, index in enumerate(order))
    )
    return list(islice(fitting, _ORDERS))


def output_notes(reference: Schema, candidate: Schema, order: Sequence[int]) -> Iterator[str]:
    """Which output is which, where only numbers told."""
    ours, theirs = _keys(reference.outputs), _keys(candidate.outputs)
    if len(order) > 1 and any(ours) != any(theirs):
        pairs = (f"{ours[i] or theirs[j]!r} is output {j if any(ours) else i}" for i, j in enumerate(order))
        yield f"outputs have names on one side only, and the numbers tell which is which: {', '.join(pairs)}"


def outputs_untold(reference: Schema, candidate: Schema, refused: Sequence[MismatchError]) -> MismatchError:
    """The refusal of outputs with names on one side only.

    Args:
        reference: The reference.
        candidate: The candidate.
        refused: Why each order does not pass; none if several do.
    """
    ours, theirs = _keys(reference.outputs), _keys(candidate.outputs)
    hint = "return a dict or a named tuple with the same names on both sides, or a tuple in the same order on both"
    said = f"the reference returns {_words(ours)}, the candidate {_words(theirs)}: "
    if not refused:
        return MismatchError(f"{said}nothing tells which is which", hint=hint)
    # In the right order fewest things differ.
    likeliest = min(refused, key=lambda error: len(error.message))
    return MismatchError(
        f"{said}they agree in no order; in the likeliest {likeliest.message}", hint=likeliest.hint or hint
    )


def outputs_exchanged(reference: Schema, candidate: Schema, order: Sequence[int]) -> MismatchError:
    """The refusal of two models that are one function if the candidate's outputs trade places.

    Args:
        reference: The reference.
        candidate: The candidate, its outputs as it returns them.
        order: Which of the candidate's outputs is each of the reference's.
    """
    ours, theirs = (
        [port.key or str(place) for place, port in enumerate(one.outputs)] for one in (reference, candidate)
    )
    named = all(_keys(reference.outputs))
    shown = [[repr(key) if named else f"output {key}" for key in keys] for keys in (ours, theirs)]
    moved = [
        (shown[0][place], shown[1][index])
        for place, index in enumerate(order)
        if ours[place] != theirs[index]
    ]
    how = "two outputs are exchanged" if len(moved) == 2 else "outputs are in another order"
    pairs = ", and ".join(
        f"what the reference returns as {one} is {other} of the candidate" for one, other in moved
    )
    return MismatchError(
        f"{how}: {pairs}; all else is one function",
        hint="call each output by the same name on both sides"
        if named
        else f"return the candidate's outputs in the order {', '.join(theirs[index] for index in order)}, or a dict with the same names on "
        "both sides",
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
