"""Tables of which one model leaves rows in front unread, and inputs with keys whose names are alike."""

from __future__ import annotations

from typing import Any

import keras
import numpy as np
import pytest
import torch
from keras import layers as K
from torch import Tensor, nn

import xbackend_fl
from xbackend_fl.adapter import adapter_of
from xbackend_fl.canonical.layout import Constant, Join, Native, backward, forward
from xbackend_fl.errors import MismatchError
from xbackend_fl.mapping.match.embeddings import match_embeddings
from xbackend_fl.mapping.probe.draw import draw_inputs

ROWS, WIDTH, STEPS = 11, 4, 5
IDS = np.random.default_rng(1).integers(0, ROWS, (3, STEPS))


class Placed(nn.Module):
    """Words, and places that are counted from ``first`` on."""

    def __init__(self, table: int, first: int) -> None:
        super().__init__()
        self.words, self.places = nn.Embedding(ROWS, WIDTH), nn.Embedding(table, WIDTH, padding_idx=1)
        self.out, self.first = nn.Linear(WIDTH, 2), first

    def forward(self, ids: Tensor) -> Tensor:
        places = torch.arange(self.first, self.first + ids.shape[1])[None].expand(ids.shape[0], -1)
        return self.out(torch.tanh(self.words(ids) + self.places(places)))


class Table(K.Layer):
    """Places from a row on."""

    def __init__(self, rows: int, first: int = 0) -> None:
        super().__init__()
        self.rows, self.first = rows, first

    def build(self, _: Any) -> None:
        self.table = self.add_weight(shape=(self.rows, WIDTH), name="places")

    def call(self, x: Any) -> Any:
        return x + self.table[self.first : self.first + x.shape[1]]


def keras_placed(rows: int, first: int = 0) -> Any:
    words = keras.Input((STEPS,), dtype="int64")
    made = Table(rows, first)(K.Embedding(ROWS, WIDTH)(words))
    return keras.Model(words, K.Dense(2)(K.Activation("tanh")(made)))


@pytest.mark.parametrize("rows", [11, pytest.param(STEPS + 2, marks=pytest.mark.slow)])
def test_rows_in_front_that_nobody_reads(rows: int) -> None:
    """The rows behind them are one for one, whether a text reaches all of them or not."""
    reference, other = Placed(rows, 2), keras_placed(rows - 2)
    schema, evidence = xbackend_fl.describe_reference(reference, (IDS,))
    there = xbackend_fl.bind(other, schema, (IDS,), evidence)
    assert any("no input reads the first 2 rows" in note for note in there.notes)
    there.write(xbackend_fl.bind(reference, schema, (IDS,), evidence).read())
    held = reference.places.weight.detach().numpy()
    (table,) = [one for one in other.weights if one.path.endswith("places")]
    np.testing.assert_array_equal(np.asarray(table), held[2:])
    exported = there.read()["places.weight.weight"]
    np.testing.assert_array_equal(exported, np.concatenate([np.zeros((2, WIDTH)), held[2:]]))


@pytest.mark.slow
def test_rows_in_front_of_the_other_one() -> None:
    reference, other = keras_placed(9), Placed(11, 2)
    schema, evidence = xbackend_fl.describe_reference(reference, (IDS,))
    there = xbackend_fl.bind(other, schema, (IDS,), evidence)
    there.write(xbackend_fl.bind(reference, schema, (IDS,), evidence).read())
    (table,) = [one for one in reference.weights if one.path.endswith("places")]
    np.testing.assert_array_equal(other.places.weight.detach().numpy()[2:], np.asarray(table))


@pytest.mark.parametrize(("rows", "first"), [(9, 1), (8, 0), pytest.param(12, 3, marks=pytest.mark.slow)])
def test_other_rows_are_another_table(rows: int, first: int) -> None:
    """Where both leave rows out, or one has fewer behind, nothing says which of them are the same."""
    schema = xbackend_fl.describe(Placed(11, 2), (IDS,))
    other = keras_placed(rows, first)
    found = adapter_of(other).load_model(other, (IDS,)).description
    assert match_embeddings(schema, found) == (found, ())
    if (rows, first) == (8, 0):
        with pytest.raises(MismatchError):
            xbackend_fl.bind(other, schema, (IDS,))


def test_one_number_is_no_table() -> None:
    class Warm(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.layer, self.warmth = nn.Linear(3, 2), nn.Parameter(torch.tensor(0.5))

        def forward(self, x: Tensor) -> Tensor:
            return self.layer(x) * self.warmth.exp()

    x = (np.ones((2, 3), np.float32),)
    trainer = adapter_of(model := Warm()).load_model(model, x)
    assert match_embeddings(trainer.description.schema, trainer.description) == (trainer.description, ())


def test_whole_numbers_that_are_joined_with_constants_stay_whole() -> None:
    layout = Join((Constant((1, 2), (0.0, 0.0)), Native("t", (1, 2))), 0)
    large = np.array([[2**53 + 1, -(2**60) - 1]])
    found = forward(layout, {"t": large})
    assert found.dtype == np.int64
    np.testing.assert_array_equal(found[1:], large)
    back = {"t": np.zeros((1, 2), np.int64)}
    backward(layout, found, back)
    np.testing.assert_array_equal(back["t"], large)


class Places(nn.Module):
    """Places that are picked for each example of the batch."""

    def __init__(self) -> None:
        super().__init__()
        self.table, self.words = nn.Parameter(torch.randn(9, WIDTH)), nn.Embedding(ROWS, WIDTH)

    def forward(self, ids: Tensor) -> Tensor:
        places = torch.arange(ids.shape[1])[None].repeat(ids.shape[0], 1)
        return torch.tanh(self.words(ids) + self.table[places])


def test_places_for_each_example_are_no_constant_of_the_batch() -> None:
    schema = xbackend_fl.describe(Places(), (IDS,))
    assert [node.operator for node in schema.nodes if node.operator in {"Constant", "Gather"}] == ["Gather"]


class Translated(nn.Module):
    """Two texts of unlike lengths, the second one with its mask."""

    def __init__(self) -> None:
        super().__init__()
        self.one, self.two, self.out = nn.Embedding(9, 4), nn.Embedding(9, 4), nn.Linear(4, 2)

    def forward(self, input_ids: Tensor, decoder_input_ids: Tensor, decoder_attention_mask: Tensor) -> Tensor:
        read = self.two(decoder_input_ids) * decoder_attention_mask[..., None]
        return self.out(torch.tanh(self.one(input_ids).mean(1) + read.mean(1)))


def keras_translated() -> Any:
    """The same by keys, which sort otherwise."""
    texts = {
        name: keras.Input((None,), dtype="int64", name=name)
        for name in ("encoder_token_ids", "decoder_token_ids", "decoder_padding_mask")
    }
    one, two = K.Embedding(9, 4), K.Embedding(9, 4)
    mask = keras.ops.cast(texts["decoder_padding_mask"], "float32")[..., None]
    read = keras.ops.mean(two(texts["decoder_token_ids"]) * mask, 1)
    total = keras.ops.tanh(keras.ops.mean(one(texts["encoder_token_ids"]), 1) + read)
    return keras.Model(texts, K.Dense(2)(total))


def test_inputs_with_keys_are_given_what_is_called_alike() -> None:
    rng = np.random.default_rng(0)
    seen = np.array([[1, 1, 0], [1, 0, 0], [1, 1, 1]])
    example = (rng.integers(0, 9, (3, 5)), rng.integers(0, 9, (3, 3)), seen)
    schema, evidence = xbackend_fl.describe_reference(Translated(), example)
    assert xbackend_fl.bind(keras_translated(), schema, example, evidence).proof.proven


def test_a_mask_beside_a_constant_past_leaves_the_first_word() -> None:
    class Masked(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.words = nn.Embedding(ROWS, WIDTH)

        def forward(self, ids: Tensor, seen: Tensor) -> Tensor:
            x = self.words(ids)
            past = torch.tril(torch.ones(STEPS, STEPS, dtype=torch.bool))
            shown = past & (seen[:, None, :] > 0)
            bias = torch.where(shown, torch.arange(STEPS) * 0.1, -3e38)
            return torch.softmax(x @ x.transpose(1, 2) + bias, -1) @ x

    seen = (np.arange(STEPS) < np.array([[2], [5], [3]])).astype(np.int64)
    schema = xbackend_fl.describe(Masked(), (IDS, seen))
    assert all(node.operator != "CausalMask" for node in schema.nodes)
    for seed in range(6):
        assert draw_inputs(schema, [IDS.shape, seen.shape], seed)[1][:, 0].all()


class Halved(nn.Module):
    """Words that stand in pairs."""

    def __init__(self, rounding: str | None = None) -> None:
        super().__init__()
        self.words, self.out, self.rounding = nn.Embedding(ROWS, WIDTH), nn.Linear(WIDTH, 2), rounding

    def forward(self, ids: Tensor) -> Tensor:
        halves = torch.div(ids, 2, rounding_mode=self.rounding) if self.rounding else ids // 2
        return self.out(self.words(halves).mean(1))


def keras_halved(by: int) -> keras.Model:
    ids = keras.Input((STEPS,), dtype="int64")
    return keras.Model(ids, K.Dense(2)(K.GlobalAveragePooling1D()(K.Embedding(ROWS, WIDTH)(ids // by))))


@pytest.mark.parametrize("rounding", [None, pytest.param("floor", marks=pytest.mark.slow)])
def test_ids_that_are_divided(rounding: str | None) -> None:
    """ONNX Runtime has no floor of whole numbers: the frameworks alone speak."""
    schema, evidence = xbackend_fl.describe_reference(Halved(rounding), (IDS,))
    bound = xbackend_fl.bind(keras_halved(2), schema, (IDS,), evidence)
    assert any(note.startswith("two opinions") for note in bound.notes)
    with pytest.raises(MismatchError):
        xbackend_fl.bind(keras_halved(3), schema, (IDS,), evidence)


class Looked(nn.Module):
    """Codes that are looked up by comparison; any other is the first row."""

    def __init__(self, *codes: int) -> None:
        super().__init__()
        self.words, self.out, self.codes = nn.Embedding(len(codes) + 1, WIDTH), nn.Linear(WIDTH, 2), codes

    def forward(self, ids: Tensor) -> Tensor:
        rows = torch.zeros_like(ids)
        for row, code in enumerate(self.codes, 1):
            rows = torch.where(ids == code, torch.full_like(ids, row), rows)
        return self.out(self.words(rows).mean(1))


def keras_looked(*codes: int) -> keras.Model:
    ids = keras.Input((STEPS,), dtype="int64")
    rows = K.Embedding(len(codes) + 1, WIDTH)(K.IntegerLookup(vocabulary=[*codes])(ids))
    return keras.Model(ids, K.Dense(2)(K.GlobalAveragePooling1D()(rows)))


CODES = np.array([[10, 20, 30, 40, 10], [20, 20, 30, 7, 10]])


def test_codes_that_a_layer_looks_up() -> None:
    schema, evidence = xbackend_fl.describe_reference(Looked(10, 20, 30), (CODES,))
    xbackend_fl.bind(keras_looked(10, 20, 30), schema, (CODES,), evidence)
    with pytest.raises(MismatchError):
        xbackend_fl.bind(keras_looked(10, 30, 20), schema, (CODES,), evidence)


def test_a_table_that_is_looked_up_is_a_part_of_the_schema() -> None:
    """Also a code that no example has: 50 and 60 are compared as they are."""
    schema, evidence = xbackend_fl.describe_reference(keras_looked(10, 20, 30, 50), (CODES,))
    xbackend_fl.bind(keras_looked(10, 20, 30, 50), schema, (CODES,), evidence)
    with pytest.raises(MismatchError):
        xbackend_fl.bind(keras_looked(10, 20, 30, 60), schema, (CODES,), evidence)


@pytest.mark.slow
def test_a_long_table_that_is_looked_up_is_compared() -> None:
    codes = [*range(100, 400, 3)]
    example = (np.random.default_rng(2).choice(codes, (3, STEPS)),)
    schema, evidence = xbackend_fl.describe_reference(keras_looked(*codes), example)
    xbackend_fl.bind(keras_looked(*codes), schema, example, evidence)
    with pytest.raises(MismatchError, match="entry is 217 at"):
        xbackend_fl.bind(keras_looked(*codes[:39], 216, *codes[40:]), schema, example, evidence)
