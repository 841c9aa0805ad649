"""Products that sum over axes: matrices, einsum of any equation, outer and bilinear products.

A product with a parameter is a dense layer, with its parameter laid out [out, in]; what is summed over nothing is a
product of elements; everything else is a MatMul.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Sequence
from dataclasses import dataclass

import numpy as np

from xbackend_fl.canonical import views
from xbackend_fl.canonical.graph import axes_ops
from xbackend_fl.canonical.graph.attention import product
from xbackend_fl.canonical.graph.builder import GraphBuilder
from xbackend_fl.canonical.graph.operands import Operand, as_value, combine, native_shape
from xbackend_fl.canonical.graph.picking import diagonal
from xbackend_fl.canonical.layout import Shape, Step
from xbackend_fl.canonical.value import Value
from xbackend_fl.errors import UnsupportedError

_SPARE = "ABCDEFGHIJKLMNOPQRSTUVWXYZ"


def matmul(builder: GraphBuilder, name: str, left: Operand, right: Operand) -> Operand:
    """``left @ right`` by NumPy's rules; a parameter matrix on either side makes a dense layer."""
    one, two = len(native_shape(left)), len(native_shape(right))
    if one == 1 or two == 1:
        return _with_vector(builder, name, left, right)
    if isinstance(right, Step) and isinstance(left, Value | np.ndarray) and two == 2:
        return builder.linear(name, as_value(builder, left), views.transposed(right, (1, 0)), None)
    if isinstance(left, Step) and isinstance(right, Value) and one == 2:
        swap = (*range(two - 2), two - 1, two - 2)
        turned = builder.linear(name, builder.transpose(right, swap), left, None)
        return builder.transpose(turned, swap)
    return product(builder, name, as_value(builder, left), as_value(builder, right))


def _with_vector(builder: GraphBuilder, name: str, left: Operand, right: Operand) -> Operand:
    """A vector is a matrix of one row on the left, of one column on the right; that axis is gone afterwards."""
    first, second = native_shape(left), native_shape(right)
    if len(first) == 1:
        left = axes_ops.reshape(builder, name, left, (1, *first))
    if len(second) == 1:
        right = axes_ops.reshape(builder, name, right, (*second, 1))
    made = matmul(builder, name, left, right)
    shape = native_shape(made)
    shape = (*shape[:-2], *shape[-2:][len(first) == 1 :])
    shape = shape[:-1] if len(second) == 1 else shape
    return axes_ops.reshape(builder, name, made, shape)


def linear(
    builder: GraphBuilder, name: str, operand: Operand, weight: Operand, bias: Operand | None
) -> Operand:
    """``operand @ weight.T + bias``; a weight that the model computes is data."""
    turned = axes_ops.transpose(builder, weight, (1, 0))
    value = as_value(builder, operand)
    if isinstance(weight, Step) and (bias is None or isinstance(bias, Step)):
        return builder.linear(name, value, weight, bias)
    made = matmul(builder, name, value, turned)
    return made if bias is None else combine(builder, "Add", name, made, bias)


@dataclass(frozen=True, eq=False)
class _Term:
    """An operand with a letter for each of its native axes."""

    operand: Operand
    letters: str

    def sizes(self) -> dict[str, int]:
        return dict(zip(self.letters, native_shape(self.operand), strict=True))


def einsum(builder: GraphBuilder, name: str, equation: str, operands: Sequence[Operand]) -> Operand:
    """``einsum`` of any number of operands, two at a time, in the order in which they are written.

    Raises:
        UnsupportedError: No operand is data.
    """
    words, result = _spelled(equation, [len(native_shape(item)) for item in operands])
    terms = [_Term(item, word) for item, word in zip(operands, words, strict=True)]
    terms = [_without_repeats(builder, name, term) for term in terms]
    first = next((term for term in terms if isinstance(term.operand, Value)), None)
    if first is None:
        raise UnsupportedError(f"{name!r}: einsum of parameters alone ({equation!r})")
    terms.remove(first)
    while terms:
        other = next((term for term in terms if set(term.letters) & set(first.letters)), terms[0])
        terms.remove(other)
        later = {letter for term in terms for letter in term.letters}
        keep = [
            letter for letter in dict.fromkeys(first.letters + other.letters) if letter in later | {*result}
        ]
        wanted = "".join(sorted(keep, key=lambda letter: _rank(letter, result)))
        first = _pair(builder, name, first, other, result if not terms else wanted, result)
    first = _summed(builder, name, first, result)
    order = [first.letters.index(letter) for letter in result]
    return axes_ops.transpose(builder, first.operand, order)


def _rank(letter: str, result: str) -> int:
    """Axes of the result come in its order, before those that are summed later."""
    return result.index(letter) if letter in result else len(result) + ord(letter)


def _spelled(equation: str, ranks: Sequence[int]) -> tuple[list[str], str]:
    """A word of letters for each operand, and for the result, without the ellipsis and with what an arrow says."""
    left, arrow, right = equation.replace(" ", "").partition("->")
    words = left.split(",")
    spare = [letter for letter in _SPARE if letter not in equation]
    rests = [
        rank - len(word.replace("...", "")) if "..." in word else 0
        for word, rank in zip(words, ranks, strict=True)
    ]
    longest = max(rests, default=0)
    wide = "".join(spare[:longest])
    spelled = [
        word.replace("...", wide[longest - rest :] if rest else "")
        for word, rest in zip(words, rests, strict=True)
    ]
    if arrow:
        return spelled, right.replace("...", wide)
    every = "".join(spelled)
    once = sorted(letter for letter in set(every) if every.count(letter) == 1 and letter not in wide)
    return spelled, wide + "".join(once)


def _without_repeats(builder: GraphBuilder, name: str, term: _Term) -> _Term:
    """A letter twice in one word is a diagonal."""
    letter = next((item for item in term.letters if term.letters.count(item) > 1), None)
    if letter is None:
        return term
    one = term.letters.index(letter)
    two = term.letters.index(letter, one + 1)
    rest = "".join(item for place, item in enumerate(term.letters) if place not in {one, two})
    made = diagonal(builder, name, term.operand, 0, one, two)
    return _without_repeats(builder, name, _Term(made, rest + letter))


def _summed(builder: GraphBuilder, name: str, term: _Term, keep: Iterable[str]) -> _Term:
    """A term without the axes that nobody keeps."""
    gone = [place for place, letter in enumerate(term.letters) if letter not in set(keep)]
    if not gone:
        return term
    value = as_value(builder, term.operand)
    made = builder.reduce("ReduceSum", name, value, gone, keepdims=False)
    return _Term(made, "".join(letter for place, letter in enumerate(term.letters) if place not in gone))


def _pair(builder: GraphBuilder, name: str, left: _Term, right: _Term, keep: str, result: str) -> _Term:
    """The product of two terms, summed over what is not kept."""
    if not isinstance(left.operand, Value):
        left, right = right, left
    left = _summed(builder, name, left, (*keep, *right.letters))
    right = _summed(builder, name, right, (*keep, *left.letters))
    sizes = left.sizes() | right.sizes()
    first, second = left.letters, right.letters
    shared = [axis for axis in first if axis in second and axis in keep]
    summed = [axis for axis in first if axis in second and axis not in keep]
    ours = [axis for axis in first if axis not in second]
    theirs = sorted((axis for axis in second if axis not in first), key=lambda axis: _rank(axis, result))

    def lengths(*groups: Sequence[str]) -> Shape:
        return tuple(math.prod(sizes[axis] for axis in group) for group in groups)

    if not summed:
        return _multiplied(builder, name, left, right, [*shared, *ours, *theirs])
    ours_shape, theirs_shape = (tuple(sizes[axis] for axis in group) for group in (ours, theirs))
    batch = tuple(sizes[axis] for axis in shared)
    if isinstance(right.operand, Step) and not shared:
        data = _turned(builder, name, left, [*ours, *summed], (*ours_shape, *lengths(summed)))
        order = [second.index(axis) for axis in (*theirs, *summed)]
        weight = views.reshaped(views.transposed(right.operand, order), lengths(theirs, summed))
        made: Operand = builder.linear(name, as_value(builder, data), weight, None)
    else:
        data = _turned(builder, name, left, [*shared, *ours, *summed], (*batch, *lengths(ours, summed)))
        other = _turned(builder, name, right, [*shared, *summed, *theirs], (*batch, *lengths(summed, theirs)))
        made = matmul(builder, name, as_value(builder, data), as_value(builder, other))
    made = axes_ops.reshape(builder, name, made, (*batch, *ours_shape, *theirs_shape))
    return _Term(made, "".join([*shared, *ours, *theirs]))


def _turned(builder: GraphBuilder, name: str, term: _Term, order: Sequence[str], shape: Shape) -> Operand:
    """A term with its axes in another order, some of them merged."""
    turned = axes_ops.transpose(builder, term.operand, [term.letters.index(axis) for axis in order])
    return turned if native_shape(turned) == shape else axes_ops.reshape(builder, name, turned, shape)


def _multiplied(builder: GraphBuilder, name: str, left: _Term, right: _Term, order: Sequence[str]) -> _Term:
    """A product of elements: what one term lacks has length one there."""

    def spread(term: _Term) -> Operand:
        own = [axis for axis in order if axis in term.letters]
        turned = axes_ops.transpose(builder, term.operand, [term.letters.index(axis) for axis in own])
        sizes = term.sizes()
        shape = tuple(sizes.get(axis, 1) for axis in order)
        return turned if native_shape(turned) == shape else axes_ops.reshape(builder, name, turned, shape)

    made = combine(builder, "Mul", name, spread(left), spread(right))
    return _Term(made, "".join(order))


def bilinear(
    builder: GraphBuilder, name: str, left: Operand, right: Operand, weight: Operand, bias: Operand | None
) -> Operand:
    """``y[o] = Σ left[i] · weight[o, i, j] · right[j]``, plus a bias."""
    made = einsum(builder, name, "...i,oij,...j->...o", [left, weight, right])
    return made if bias is None else combine(builder, "Add", name, made, bias)


def tensordot(
    builder: GraphBuilder,
    name: str,
    left: Operand,
    right: Operand,
    first: Sequence[int],
    second: Sequence[int],
) -> Operand:
    """A product summed over the axes ``first`` of the left and ``second`` of the right operand."""
    one, two = len(native_shape(left)), len(native_shape(right))
    letters = [chr(ord("a") + place) for place in range(one + two)]
    ours, theirs = letters[:one], letters[one:]
    for place, other in zip(first, second, strict=True):
        theirs[other % two] = ours[place % one]
    gone = {ours[place % one] for place in first}
    rest = [letter for letter in (*ours, *theirs) if letter not in gone]
    return einsum(builder, name, f"{''.join(ours)},{''.join(theirs)}->{''.join(rest)}", [left, right])
