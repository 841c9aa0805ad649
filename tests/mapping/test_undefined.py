"""Where one of two models answers with no number: on normal data that is a difference, on padding alone a note, on both sides nothing."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import keras
import numpy as np
import pytest
import torch
from keras import layers as K
from keras import ops
from torch import nn

import xbackend_fl as xb
from tests.mapping.masked import Written, normal
from xbackend_fl.errors import MismatchError
from xbackend_fl.mapping.bound import BoundModel
from xbackend_fl.mapping.probe.probe import Case
from xbackend_fl.mapping.proof.undefined import blank_examples

Function = Callable[..., Any]
BLANK = "an example that is padding and nothing else, or that a mask hides wholly"
ZEROS = (np.zeros((2, 6), np.float32),)
MASKED = (normal(2, 5, 3), np.array([[1, 1, 1, 0, 0], [1, 1, 1, 1, 0]], np.float32))


def bound(reference: Any, candidate: Any, example: tuple[Any, ...]) -> BoundModel:
    schema, evidence = xb.describe_reference(reference, example)
    return xb.bind(candidate, schema, example, evidence)


def dense(there: Function, here: Function) -> tuple[nn.Module, keras.Model]:
    """A dense layer behind a function of the data."""
    x = keras.Input((6,))
    return (
        Written(lambda own, x: own["a"](there(x)), a=nn.Linear(6, 4)),
        keras.Model(x, K.Dense(4)(here(x))),
    )


def attention(there: float, here: float) -> tuple[nn.Module, keras.Model]:
    """A mean that is weighed by a softmax of masked scores; what is masked is so many."""

    def written(own: Any, x: torch.Tensor, mask: torch.Tensor) -> Any:
        h = own["a"](x)
        scores = h.sum(-1).masked_fill(mask == 0, there)
        return own["b"]((h * scores.softmax(1)[..., None]).sum(1))

    x, mask = keras.Input((5, 3)), keras.Input((5,))
    h = K.Dense(4)(x)
    scores = ops.softmax(ops.where(mask > 0, ops.sum(h, -1), here), 1)
    pooled = ops.sum(h * ops.expand_dims(scores, -1), 1)
    return Written(written, a=nn.Linear(3, 4), b=nn.Linear(4, 2)), keras.Model([x, mask], K.Dense(2)(pooled))


@pytest.mark.parametrize(
    ("there", "here"),
    [
        (torch.sqrt, lambda x: ops.sqrt(ops.maximum(x, 0))),
        pytest.param(
            lambda x: x.pow(1.5), lambda x: ops.power(ops.abs(x), 1.5), marks=pytest.mark.slow, id="power"
        ),
    ],
)
def test_no_number_on_normal_data_is_a_difference(there: Function, here: Function) -> None:
    with pytest.raises(MismatchError, match=r"on normal data the reference answers NaN.* 4 of 4 examples"):
        bound(*dense(there, here), ZEROS)
    with pytest.raises(MismatchError, match="on the example itself the reference answers NaN"):
        bound(*dense(there, here), (normal(2, 6),))


@pytest.mark.slow
def test_no_number_on_both_sides_is_none() -> None:
    assert bound(*dense(torch.sqrt, ops.sqrt), (normal(2, 6),)).notes == ()
    # The cure that a refusal names.
    cured = dense(lambda x: torch.sqrt(x.clamp(min=0)), lambda x: ops.sqrt(ops.maximum(x, 0)))
    assert bound(*cured, (normal(2, 6),)).notes == ()


@pytest.mark.parametrize(
    ("there", "here", "side"),
    [
        (-np.inf, -1e9, "the reference answers NaN or infinity, and this model a number"),
        pytest.param(
            -1e9,
            -np.inf,
            "this model answers NaN or infinity, and the reference a number",
            marks=pytest.mark.slow,
        ),
        pytest.param(-np.inf, -np.inf, "", marks=pytest.mark.slow),
    ],
)
def test_what_a_mask_hides_wholly_is_a_note(there: float, here: float, side: str) -> None:
    said = [note for note in bound(*attention(there, here), MASKED).notes if note.startswith("no number")]
    assert len(said) == bool(side)
    assert all(side in note and BLANK in note for note in said)


@pytest.mark.slow
def test_a_row_of_zeros_is_a_note_whichever_side_has_a_floor() -> None:
    there, here = dense(
        lambda x: x / x.norm(dim=-1, keepdim=True),
        lambda x: x / (ops.norm(x, axis=-1, keepdims=True) + 1e-8),
    )
    for reference, candidate in ((there, here), (here, there)):
        assert BLANK in bound(reference, candidate, (normal(2, 6),)).notes[-1]


@pytest.mark.slow
def test_rounding_beside_no_variance_is_no_mask() -> None:
    """A constant image has no variance, and what normalises it divides rounding; nothing hides anything there."""
    x = keras.Input((8, 8, 3))
    y = K.GroupNormalization(2, epsilon=1e-5)(K.Conv2D(4, 3, padding="same")(x))
    candidate = keras.Model(x, K.Dense(2)(K.GlobalAveragePooling2D()(K.Activation("relu")(y))))
    layers = {"c": nn.Conv2d(3, 4, 3, padding=1), "g": nn.GroupNorm(2, 4), "l": nn.Linear(4, 2)}
    reference = Written(lambda own, x: own["l"](own["g"](own["c"](x)).relu().mean((2, 3))), **layers)
    notes = bound(reference, candidate, (np.zeros((2, 3, 8, 8), np.float32),)).notes
    assert not any("mask" in note for note in notes)


def test_blank_examples() -> None:
    """All zeros in some input, or one number everywhere in every input of several."""
    x = np.array([[1, 2], [3, 4], [5, 5], [6, 7]], np.float32)
    mask = np.array([[1, 1], [0, 0], [1, 1], [0, 1]], np.float32)
    several = blank_examples(Case("", 0, (x, mask)))
    assert several.tolist() == [False, True, True, False]
    single = blank_examples(Case("", 0, (np.array([[3], [0]], np.float32),)))
    assert single.tolist() == [False, True]
