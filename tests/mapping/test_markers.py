"""A value that stands for something else is a branch of its own: every probe takes it, or the map is not proven."""

from __future__ import annotations

from collections.abc import Callable, Collection
from typing import Any, NamedTuple

import keras
import numpy as np
import pytest
import torch
from keras import layers as K
from keras import ops
from torch import nn

import xbackend_fl
from tests.mapping.masked import Written, normal
from xbackend_fl.errors import MismatchError, UnprovenError
from xbackend_fl.mapping.probe.cases import cases
from xbackend_fl.mapping.probe.distributions import Distribution, sample, vocabularies
from xbackend_fl.mapping.probe.markers import Compared, compared, values

WORDS = 30_000


def words(*sizes: int) -> Any:
    return np.random.default_rng(4).integers(1, WORDS, sizes)


def series(forward: Callable[..., Any]) -> nn.Module:
    return Written(forward, loop=nn.LSTM(8, 5, batch_first=True), head=nn.Linear(5, 3))


def masked_series(value: float) -> keras.Model:
    x = keras.Input((6, 8))
    return keras.Model(x, K.Dense(3)(K.LSTM(5)(K.Masking(value)(x))))


def averaged(**masking: Any) -> keras.Model:
    x = keras.Input((6, 8))
    hidden = K.Masking(**masking)(x) if masking else x
    return keras.Model(x, K.Dense(3)(K.GlobalAveragePooling1D()(hidden)))


def table(forward: Callable[..., Any]) -> nn.Module:
    return Written(forward, table=nn.Embedding(WORDS, 6), head=nn.Linear(6, 3))


def averaged_words(rows: int = WORDS, **masking: Any) -> keras.Model:
    ids = keras.Input((8,), dtype="int64")
    return keras.Model(ids, K.Dense(3)(K.GlobalAveragePooling1D()(K.Embedding(rows, 6, **masking)(ids))))


def hidden_words(padding: int) -> keras.Model:
    ids = keras.Input((8,), dtype="int64")
    mask = ops.expand_dims(ops.cast(ops.not_equal(ids, padding), "float32"), -1)
    return keras.Model(ids, K.Dense(3)(ops.sum(K.Embedding(WORDS, 6)(ids) * mask, 1) / 8.0))


def dense(function: Callable[[Any], Any]) -> keras.Model:
    x = keras.Input((8,))
    return keras.Model(x, K.Dense(3)(K.Dense(6, activation="tanh")(function(x))))


def linear(function: Callable[[Any], Any]) -> nn.Module:
    return Written(
        lambda own, x: own["last"](torch.tanh(own["first"](function(x)))),
        first=nn.Linear(8, 6),
        last=nn.Linear(6, 3),
    )


def missing(value: float) -> Callable[[Any], Any]:
    return lambda x: torch.where(x == value, torch.zeros_like(x), x)


class Attending(nn.Module):
    def __init__(self, *, padded: bool) -> None:
        super().__init__()
        self.padded = padded
        self.table = nn.Embedding(WORDS, 8)
        self.attention = nn.MultiheadAttention(8, 2, batch_first=True)
        self.head = nn.Linear(8, 3)

    def forward(self, ids: torch.Tensor) -> torch.Tensor:
        x = self.table(ids)
        mask = (ids == 0) if self.padded else None
        found: torch.Tensor = self.head(self.attention(x, x, x, key_padding_mask=mask)[0].mean(1))
        return found


class Pair(NamedTuple):
    """A reference, a candidate that differs where data is marked, and the example."""

    reference: Callable[[], Any]
    candidate: Callable[[], Any]
    example: Any


def last(own: Any, x: torch.Tensor) -> Any:
    return own["head"](own["loop"](x)[0][:, -1])


def mean(own: Any, ids: torch.Tensor) -> Any:
    return own["head"](own["table"](ids).mean(1))


def rounded(own: Any, x: torch.Tensor) -> Any:
    return own["head"](torch.round(x))


def floored() -> keras.Model:
    x = keras.Input((8,))
    return keras.Model(x, K.Dense(3)(ops.floor(x + 0.5)))


DIFFERENT = {
    "loop, zeros masked": Pair(lambda: series(last), lambda: masked_series(0.0), normal(1, 6, 8)),
    "loop, -1 masked": Pair(lambda: series(last), lambda: masked_series(-1.0), normal(1, 6, 8)),
    "mean, zeros masked": Pair(averaged, lambda: averaged(mask_value=0.0), normal(1, 6, 8)),
    "mean, -1 masked": Pair(lambda: averaged(mask_value=-1.0), averaged, normal(1, 6, 8)),
    "mean of words": Pair(lambda: table(mean), lambda: averaged_words(mask_zero=True), words(1, 8)),
    "mean of words, turned": Pair(lambda: averaged_words(mask_zero=True), lambda: table(mean), words(1, 8)),
    "words, 0 or 5": Pair(lambda: hidden_words(5), lambda: hidden_words(0), words(1, 8)),
    "attention, padded": Pair(lambda: Attending(padded=False), lambda: Attending(padded=True), words(1, 8)),
    "-999 in the reference": Pair(
        lambda: linear(missing(-999.0)), lambda: dense(lambda x: x * 1.0), normal(1, 8)
    ),
    "halves": Pair(lambda: Written(rounded, head=nn.Linear(8, 3)), floored, normal(1, 8)),
}


def bound(pair: Pair) -> xbackend_fl.BoundModel:
    reference, example = pair.reference(), (pair.example,)
    evidence = xbackend_fl.gather_evidence(reference, example)
    return xbackend_fl.bind(pair.candidate(), xbackend_fl.describe(reference, example), example, evidence)


def each_run(table: dict[str, Pair], slow: Collection[str]) -> list[Any]:
    """The rows of a table; those that follow a cell step by step take seconds, and one of them is in each run."""
    return [pytest.param(name, marks=pytest.mark.slow if name in slow else ()) for name in table]


@pytest.mark.one_in(8)
@pytest.mark.parametrize("name", each_run(DIFFERENT, {"loop, -1 masked"}))
def test_a_branch_that_one_model_takes_alone_is_refused(name: str) -> None:
    with pytest.raises(MismatchError):
        bound(DIFFERENT[name])


EQUAL = {
    "loop, zeros masked": Pair(lambda: masked_series(0.0), lambda: masked_series(0.0), normal(1, 6, 8)),
    "words": Pair(lambda: table(mean), averaged_words, words(1, 8)),
    "words, one hot": Pair(
        lambda: Written(
            lambda own, i: own["head"](own["table"](nn.functional.one_hot(i, 30).float()).mean(1)),
            table=nn.Linear(30, 6, bias=False),
            head=nn.Linear(6, 3),
        ),
        lambda: averaged_words(rows=30),
        words(1, 8) % 30,
    ),
    "words, 5": Pair(
        lambda: table(lambda own, i: own["head"]((own["table"](i) * (i != 5)[..., None]).sum(1) / 8)),
        lambda: hidden_words(5),
        words(1, 8),
    ),
    "-999": Pair(
        lambda: linear(missing(-999.0)),
        lambda: dense(lambda x: ops.where(ops.equal(x, -999.0), 0.0, x)),
        normal(1, 8),
    ),
}


@pytest.mark.one_in(2)
@pytest.mark.parametrize("name", each_run(EQUAL, {"loop, zeros masked"}))
def test_the_same_branch_on_both_sides_is_proven(name: str) -> None:
    assert bound(EQUAL[name]).proof.proven


@pytest.mark.parametrize(
    ("pair", "reason"),
    [
        (Pair(lambda: linear(lambda x: x), lambda: dense(lambda x: ops.where(ops.equal(x, -999.0), 0.0, x)), normal(1, 8)),
         "'input_0': the candidate asks whether it is equal to -999"),
        (Pair(lambda: table(lambda own, i: own["head"](own["table"](i).sum(1) / 8)), lambda: hidden_words(77), words(1, 8)),
         "equal to 77"),
        (Pair(lambda: linear(lambda x: x), lambda: dense(lambda x: ops.clip(x, -1e6, 1e6)), normal(1, 8)), "bounded by"),
    ],
    ids=["missing", "word", "bound"],
)  # fmt: skip
def test_what_the_candidate_alone_asks_of_its_data_is_not_proven_before_data_shows_it(
    pair: Pair, reason: str
) -> None:
    with pytest.raises(UnprovenError, match=reason) as refused:
        bound(pair)
    assert "--input" in str(refused.value.hint)


def test_an_example_that_holds_the_value_decides() -> None:
    example = normal(2, 8)
    example[0, :4] = -999.0
    with pytest.raises(MismatchError):
        bound(
            Pair(
                lambda: linear(lambda x: x),
                lambda: dense(lambda x: ops.where(ops.equal(x, -999.0), 0.0, x)),
                example,
            )
        )


def test_what_a_graph_compares_its_data_with() -> None:
    schema = xbackend_fl.describe(linear(missing(-999.0)), (normal(1, 8),))
    (numbers,) = compared(schema).values()
    assert numbers == {Compared(-999.0, ordering=False)}
    largest = float(np.finfo(np.float32).max)
    assert not compared(xbackend_fl.describe(linear(lambda x: x.clamp(-largest, largest)), (normal(1, 8),)))
    assert values([Compared(0.0, ordering=True)]) == (0.0, 1.0, -1.0)
    assert Compared(0.5, ordering=True).shown_by([np.array([0.0, 1.0])])
    assert not Compared(0.5, ordering=True).shown_by([np.array([1.0]), np.array([2.0])])
    assert not Compared(3.0, ordering=False).shown_by([np.array([1, 2])])


def test_an_index_that_may_be_negative_is_an_index_all_the_same() -> None:
    schema = xbackend_fl.describe(averaged_words(mask_zero=True), (words(1, 8),))
    assert list(vocabularies(schema).values()) == [WORDS]


def test_data_holds_marks_in_values_tails_and_whole_examples() -> None:
    def drawn(kind: Distribution, dtype: str, rows: int | None = None, marks: Any = ()) -> Any:
        return sample((4, 6, 8), np.dtype(dtype), kind, np.random.default_rng(0), rows, marks)

    found = drawn(Distribution.MARKED, "float32", marks=(-999.0,))
    assert (found[0, 3:] == 0).all()
    assert {float(step[0]) for step in found[1, 3:] if (step == step[0]).all()} == {-1.0, -999.0}
    assert (found[3] * 2 == np.rint(found[3] * 2)).all()
    assert {0.0, -1.0, -999.0} <= set(found[2].ravel().tolist())
    found = drawn(Distribution.BLANK, "float32")
    assert [bool((one == one.flat[0]).all()) for one in found] == [True, True, False, False]
    found = drawn(Distribution.MARKED, "int64", WORDS, (5.0,))
    assert (found[0, 3:] == 0).all()
    assert {0, 1, 5, WORDS - 1} <= set(found[2:].ravel().tolist())
    assert (drawn(Distribution.BLANK, "int64", WORDS)[0] == 0).all()
    found = drawn(Distribution.MARKED, "bool")
    assert not found[2:, :, 4:].any()
    assert found[2:].any(-1).all()
    assert not drawn(Distribution.BLANK, "bool")[3].any()


def test_draws_that_were_there_before_stay_as_they_were() -> None:
    schema = xbackend_fl.describe(linear(lambda x: x), (normal(1, 8),))
    labels = [case.label for case in cases(schema, (normal(1, 8),))]
    new = [label for label in labels if label.endswith(("padded and marked", "blank examples"))]
    assert len(new) == 2
    assert labels.index(new[0]) > max(place for place, label in enumerate(labels) if "thousands" in label)
