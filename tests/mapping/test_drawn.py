"""Kept draws are the draws of that schema and seed, and nobody can change them."""

from __future__ import annotations

import gc
import weakref

import numpy as np
import pytest
from torch import nn

from xbackend_fl.canonical import Schema
from xbackend_fl.mapping.bind import describe
from xbackend_fl.mapping.probe import cases, drawn
from xbackend_fl.mapping.probe.draw import LARGE, draw_by_shape, draw_weights
from xbackend_fl.mapping.probe.drawn import drawn_by_shape, drawn_weights, forget_draws
from xbackend_fl.mapping.probe.sketch import BUCKETS, sketch, sketch_of_change


def schema_of(width: int) -> Schema:
    return describe(nn.Linear(width, 3), (np.zeros((1, width), np.float32),))


def test_kept_draws_are_those_of_the_schema_and_the_seed() -> None:
    one, two = schema_of(8), schema_of(9)
    for schema in (one, two, one):
        for seed in (1, 2, 1):
            np.testing.assert_equal(drawn_weights(schema, seed), draw_weights(schema, seed))
        for alike in (False, True):
            np.testing.assert_equal(drawn_by_shape(schema, alike=alike), draw_by_shape(schema, alike=alike))
    name = one.parameters[0].name
    assert drawn_weights(one, 1)[name] is drawn_weights(one, 1)[name]


def test_what_is_kept_cannot_be_changed() -> None:
    schema = schema_of(8)
    weights, name = drawn_weights(schema, 1), schema.parameters[0].name
    with pytest.raises(ValueError, match="read-only"):
        weights[name] += 1
    weights[name] = np.zeros(1)
    np.testing.assert_equal(drawn_weights(schema, 1), draw_weights(schema, 1))


def test_what_is_kept_is_bounded_and_ends_with_its_schema(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(drawn, "_DRAWS", kept := drawn._Draws())
    schema = schema_of(8)
    size = 4 * (3 * 8 + 3)
    monkeypatch.setattr(drawn, "_TOGETHER", 2 * size)
    for seed in range(5):
        drawn_weights(schema, seed)
    assert [draw.key for draw in kept._kept] == [4, 3, 2]
    monkeypatch.setattr(drawn, "_LARGEST", size - 1)
    drawn_weights(schema, 9)
    assert [draw.key for draw in kept._kept] == [4, 3, 2]
    del schema
    gc.collect()
    assert not kept._kept


def test_forgotten_draws_are_freed() -> None:
    schema = schema_of(8)
    weights = [weakref.ref(array) for array in drawn_weights(schema, 1).values()]
    assert all(array() is not None for array in weights)
    forget_draws()
    gc.collect()
    assert not any(array() is not None for array in weights)


def test_one_parameter_is_drawn_as_among_all() -> None:
    model = nn.Sequential(nn.Linear(8, 256), nn.Linear(256, 256), nn.Linear(256, 256), nn.Linear(256, 3))
    schema = describe(model, (np.zeros((1, 8), np.float32),))
    drawn = [draw_weights(schema, seed) for seed in (2, 4)]
    for seed, weights in zip((2, 4), drawn, strict=True):
        for name, array in weights.items():
            np.testing.assert_array_equal(draw_weights(schema, seed, {name})[name], array)
    large = np.array([array for weights in drawn for array in weights.values() if array.size >= LARGE])
    assert large.shape == (4, 256, 256)
    correlated = np.corrcoef(large.reshape(4, -1))
    assert np.abs(correlated - np.eye(4)).max() < 0.02
    assert 0.99 < large.std() / np.sqrt(2 / 256) < 1.01


@pytest.mark.parametrize("size", [1, BUCKETS, BUCKETS + 1, (BUCKETS << 10) + 7, 3 * (BUCKETS << 10)])
def test_a_sketch_is_linear_and_keeps_norms(size: int) -> None:
    one, two = np.random.default_rng(size).standard_normal((2, size)).astype(np.float32)
    expected = sketch(two.astype(np.float64) - one)
    np.testing.assert_allclose(sketch_of_change(one, two), expected, rtol=1e-12, atol=1e-12)
    np.testing.assert_allclose(sketch(two) - sketch(one), expected, atol=1e-9)
    assert 0.5 < np.linalg.norm(expected) / np.linalg.norm(two - one) < 1.6
    one[0] = two[0] = np.inf
    assert np.isfinite(sketch_of_change(one, two)).all()


def test_ids_of_a_large_model_are_drawn_in_one_further_kind(monkeypatch: pytest.MonkeyPatch) -> None:
    words = (np.zeros((1, 5), np.int64),)
    schema = describe(nn.Embedding(9, 4), words)
    before = len(list(cases.further(schema, words)))
    monkeypatch.setattr(cases, "MANY", schema.num_values - 1)
    assert [case.label for case, _ in cases.further(schema, words)] == ["draw 21, the example"]
    assert before > 1
    numbers = (np.zeros((1, 9), np.float32),)
    assert len(list(cases.further(describe(nn.Linear(9, 9), numbers), numbers))) > 1
