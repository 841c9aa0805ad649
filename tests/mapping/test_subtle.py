"""What hardly any draw shows: an epsilon beside a variance near one, an entry of a table that nobody read, a half, a number that is missing."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor, nn

import xbackend_fl
from xbackend_fl.errors import MismatchError

RNG = np.random.default_rng(5)
ROWS = (RNG.standard_normal((2, 6)).astype(np.float32),)
STEPS = (RNG.standard_normal((2, 5, 6)).astype(np.float32),)
IDS = (RNG.integers(0, 50, (2, 4)),)


class Layers(nn.Module):
    """Two layers, and what lies between, behind, or in front of them."""

    def __init__(self, compute: Callable[[Any, Tensor], Tensor], **held: Tensor) -> None:
        super().__init__()
        self.first, self.last, self.compute = nn.Linear(6, 6), nn.Linear(6, 3), compute
        for name, value in held.items():
            self.register_buffer(name, value)

    def forward(self, x: Tensor) -> Tensor:
        return self.compute(self, x)


def bound(reference: Any, candidate: Any, example: Any) -> xbackend_fl.BoundModel:
    schema, evidence = xbackend_fl.describe_reference(reference, example)
    return xbackend_fl.bind(candidate, schema, example, evidence)


def rms(net: Any, x: Tensor, *floors: float, opaque: bool = True) -> Tensor:
    """Root mean squares, behind what no other framework has in this form."""
    for floor in floors:
        x = torch.logcumsumexp(net.first(x), 1) if opaque else net.first(x)
        x = x * (x.square().mean(-1, keepdim=True) + floor).rsqrt()
    return net.last(x)


def otherwise(net: Any, x: Tensor, *floors: float) -> Tensor:
    """The same in another form."""
    for floor in floors:
        x = torch.logcumsumexp(net.first(x), 1)
        x = x / torch.sqrt((x * x).sum(-1, keepdim=True) / 6 + floor)
    return net.last(x)


def test_epsilons_beside_opaque_nodes_are_compared() -> None:
    reference = Layers(lambda net, x: rms(net, x, 1e-5))
    assert bound(reference, Layers(lambda net, x: otherwise(net, x, 1e-5)), STEPS).proof.proven
    with pytest.raises(MismatchError, match="1e-05"):
        bound(reference, Layers(lambda net, x: otherwise(net, x, 1e-6)), STEPS)


def test_epsilons_are_compared_in_every_place() -> None:
    reference = Layers(lambda net, x: rms(net, x, 1e-5, 1e-6, 1e-6))
    with pytest.raises(MismatchError, match="epsilon"):
        bound(reference, Layers(lambda net, x: otherwise(net, x, 1e-5, 1e-5, 1e-6)), STEPS)


SPELLED: dict[str, tuple[Callable[[Any, Tensor], Tensor], Callable[[Any, Tensor], Tensor]]] = {
    "of a multiple": (
        lambda _, h: h / torch.sqrt(1 + 1e5 * h.var(-1, keepdim=True)),
        lambda _, h: h * 10**-2.5 * torch.rsqrt(h.var(-1, keepdim=True)),
    ),
    "in a buffer": (
        lambda net, h: h * (h.square().mean(-1, keepdim=True) + net.floor).rsqrt(),
        lambda net, h: h * (h.square().mean(-1, keepdim=True) + net.floor * 1e-3).rsqrt(),
    ),
    "on one side alone": (
        lambda _, h: h / torch.sqrt(h.square().mean(-1, keepdim=True) + 1e-5),
        lambda _, h: h / torch.exp(0.5 * torch.logcumsumexp(2 * h.abs().log(), -1)[..., -1:]) * 6**0.5,
    ),
}


@pytest.mark.one_in(2)
@pytest.mark.parametrize("spelled", SPELLED)
def test_an_epsilon_in_any_spelling_shows_beside_small_features(spelled: str) -> None:
    one, two = SPELLED[spelled]
    floor = {"floor": torch.tensor([1e-5])} if spelled == "in a buffer" else {}
    models = [Layers(lambda net, x, use=use: net.last(use(net, net.first(x))), **floor) for use in (one, two)]
    with pytest.raises(MismatchError, match=r"small (layers|weights)|epsilon"):
        bound(*models, ROWS)


def test_small_weights_do_not_part_what_is_equal() -> None:
    def one(net: Any, x: Tensor) -> Tensor:
        h = net.first(x)
        return net.last(
            (h - h.mean(-1, keepdim=True)) / (h.var(-1, keepdim=True, correction=0) + 1e-12).sqrt()
        )

    def two(net: Any, x: Tensor) -> Tensor:
        h = net.first(x)
        variance = (h * h).mean(-1, keepdim=True) - h.mean(-1, keepdim=True).square()
        return net.last((h - h.sum(-1, keepdim=True) / 6) * torch.rsqrt(variance + 1e-12))

    assert bound(Layers(one), Layers(two), ROWS).proof.proven


class Looked(nn.Module):
    """A table of constants is read with ids; ``how`` says in what form it stands."""

    def __init__(self, table: Any, how: str = "index") -> None:
        super().__init__()
        self.embedding, self.last, self.how = nn.Embedding(300, 4), nn.Linear(4, 3), how
        self.register_buffer("table", torch.from_numpy(table.copy()), persistent=how != "constant")

    def forward(self, ids: Tensor) -> Tensor:
        table: Tensor = self.table  # type: ignore[assignment]
        if self.how == "shifted":
            found = (table - 1)[ids] + 1
        elif self.how == "one-hot":
            found = nn.functional.one_hot(ids, 300).float() @ table
        else:
            found = table[ids]
        if found.is_floating_point():
            return self.last(torch.tanh(found).mean(1))
        return self.last(self.embedding(found).mean(1))


WHOLE = RNG.permutation(300)
REAL = RNG.standard_normal((300, 4)).astype(np.float32)


def changed(table: Any) -> Any:
    other = table.copy()
    other[217] = (other[217] + 1) % 300
    return other


class LookedReal(Looked):
    def __init__(self, table: Any, how: str = "index") -> None:
        super().__init__(table, how)
        del self.embedding


@pytest.mark.one_in(2)
@pytest.mark.parametrize(
    ("kind", "table", "how"),
    [
        (Looked, WHOLE, "index"),
        (Looked, WHOLE, "shifted"),
        (LookedReal, REAL, "constant"),
        (LookedReal, REAL, "one-hot"),
    ],
    ids=["integers", "in another form", "floats", "by a product"],
)
def test_one_entry_of_a_table(kind: Any, table: Any, how: str) -> None:
    first = kind(table, "constant" if kind is LookedReal and how == "one-hot" else "index")
    assert bound(first, kind(table, how), IDS).proof.proven
    if kind is Looked or how == "constant":
        with pytest.raises(MismatchError):
            bound(first, kind(changed(table), how), IDS)


def test_the_entry_is_named() -> None:
    with pytest.raises(MismatchError, match=rf"entry is {WHOLE[217]} at \[217\] in the reference"):
        bound(Looked(WHOLE), Looked(changed(WHOLE)), IDS)


ROUNDED: dict[str, Callable[[Any, Tensor], Tensor]] = {
    "data": lambda net, x: net.last(torch.relu(net.first(net.round(x)))),
    "features": lambda net, x: net.last(net.round(net.first(x))),
    "quarters": lambda net, x: net.last(torch.relu(net.first(net.round(4 * x) / 4))),
}


WAYS: dict[str, tuple[Callable[[Tensor], Tensor], Callable[[Tensor], Tensor]]] = {
    "even and up": (torch.round, lambda x: torch.floor(x + 0.5)),
    "up and down": (lambda x: torch.floor(x + 0.5), lambda x: torch.ceil(x - 0.5)),
    "up and outwards": (lambda x: torch.floor(x + 0.5), lambda x: x.sign() * torch.floor(x.abs() + 0.5)),
}


@pytest.mark.one_in(2)
@pytest.mark.parametrize("where", ROUNDED)
@pytest.mark.parametrize("ways", WAYS)
def test_halves_are_rounded_in_one_way(where: str, ways: str) -> None:
    models = [Layers(ROUNDED[where]) for _ in WAYS[ways]]
    for model, way in zip(models, WAYS[ways], strict=True):
        model.round = way
    with pytest.raises(MismatchError):
        bound(*models, ROWS)


@pytest.mark.one_in(2)
@pytest.mark.parametrize("where", ROUNDED)
def test_one_way_to_round_in_two_forms(where: str) -> None:
    models = [Layers(ROUNDED[where]) for _ in range(2)]
    models[0].round = lambda x: torch.floor(x + 0.5)
    models[1].round = lambda x: -torch.ceil(-x - 0.5)
    assert bound(*models, ROWS).proof.proven


FILLED: dict[str, Callable[[Tensor], Tensor]] = {
    "nan_to_num": torch.nan_to_num,
    "where": lambda x: torch.where(torch.isnan(x), torch.zeros_like(x), x),
    "itself": lambda x: torch.where(x.eq(x), x, torch.zeros_like(x)),
    "masked_fill": lambda x: x.masked_fill(x.isnan(), 0.0),
}


@pytest.mark.one_in(2)
@pytest.mark.parametrize("how", FILLED)
def test_missing_values_on_one_side_are_said(how: str) -> None:
    plain = Layers(lambda net, x: net.last(torch.relu(net.first(x))))
    filled = Layers(lambda net, x: net.last(torch.relu(net.first(FILLED[how](x)))))
    for reference, candidate, words in (
        (filled, plain, "the reference replaces a NaN"),
        (plain, filled, "this model replaces a NaN"),
    ):
        assert any(words in note for note in bound(reference, candidate, ROWS).notes)


def test_nothing_is_said_of_missing_values_where_both_replace_them() -> None:
    one, two = (
        Layers(lambda net, x, how=how: net.last(torch.relu(net.first(FILLED[how](x)))))
        for how in ("where", "masked_fill")
    )
    assert not any("missing" in note for note in bound(one, two, ROWS).notes)


def test_missing_values_that_are_replaced_by_other_numbers_are_said() -> None:
    zeros, fives = (
        Layers(lambda net, x, by=by: net.last(torch.relu(net.first(torch.nan_to_num(x, by)))))
        for by in (0.0, 5.0)
    )
    assert any("each in its way" in note for note in bound(zeros, fives, ROWS).notes)


@pytest.mark.slow
def test_infinite_values_that_are_replaced_by_other_numbers_are_said() -> None:
    """And nothing of those that both replace alike, or hand on."""

    def filled(low: float) -> Layers:
        return Layers(lambda net, x: net.last(torch.relu(net.first(torch.nan_to_num(x, 0.0, 9.0, low)))))

    plain = [Layers(lambda net, x: net.last(torch.relu(net.first(x)))) for _ in range(2)]
    for one, two, said in (
        (filled(-9.0), filled(-8.0), "each in its way"),
        (filled(-9.0), plain[0], "the reference replaces an infinity"),
    ):
        assert any(said in note for note in bound(one, two, ROWS).notes if note.startswith("infinite values"))
    for one, two in ((filled(-9.0), filled(-9.0)), (plain[0], plain[1])):
        assert not any("infinite" in note for note in bound(one, two, ROWS).notes)
