"""What models of text from packages are made of: tables longer than the text, masks in whole numbers, caches that are empty."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import keras
import numpy as np
import pytest
import torch
from keras import layers as K
from keras import ops
from torch import Tensor, nn
from torch.nn import functional as F

import xbackend_fl
from xbackend_fl.adapter import adapter_of
from xbackend_fl.canonical import Schema
from xbackend_fl.mapping.match.match import match
from xbackend_fl.mapping.match.skeleton import skeleton_of
from xbackend_fl.mapping.probe.draw import draw_inputs

STEPS, WIDTH, ROWS = 5, 8, 11
DATA = np.random.default_rng(0).standard_normal((3, STEPS, WIDTH)).astype(np.float32)
IDS = np.random.default_rng(1).integers(0, ROWS, (3, STEPS))
SEEN = np.array([[1, 1, 1, 0, 0], [1, 1, 1, 1, 1], [1, 1, 0, 0, 0]])


class Lambda(nn.Module):
    def __init__(self, call: Callable[..., Tensor], **layers: Any) -> None:
        super().__init__()
        self.call = call
        for name, layer in layers.items():
            setattr(self, name, layer)

    def forward(self, *data: Tensor) -> Tensor:
        return self.call(self, *data)


def schema_of(call: Callable[..., Tensor], *example: np.ndarray[Any, Any], **layers: Any) -> Schema:
    return xbackend_fl.describe(Lambda(call, **layers), example)


def test_a_table_of_positions_that_is_longer_than_the_text() -> None:
    class Placed(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.words, self.places, self.out = (
                nn.Embedding(ROWS, WIDTH),
                nn.Embedding(9, WIDTH),
                nn.Linear(WIDTH, 2),
            )

        def forward(self, ids: Tensor) -> Tensor:
            return self.out(self.words(ids) + self.places(torch.arange(ids.shape[1])[None]))

    class Table(K.Layer):
        def build(self, _: Any) -> None:
            self.table = self.add_weight(shape=(9, WIDTH), name="places")

        def call(self, x: Any) -> Any:
            return x + self.table[: x.shape[1]]

    words = keras.Input((STEPS,), dtype="int64")
    other = keras.Model(words, K.Dense(2)(Table()(K.Embedding(ROWS, WIDTH)(words))))
    reference = Placed()
    schema = xbackend_fl.describe(reference, (IDS,))
    bound = xbackend_fl.bind(other, schema, (IDS,), xbackend_fl.gather_evidence(reference, (IDS,)))
    assert bound.proof.proven


def masked(*, multiply: bool) -> Callable[..., Tensor]:
    """Attention with a mask of whole numbers, put together with the future by ``minimum`` or by ``&``."""

    def call(self: Any, x: Tensor, seen: Tensor) -> Tensor:
        past = torch.tril(torch.ones(STEPS, STEPS, dtype=torch.int64))
        scores = self.query(x) @ x.transpose(1, 2)
        if multiply:
            shown = (torch.minimum(seen[:, None, :], past[None]) > 0)[:, None]
            weights = F.softmax(scores[:, None].masked_fill(~shown, -1e9), -1)
            return (torch.where(shown, weights, 0.0) @ x[:, None])[:, 0]
        hidden = (seen == 0)[:, None] | (past == 0)[None]
        return F.softmax(scores.masked_fill(hidden, -torch.inf), -1) @ x

    return call


def test_masks_of_whole_numbers_are_one_mask() -> None:
    one, two = (
        schema_of(masked(multiply=multiply), DATA, SEEN, query=nn.Linear(WIDTH, WIDTH))
        for multiply in (True, False)
    )
    kinds = [[node.operator for node in schema.nodes] for schema in (one, two)]
    assert "Min" not in kinds[0]
    for kind in kinds:
        assert (kind.count("CausalMask"), kind.count("Masked"), kind.count("Mul")) == (1, 1, 0)


def test_a_mask_that_hides_nothing_is_not_the_causal_one() -> None:
    def call(self: Any, x: Tensor) -> Tensor:
        everything = torch.ones(1, 1, dtype=torch.bool).expand(STEPS, STEPS)
        query = self.query(x)[:, None]
        plain = F.scaled_dot_product_attention(
            query, x[:, None], x[:, None], torch.ones(1, 1, dtype=torch.bool)
        )
        return (plain + F.scaled_dot_product_attention(query, x[:, None], x[:, None], everything))[:, 0]

    schema = schema_of(call, DATA, query=nn.Linear(WIDTH, WIDTH))
    assert not any(node.operator == "CausalMask" or node.attributes.get("causal") for node in schema.nodes)


def test_a_causal_mask_for_every_example_is_one_causal_mask() -> None:
    def call(self: Any, x: Tensor, *, several: bool) -> Tensor:
        past = torch.tril(torch.ones(STEPS, STEPS, dtype=torch.bool))
        mask = past.expand(x.shape[0], 1, STEPS, STEPS) if several else past
        return F.scaled_dot_product_attention(self.query(x)[:, None], x[:, None], x[:, None], mask)[:, 0]

    one, two = (
        schema_of(lambda self, x, n=several: call(self, x, several=n), DATA, query=nn.Linear(WIDTH, WIDTH))
        for several in (True, False)
    )
    assert one.fingerprint == two.fingerprint


def test_what_an_empty_cache_holds_is_nothing() -> None:
    def call(self: Any, x: Tensor) -> Tensor:
        return torch.cat([torch.tensor([]), self.layer(x)], dim=-2)

    schema = schema_of(call, DATA, layer=nn.Linear(WIDTH, 3))
    assert [node.operator for node in schema.nodes] == ["Gemm"]


def test_rows_that_are_merged_and_taken_apart() -> None:
    def call(self: Any, x: Tensor) -> Tensor:
        y = torch.addmm(self.layer.bias, x.view(-1, WIDTH), self.layer.weight.T).view(*x.shape[:-1], 6)
        one, two = y.split(3, dim=2)
        return one * torch.sigmoid(two)

    schema = schema_of(call, DATA, layer=nn.Linear(WIDTH, 6))
    assert [node.operator for node in schema.nodes if node.parameters] == ["Gemm", "Gemm"]


@pytest.mark.parametrize("form", range(3))
def test_the_gelu_of_tanh_as_models_write_it(form: int) -> None:
    forms: tuple[Callable[[Tensor], Tensor], ...] = (
        lambda x: 0.5 * x * (1 + torch.tanh((2 / np.pi) ** 0.5 * (x + 0.044715 * torch.pow(x, 3)))),
        lambda x: x * 0.5 * (1 + torch.tanh(0.79788456 * x * (1 + 0.044715 * x * x))),
        lambda x: (1 + torch.tanh(0.7978845608 * (x + 0.044715 * x * x * x))) * x * 0.5,
    )
    schema = schema_of(lambda self, x: forms[form](self.layer(x)), DATA, layer=nn.Linear(WIDTH, 3))
    assert [node.operator for node in schema.nodes] == ["Gemm", "Gelu"]
    other = schema_of(
        lambda self, x: (
            0.5 * self.layer(x) * (1 + torch.tanh(0.8 * (self.layer(x) + 0.044 * self.layer(x) ** 3)))
        ),
        DATA,
        layer=nn.Linear(WIDTH, 3),
    )
    assert all(node.operator != "Gelu" for node in other.nodes)


def test_heads_that_hold_query_key_and_value_are_three_layers() -> None:
    """As models are whose layers are three: rows of one head lie together in the fused one."""

    def fused(self: Any, x: Tensor) -> Tensor:
        parts = self.layer(x).view(*x.shape[:2], 2, 3, 4).unbind(-2)
        return F.scaled_dot_product_attention(*(part.transpose(1, 2) for part in parts))

    def apart(self: Any, x: Tensor) -> Tensor:
        heads = (layer(x).view(*x.shape[:2], 2, 4).transpose(1, 2) for layer in (self.q, self.k, self.v))
        return F.scaled_dot_product_attention(*heads)

    layers = {name: nn.Linear(WIDTH, WIDTH) for name in "qkv"}
    wanted = schema_of(apart, DATA, **layers)
    reference = Lambda(fused, layer=nn.Linear(WIDTH, 24))
    trainer = adapter_of(reference).load_model(reference, (DATA,))
    assert match(skeleton_of(trainer.description.schema), skeleton_of(wanted)) is not None
    held = trainer.description.binding.export(trainer.read())
    rows = reference.layer.weight.detach().numpy().reshape(2, 3, 4, WIDTH)
    found = [value for name, value in held.items() if name.endswith("weight")]
    for part, value in enumerate(found):
        np.testing.assert_array_equal(value, rows[:, part].reshape(WIDTH, WIDTH))


def test_halves_of_heads_that_turn_are_no_layers() -> None:
    def call(self: Any, x: Tensor) -> Tensor:
        one, two = self.layer(x).view(*x.shape[:2], 2, 2, 2).unbind(-2)
        return torch.cat([one * 0.6 - two * 0.8, two * 0.6 + one * 0.8], -1)

    schema = schema_of(call, DATA, layer=nn.Linear(WIDTH, WIDTH))
    assert [node.operator for node in schema.nodes].count("Gemm") == 1


@pytest.mark.parametrize("holes", [True, False])
def test_a_mask_that_is_counted_is_asked_with_words_in_front(*, holes: bool) -> None:
    """Places of words from their mask: nobody asks for places between padding unless the example has some."""

    def call(self: Any, x: Tensor, seen: Tensor) -> Tensor:
        return self.layer(x) * (seen.long().cumsum(-1) * seen)[..., None]

    seen = SEEN[:, ::-1].copy() if holes else SEEN
    schema = schema_of(call, DATA, seen, layer=nn.Linear(WIDTH, 3))
    drawn = draw_inputs(schema, [DATA.shape, seen.shape], 0)[1]
    assert schema.inputs[1].padded is not holes
    assert bool((np.diff(drawn, axis=1) <= 0).all()) is not holes
    plain = schema_of(lambda self, x, m: self.layer(x) * m[..., None], DATA, SEEN, layer=nn.Linear(WIDTH, 3))
    assert not plain.inputs[1].padded


class Taught(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.words, self.attend = (
            nn.Embedding(ROWS, WIDTH),
            nn.MultiheadAttention(WIDTH, 2, 0.1, batch_first=True),
        )

    def forward(self, text: Tensor, shown: Tensor) -> Tensor:
        x = self.words(text)
        return self.attend(x, x, x, key_padding_mask=shown == 0, need_weights=False)[0]


def attentive() -> Any:
    text = keras.Input((STEPS,), dtype="int32", name="token")
    seen = keras.Input((STEPS,), dtype="int32", name="padding")
    x = K.Embedding(ROWS, WIDTH)(text)
    mask = ops.repeat(seen[:, None, :], STEPS, axis=1)
    made = K.MultiHeadAttention(2, WIDTH // 2, dropout=0.1)(x, x, attention_mask=mask)
    return keras.Model({"token": text, "padding": seen}, made)


def test_a_layer_of_attention_that_drops_takes_a_mask_and_inputs_by_key() -> None:
    reference = Taught()
    schema = xbackend_fl.describe(reference, (IDS, SEEN))
    evidence = xbackend_fl.gather_evidence(reference, (IDS, SEEN))
    assert xbackend_fl.bind(attentive(), schema, (IDS, SEEN), evidence).proof.proven
