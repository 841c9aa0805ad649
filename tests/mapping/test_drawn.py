"""Kept draws are the draws of that schema and seed, and nobody can change them."""

from __future__ import annotations

import gc

import numpy as np
import pytest
from torch import nn

from xbackend_fl.canonical import Schema
from xbackend_fl.mapping.bind import describe
from xbackend_fl.mapping.probe import drawn
from xbackend_fl.mapping.probe.draw import draw_by_shape, draw_weights
from xbackend_fl.mapping.probe.drawn import drawn_by_shape, drawn_weights


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
