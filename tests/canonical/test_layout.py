"""Every layout step is undone by its inverse, on any nesting hypothesis can think of."""

from __future__ import annotations

import math

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from pydantic import TypeAdapter

from xbackend_fl.canonical.layout import (
    Blocks,
    Join,
    Layout,
    Native,
    Reorder,
    Repeat,
    Reshape,
    Segment,
    Stack,
    Sum,
    Transpose,
    backward,
    describe,
    feature_order,
    forward,
    leaves,
    masked,
)

SHAPES = st.lists(st.sampled_from([1, 2, 3, 4, 6]), min_size=1, max_size=4).map(tuple)


@st.composite
def layouts(draw: st.DrawFn, depth: int = 3) -> Layout:
    shape = draw(SHAPES)
    return _grow(draw, Native(f"t{draw(st.integers(0, 10**9))}", shape), depth)


def _grow(draw: st.DrawFn, layout: Layout, depth: int) -> Layout:
    for _ in range(draw(st.integers(0, depth))):
        layout = _step(draw, layout)
    return layout


def _step(draw: st.DrawFn, layout: Layout) -> Layout:
    shape = layout.shape
    axis = draw(st.integers(0, len(shape) - 1))
    match draw(st.sampled_from(["transpose", "reshape", "blocks", "join", "stack", "sum", "row", "reorder"])):
        case "transpose":
            return Transpose(layout, tuple(draw(st.permutations(range(len(shape))))))
        case "reshape":
            return Reshape(layout, (math.prod(shape[:axis]), math.prod(shape[axis:])))
        case "blocks":
            count = draw(st.sampled_from([n for n in (1, 2, 3, 4) if shape[axis] % n == 0]))
            return Blocks(layout, axis, tuple(draw(st.permutations(range(count)))))
        case "join":
            return Join((layout, _twin(layout)), axis)
        case "stack":
            return Stack((layout, _twin(layout)))
        case "sum":
            return Sum((layout, _twin(layout)))
        case "row":
            row = Native(f"{'x' * len(list(leaves(layout)))}row", (1, *shape[1:]))
            return Sum((layout, Repeat(row, shape[0])))
        case _:
            factors = (shape[axis],) if shape[axis] % 2 else (2, shape[axis] // 2)
            perm = tuple(draw(st.permutations(range(len(factors)))))
            return Reorder(layout, axis, (Segment(factors, perm),))


def _twin(layout: Layout) -> Layout:
    """The same steps over other tensors: the prefix is longer than any that the layout has."""
    prefix = "x" * len(list(leaves(layout)))
    text = TypeAdapter(Layout).dump_json(layout).decode()
    return TypeAdapter(Layout).validate_json(text.replace('"tensor":"', f'"tensor":"{prefix}'))


def _natives(layout: Layout, generator: np.random.Generator) -> dict[str, np.ndarray]:
    return {leaf.tensor: generator.integers(-99, 99, leaf.full_shape) for leaf in leaves(layout)}


@given(layouts())
@settings(max_examples=120)
def test_import_of_export_is_the_identity(layout: Layout) -> None:
    generator = np.random.default_rng(0)
    canonical = generator.integers(-99, 99, layout.shape)
    natives = _natives(layout, generator)
    backward(layout, canonical, natives)
    np.testing.assert_array_equal(forward(layout, natives), canonical)


@given(layouts())
@settings(max_examples=120)
def test_export_of_import_is_the_identity_but_for_sums(layout: Layout) -> None:
    generator = np.random.default_rng(1)
    natives = _natives(layout, generator)
    for leaf in masked(layout):
        natives[leaf.tensor][leaf.index or ...] = 0
    before = {name: array.copy() for name, array in natives.items()}
    backward(layout, forward(layout, natives), natives)
    for name, array in before.items():
        np.testing.assert_array_equal(natives[name], array)


@given(layouts(), st.integers(-5, 5))
@settings(max_examples=100)
def test_layouts_are_linear(layout: Layout, factor: int) -> None:
    generator = np.random.default_rng(2)
    one, two = _natives(layout, generator), _natives(layout, generator)
    mixed = {name: one[name] + factor * two[name] for name in one}
    expected = forward(layout, one) + factor * forward(layout, two)
    np.testing.assert_array_equal(forward(layout, mixed), expected)


@given(layouts())
@settings(max_examples=100)
def test_json_round_trip(layout: Layout) -> None:
    adapter: TypeAdapter[Layout] = TypeAdapter(Layout)
    assert adapter.validate_json(adapter.dump_json(layout)) == layout
    assert describe(layout)


def test_flatten_order_is_numpys() -> None:
    canonical = np.arange(2 * 3 * 4).reshape(2, 3, 4)  # C, H, W
    channels_last = canonical.transpose(1, 2, 0).reshape(-1)
    layout = Reorder(Native("w", (24,)), 0, (Segment((2, 3, 4), (1, 2, 0)),))
    np.testing.assert_array_equal(forward(layout, {"w": channels_last}), np.arange(24))
    assert feature_order((Segment((2,), (0,)), Segment((2, 2), (1, 0)))).tolist() == [0, 1, 2, 4, 3, 5]


def test_parts_of_one_tensor_do_not_disturb_each_other() -> None:
    parts = [Native("qkv", (6, 2), ((0, 2 * i, 2 * i + 2),)) for i in range(3)]
    natives = {"qkv": np.zeros((6, 2))}
    for value, part in enumerate(parts):
        backward(part, np.full((2, 2), value), natives)
    assert natives["qkv"][:, 0].tolist() == [0, 0, 1, 1, 2, 2]


@pytest.mark.parametrize("wrong", [(0, 1, 2, 3), (3, 0, 1, 2)])
def test_a_wrong_gate_order_is_seen(wrong: tuple[int, ...]) -> None:
    natives = {"w": np.arange(8.0)}
    right = forward(Blocks(Native("w", (8,)), 0, (0, 3, 1, 2)), natives)
    assert not np.array_equal(forward(Blocks(Native("w", (8,)), 0, wrong), natives), right)
