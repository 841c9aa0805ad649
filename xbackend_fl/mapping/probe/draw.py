"""Draws weights and data that make differences visible."""

from __future__ import annotations

import hashlib
import math
import os
from collections import defaultdict
from collections.abc import Callable, Collection, Container, Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from functools import partial
from itertools import permutations
from typing import Any

import numpy as np
from numpy.typing import NDArray

from xbackend_fl.canonical import OPERATORS, Kind, Node, Parameter, Port, Property, Schema, has
from xbackend_fl.mapping.probe.branches import calmed
from xbackend_fl.mapping.probe.distributions import Assignment, Distribution, hidden, sample, vocabularies
from xbackend_fl.mapping.probe.markers import Compared, compared, values
from xbackend_fl.mapping.probe.pieces import in_pieces, put_together

Array = NDArray[Any]

BATCH = 4
"""Examples per probe: batch statistics need several."""

LARGE = 1 << 16
"""Values of a parameter from which on they are drawn by themselves and in float32: to draw them took longer than to run the model."""

CALM = frozenset({2, 3})
"""Seeds of draws in which the branches of a deep residual network add little, so that its last layers still have something to tell apart."""

FEATURES = {"Gemm": 1}
"""Where the weights of a layer, in its pieces, have the features that it reads."""

_THREADS = 4
"""Large parameters that are drawn at once, at most."""


def draw_weights(schema: Schema, seed: int, names: Container[str] | None = None) -> dict[str, Array]:
    """Random parameters that keep activations near one and put variances near the epsilons' reach.

    In front of a ReLU biases are far from zero: few values then lie so close to the kink that rounding decides on
    which side, and gradients of two frameworks can be compared closely. Under an even seed they lie on either
    side, so a channel is mostly on or mostly off. Under an odd seed they are positive: a channel that is always off
    has no variance, and training mode, which divides by it, would blow up rounding from layer to layer.

    Args:
        schema: The model.
        seed: Draws the values.
        names: The parameters that are wanted, with the values that they have among all; all if left out.
    """
    drawing = dict(_drawing(schema, seed, schema.by_name if names is None else names))
    with ThreadPoolExecutor(min(_THREADS, os.cpu_count() or 1)) as pool:
        return dict(zip(drawing, pool.map(lambda draw: draw(), drawing.values()), strict=True))


def _drawing(schema: Schema, seed: int, wanted: Container[str]) -> Iterator[tuple[str, Callable[[], Array]]]:
    """What draws each parameter, by name. A large one has a stream of its own: it waits for nobody, and nobody needs it."""
    generator = np.random.Generator(np.random.Philox(key=[seed, 1]))
    signs = (1.0,) if seed % 2 else (-1.0, 1.0)
    far = {name: tuple(sign * size for sign in signs) for name, size in _before_kinks(schema).items()}
    positive, calm = under_roots(schema), calmed(schema) if seed in CALM else {}
    for place, parameter in enumerate(schema.parameters):
        name, large = parameter.name, math.prod(parameter.shape) >= LARGE
        if large and name not in wanted:
            continue
        own = np.random.Generator(np.random.SFC64([seed, place])) if large else generator
        kept = far.get(name, ())
        # A bias that keeps values away from a kink stays as large as it is.
        size = 1.0 if kept else calm.get(name, 1.0)
        draw = partial(_draw, parameter, own, kept, positive=name in positive, size=size)
        if not large:
            draw = partial(np.asarray, draw())
        if name in wanted:
            yield name, draw


def features(schema: Schema) -> dict[str, int]:
    """The axis of the features that are read, for the weights of every dense and recurrent layer in its pieces.

    The rows of a table that constant places pick from, as relative positions do, may be counted in any order as well.
    """
    found = {
        parameter.name: FEATURES[parameter.operator]
        for parameter in in_pieces(schema).parameters
        if parameter.operator in FEATURES and parameter.role == "weight"
    }
    constants = {value for node in schema.nodes if node.operator == "Constant" for value in node.outputs}
    tables = [
        node.parameters.get("weight")
        for node in schema.nodes
        if node.operator == "Gather" and constants.issuperset(node.inputs)
    ]
    return found | {name: 0 for name in tables if name and name in schema.by_name}


def draw_by_shape(schema: Schema, salt: str = "", *, alike: bool = False) -> dict[str, Array]:
    """Values that depend on nothing but lengths of axes: two models that are the same function get equal weights.

    Neither the order of axes nor the operator that reads a parameter makes a difference, because two forms of one function
    have them otherwise: ``[in, out]`` and ``[out, in]`` hold the same numbers, transposed. Axes of one length may be
    exchanged: nothing in a shape tells which is which. All gates of a recurrent layer weigh alike: their order is a layout. Running statistics alone are drawn by their role.

    Args:
        schema: The model.
        salt: Another one gives other values.
        alike: Whether a dense or recurrent layer weighs all features that it reads alike, so that their order makes no difference.
    """
    axes = features(schema) if alike else {}
    known: dict[str, Array] = {}
    weights: dict[str, Array] = {}
    for parameter in in_pieces(schema).parameters:
        if (axis := axes.get(parameter.name)) is not None:
            weights[parameter.name] = _alike(parameter, axis, salt)
            continue
        lengths = [n for n in parameter.shape if n > 1]
        order = sorted(range(len(lengths)), key=lengths.__getitem__)
        role = parameter.role if parameter.role in {"mean", "variance"} else ""
        key = f"{salt}{role} {sorted(lengths)}"
        if key not in known:
            known[key] = _drawn_alike(sorted(lengths), role, key)
        turned = known[key].transpose(np.argsort(order))
        weights[parameter.name] = turned.reshape(parameter.shape).astype(parameter.dtype)
    return put_together(schema, weights)


def _alike(parameter: Parameter, axis: int, salt: str) -> Array:
    rest = [1 if place == axis else n for place, n in enumerate(parameter.shape)]
    seed = hashlib.sha256(f"{salt}alike {rest}".encode()).digest()
    generator = np.random.Generator(np.random.Philox(key=int.from_bytes(seed[:16], "little")))
    values = generator.standard_normal(rest) / math.sqrt(parameter.shape[axis])
    return np.broadcast_to(values, parameter.shape).astype(parameter.dtype)


def _drawn_alike(lengths: Sequence[int], role: str, key: str) -> Array:
    """Values for axes of ascending ``lengths``, the same if axes of one length are exchanged."""
    seed = hashlib.sha256(key.encode()).digest()
    generator = np.random.Generator(np.random.Philox(key=int.from_bytes(seed[:16], "little")))
    if role == "variance":
        return generator.uniform(0.05, 1.5, lengths)
    if role == "mean":
        return generator.standard_normal(lengths) * 0.3
    if len(lengths) < 2:
        return generator.uniform(0.5, 1.5, lengths)
    values = generator.standard_normal(lengths) * math.sqrt(2.0 / math.prod(lengths[:-1]))
    for length in sorted(set(lengths)):
        first, count = lengths.index(length), lengths.count(length)
        turns = [
            (*range(first), *turn, *range(first + count, len(lengths)))
            for turn in permutations(range(first, first + count))
        ]
        values = sum((values.transpose(turn) for turn in turns[1:]), values) / math.sqrt(len(turns))
    return values


def draw_inputs(
    schema: Schema,
    shapes: Sequence[tuple[int, ...]],
    seed: int,
    scale: float = 1.0,
    assignment: Assignment = (),
    like: Sequence[Array] = (),
) -> tuple[Array, ...]:
    """Random data: normal for floats unless ``assignment`` says otherwise, valid indices for integers.

    Args:
        schema: The model.
        shapes: Shape of each input; the batch axis is replaced.
        seed: Draws the data.
        scale: Of floats. Large data shows what bounds a value, such as ReLU6.
        assignment: A distribution for every input; normal for all if left out.
        like: Data that the model takes. Whole numbers that are read by no table, lengths and places, stay in their range.
    """
    generator = np.random.Generator(np.random.Philox(key=[seed, 2]))
    indices = vocabularies(schema)
    kinds = assignment or (Distribution.NORMAL,) * len(schema.inputs)
    marks = compared(schema)
    ranges = [range_of(array) for array in like] or [None] * len(kinds)
    drawn = [
        _whole((BATCH, *shape[1:]), numbers, marks.get(port.name, ()), generator).astype(port.dtype)
        if numbers is not None and port.name not in indices
        else sample(
            (BATCH, *shape[1:]),
            np.dtype(port.dtype),
            _kind(port, kind),
            generator,
            indices.get(port.name),
            values(marks.get(port.name, ())),
        )
        for port, shape, kind, numbers in zip(schema.inputs, shapes, kinds, ranges, strict=True)
    ]
    drawn = [
        _visible(schema, hidden(array, kind), kind) if port.binary else array
        for port, array, kind in zip(schema.inputs, drawn, kinds, strict=True)
    ]
    drawn = [
        _ended(array, indices.get(port.name, 2), generator) if port.padded else array
        for port, array in zip(schema.inputs, drawn, strict=True)
    ]
    return tuple(
        a if port.binary or a.dtype.kind != "f" else (a * scale).astype(a.dtype)
        for port, a in zip(schema.inputs, drawn, strict=True)
    )


def _ended(array: Array, rows: int, generator: np.random.Generator) -> Array:
    """Rows of indices with zeros at their ends only: an example has a length, and nothing within it is padding."""
    filled = np.where(array == 0, generator.integers(1, max(rows, 2), array.shape), array)
    lengths = generator.integers(1, array.shape[1] + 1, (len(array), 1))
    found: Array = np.where(np.arange(array.shape[1]) < lengths, filled, 0).astype(array.dtype)
    return found


def _visible(schema: Schema, mask: Array, kind: Distribution) -> Array:
    """A mask beside a causal one: the first step looks at itself alone, and where that is hidden each model answers what it likes."""
    if mask.ndim == 2 and kind is not Distribution.BLANK and any(map(_is_causal, schema.nodes)):
        mask[:, 0] = 1
    return mask


def _is_causal(node: Node) -> bool:
    """Whether a node hides the future, or is a constant that says what the past is, its axes in either order."""
    shape = node.attributes.get("shape") if node.operator == "Constant" else None
    if not isinstance(shape, tuple) or len(shape) < 2 or shape[-1] != shape[-2] or shape[-1] == 1:
        return node.operator == "CausalMask"
    numbers = np.asarray(node.attributes["value"]).reshape(-1, *map(int, shape[-2:]))
    past = np.tril(np.ones(numbers.shape[1:], bool))
    return any(bool((numbers.astype(bool) == one).all()) for one in (past, ~past, past.T, ~past.T))


def _whole(
    shape: tuple[int, ...],
    numbers: tuple[int, int],
    marks: Collection[Compared],
    generator: np.random.Generator,
) -> Array:
    """Whole numbers of a range, of which half are those that the model looks for."""
    found: Array = generator.integers(*numbers, shape)
    codes = sorted(
        int(mark.number) for mark in marks if not mark.ordering and mark.number == int(mark.number)
    )
    if codes:
        found = np.where(generator.random(shape) < 0.5, generator.choice(codes, shape), found)
    return found


def range_of(array: Array) -> tuple[int, int] | None:
    """The smallest whole number, and the largest and one more; ``None`` for floats, bytes, and zeros and ones."""
    if array.dtype.kind != "i" or array.dtype.itemsize < 4:
        return None
    low, high = int(array.min()), int(array.max())
    return None if 0 <= low <= high <= 1 else (low if low < high else min(low, 1), high + 1)


def _kind(port: Port, wanted: Distribution) -> Distribution:
    """A mask is never anything else than zeros and ones: what a model does with other numbers there is nobody's question."""
    return Distribution.BINARY if port.binary and wanted is not Distribution.ONES else wanted


def shaken(pairs: Sequence[tuple[str, str]], fitted: Mapping[str, Array], seed: int) -> dict[str, Array]:
    """Running statistics near those of the data: a net whose statistics fit exactly hides mean and variance.

    Args:
        pairs: Names of the mean and of the variance of each normalisation.
        fitted: Their values.
        seed: Draws the changes.
    """
    generator = np.random.Generator(np.random.Philox(key=[seed, 5]))
    result = {}
    for mean, variance in pairs:
        centre, spread = fitted[mean], fitted[variance]
        # A channel that hardly varies would blow up rounding errors, from layer to layer.
        floor = 0.3 * float(np.mean(spread)) + 1e-6
        shift = 0.2 * np.sqrt(np.maximum(spread, floor)) * generator.standard_normal(centre.shape)
        result[mean] = (centre + shift).astype(centre.dtype)
        factor = generator.uniform(0.6, 1.6, spread.shape)
        result[variance] = (np.maximum(spread, floor) * factor).astype(spread.dtype)
    return result


def _draw(
    parameter: Parameter,
    generator: np.random.Generator,
    far: tuple[float, ...],
    *,
    positive: bool,
    size: float = 1.0,
) -> Array:
    slot = OPERATORS[parameter.operator].slot(parameter.role)
    shape = parameter.shape
    if slot.fan_in_axes:
        fan_in = math.prod(shape[axis] for axis in slot.fan_in_axes if axis < len(shape))
        values = _random(generator, shape, math.sqrt(2.0 / max(fan_in, 1)))
    elif parameter.role == "variance":
        # Small enough for an epsilon of 1e-3 to differ visibly from 1e-5.
        values = generator.uniform(0.05, 1.5, shape)
    elif parameter.operator == "PRelu":
        values = generator.uniform(0.05, 0.5, shape)
    elif far:
        values = generator.uniform(1.0, 2.4, shape) * generator.choice(far, shape)
    elif parameter.operator == "BatchNormalization" and parameter.role == "weight":
        # Below one: deep networks amplify rounding errors otherwise.
        values = generator.uniform(0.3, 0.9, shape)
    elif parameter.operator == "Parameter":
        values = _random(generator, shape, 1.0)
    elif parameter.role == "weight" and parameter.operator != "Gather":
        values = generator.uniform(0.5, 1.5, shape)
    else:
        values = _random(generator, shape, 1.0 if parameter.operator == "Gather" else 0.3)
    values = values.astype(parameter.dtype, copy=False)
    if size != 1.0:
        values *= values.dtype.type(size)
    # A variance of the user's own, or what a logarithm is taken of: with both signs nothing would come out but NaN.
    return np.abs(values) + values.dtype.type(0.05) if positive else values


def _random(generator: np.random.Generator, shape: Sequence[int], spread: float) -> Array:
    """Values around zero with this standard deviation: normal; uniform and in float32 where there are many, which takes a ninth of the time."""
    count = math.prod(shape)
    if count < LARGE:
        return generator.standard_normal(shape) * spread
    values, width = np.empty(count, np.float32), np.float32(math.sqrt(12.0) * spread)
    for start in range(0, count, LARGE):
        # Few enough to stay in the processor's cache until they are scaled.
        part = values[start : start + LARGE]
        generator.random(dtype=np.float32, out=part)
        part -= np.float32(0.5)
        part *= width
    return values.reshape(shape)


def under_roots(schema: Schema) -> set[str]:
    """Parameters that enter a root or a logarithm as they are, or with a constant added, and single numbers that are added to what does."""
    readers: dict[str, list[Node]] = defaultdict(list)
    for node in schema.nodes:
        for value in node.inputs:
            readers[value].append(node)
    found: set[str] = set()
    for node in schema.nodes:
        waiting = list(node.outputs) if node.operator == "Parameter" else []
        # An epsilon that a model holds.
        single = bool(waiting) and math.prod(schema.by_name[node.parameters["weight"]].shape) == 1
        while waiting:
            for reader in readers[waiting.pop()]:
                if _is_root(reader):
                    found.update(node.parameters.values())
                elif has(reader.operator, Property.SHAPE_ONLY) or (
                    reader.operator == "Add" and (len(reader.inputs) == 1 or single)
                ):
                    waiting += reader.outputs
    return found


def _is_root(node: Node) -> bool:
    power = node.attributes.get("constant")
    return node.operator in {"Sqrt", "Log"} or (
        node.operator == "Pow" and isinstance(power, float) and not power.is_integer()
    )


def _before_kinks(schema: Schema) -> dict[str, float]:
    """Biases whose node feeds an activation with a kink, directly or through a sum, and the spread around them."""
    producers = {value: node for node in schema.nodes for value in node.outputs}
    found: dict[str, float] = {}

    def visit(value: str, depth: int) -> None:
        node: Node | None = producers.get(value)
        if node is None or depth > 4:
            return
        bias = node.parameters.get("bias")
        if (
            bias is not None
            and schema.by_name[bias].kind is Kind.TRAINABLE
            and len(schema.by_name[bias].shape) == 1
        ):
            narrow = node.operator == "BatchNormalization" and "weight" in node.parameters
            found[bias] = 1.0 if narrow else 1.6
        elif has(node.operator, Property.CARRIES_BIAS | Property.SHAPE_ONLY):
            for source in node.inputs:
                visit(source, depth + 1)

    for node in schema.nodes:
        if has(node.operator, Property.KINKED):
            visit(node.inputs[0], 0)
    return found
