"""Models in half precision are mapped and proven in float32, and are themselves again afterwards."""

from __future__ import annotations

import copy
from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from torch import nn

import xbackend_fl as xb
import xbfl_torch
from xbackend_fl.adapter import OPTIMIZERS, Batch, TrainConfig
from xbackend_fl.errors import MismatchError, RefusedInput
from xbackend_fl.losses import LOSSES

VECTOR = (np.random.default_rng(0).standard_normal((1, 8)).astype(np.float32),)
SERIES = (np.random.default_rng(0).standard_normal((1, 5, 8)).astype(np.float32),)
HALVES = pytest.mark.parametrize(
    "dtype",
    [
        pytest.param(torch.bfloat16, id="bfloat16"),
        pytest.param(torch.float16, id="float16", marks=pytest.mark.slow),
    ],
)


def dense() -> nn.Module:
    return nn.Sequential(nn.Linear(8, 6), nn.LayerNorm(6), nn.GELU(), nn.Linear(6, 3))


class Attention(nn.Module):
    """One head; a mutant has queries and keys exchanged, which transposes its scores."""

    def __init__(self, *, swapped: bool = False, eps: float = 1e-5) -> None:
        super().__init__()
        self.q, self.k, self.v = nn.Linear(8, 4), nn.Linear(8, 4), nn.Linear(8, 4)
        self.norm, self.swapped = nn.LayerNorm(4, eps=eps), swapped

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        q, k = self.q(x), self.k(x)
        scores = torch.softmax(q @ k.transpose(-1, -2) / 2, -2 if self.swapped else -1)
        return self.norm(scores @ self.v(x)).relu().mean(1)


def bits(model: nn.Module) -> list[Any]:
    tensors = model.state_dict().values()
    return [(t.dtype, t.data_ptr(), t.contiguous().view(torch.uint8).tolist()) for t in tensors]


@HALVES
def test_half_against_float32(dtype: torch.dtype) -> None:
    """Proven to the usual tolerance, in either direction; both models are what they were, to the bit and the object."""
    half, whole = dense().to(dtype), dense()
    for reference, candidate in ((half, whole), (whole, half)):
        before = bits(reference), bits(candidate)
        schema, evidence = xb.describe_reference(reference, VECTOR)
        bound = xb.bind(candidate, schema, VECTOR, evidence)
        assert bound.proof.largest_error < 1e-5
        assert (bits(reference), bits(candidate)) == before
        named = str(dtype).removeprefix("torch.")
        assert {p.storage for p in schema.parameters} == ({named} if reference is half else {""})
        said = [note for note in bound.notes if named in note]
        assert len(said) == (candidate is half)
    assert schema.fingerprint == xb.describe(half, VECTOR).fingerprint


def other_epsilon() -> nn.Module:
    model = dense()
    model[1] = nn.LayerNorm(6, eps=1e-3)  # type: ignore[operator]
    return model


def other_activation() -> nn.Module:
    model = dense()
    model[2] = nn.SiLU()  # type: ignore[operator]
    return model


@HALVES
@pytest.mark.parametrize("mutant", [other_epsilon, other_activation])
def test_mutants_are_refused_in_half_precision_too(
    mutant: Callable[[], nn.Module], dtype: torch.dtype
) -> None:
    schema, evidence = xb.describe_reference(dense().to(dtype), VECTOR)
    with pytest.raises(MismatchError):
        xb.bind(mutant().to(dtype), schema, VECTOR, evidence)


@pytest.mark.slow
@HALVES
def test_attention_and_its_mutants(dtype: torch.dtype) -> None:
    schema, evidence = xb.describe_reference(Attention().to(dtype), SERIES)
    assert xb.bind(Attention().to(dtype), schema, SERIES, evidence).proof.proven
    for mutant in (Attention(swapped=True), Attention(eps=1e-3)):
        with pytest.raises(MismatchError):
            xb.bind(mutant.to(dtype), schema, SERIES, evidence)


class Odd(nn.Module):
    """Does something else where its data are bfloat16."""

    def __init__(self, factor: float = 1.0) -> None:
        super().__init__()
        self.a, self.b, self.factor = nn.Linear(8, 6), nn.Linear(6, 3), factor

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        hidden = F.relu(self.a(x))
        return self.b(hidden * self.factor if hidden.dtype == torch.bfloat16 else hidden)


@pytest.mark.slow
def test_a_branch_on_the_dtype_is_no_rounding() -> None:
    """In float32 both are one function; what the user runs is another."""
    schema, evidence = xb.describe_reference(Odd(), VECTOR)
    for factor in (1.0, 1.002):
        said = xb.bind(Odd(factor).bfloat16(), schema, VECTOR, evidence).notes[-1]
        assert "is not seen at this precision" in said
    for model in (Odd(1.5).bfloat16(), Odd(0.5).bfloat16()):
        with pytest.raises(MismatchError, match="in bfloat16 the torch model computes something else"):
            xb.bind(model, schema, VECTOR, evidence)
        with pytest.raises(MismatchError, match="in bfloat16 the torch model computes something else"):
            xb.describe_reference(model, VECTOR)


class ByName(nn.Module):
    """Asks for its precision by name, in every way; its table is registered nowhere."""

    def __init__(self) -> None:
        super().__init__()
        self.a, self.b = nn.Linear(8, 6).bfloat16(), nn.Linear(6, 3)
        self.table = torch.linspace(0, 1, 6).bfloat16()
        self.register_buffer("shift", torch.linspace(1, 2, 6).bfloat16(), persistent=False)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        hidden = self.a(x.to(torch.bfloat16)) + self.table + self.shift + torch.ones(6, dtype=torch.bfloat16)
        return self.b(hidden.bfloat16().relu().to(dtype=torch.float32)).half().float()


class Autocast(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.a, self.b = nn.Linear(8, 6), nn.Linear(6, 3)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        with torch.autocast("cpu", dtype=torch.bfloat16):
            return self.b(F.relu(self.a(x))).float()


@pytest.mark.slow
def test_precision_that_code_asks_for() -> None:
    schema, evidence = xb.describe_reference(
        nn.Sequential(nn.Linear(8, 6), nn.ReLU(), nn.Linear(6, 3)), VECTOR
    )
    bound = xb.bind(Autocast(), schema, VECTOR, evidence)
    assert "in bfloat16 itself its outputs differ" in bound.notes[-1]
    assert torch.is_autocast_enabled("cpu") is False
    mixed = ByName()
    before = bits(mixed), mixed.table, mixed.shift
    schema, evidence = xb.describe_reference(mixed, VECTOR)
    assert xb.bind(ByName(), schema, VECTOR, evidence).proof.largest_error < 1e-5
    assert bits(mixed) == before[0]
    assert mixed.table is before[1]
    assert mixed.shift is before[2]
    assert {p.name: p.storage for p in schema.parameters}["b.weight"] == ""


def test_masters_are_what_moves() -> None:
    """The model holds the rounding of what it was given; what its user writes into it counts from then on."""
    model = dense().bfloat16()
    schema, evidence = xb.describe_reference(dense(), VECTOR)
    bound = xb.bind(model, schema, VECTOR, evidence)
    weights = bound.read()
    fine = weights.like({name: array + np.float32(1e-6) for name, array in weights.items()})
    bound.write(fine)
    assert bound.read().digest == fine.digest
    state = model.state_dict()
    assert all(tensor.dtype == torch.bfloat16 for tensor in state.values())
    given = torch.from_numpy(fine["0.weight"]).bfloat16()
    assert torch.equal(state["0.weight"], given)
    with torch.no_grad():
        model.get_parameter("0.weight")[0, 0] = 0.5
    after = bound.read()
    assert after["0.weight"][0, 0] == 0.5
    np.testing.assert_array_equal(after["3.bias"], fine["3.bias"])


def test_what_float16_cannot_hold_is_refused() -> None:
    schema, evidence = xb.describe_reference(dense(), VECTOR)
    bound = xb.bind(dense().half(), schema, VECTOR, evidence)
    weights = bound.read()
    large = weights.like({n: a * np.float32(1e6) if n == "0.weight" else a for n, a in weights.items()})
    with pytest.raises(RefusedInput, match=r"'0\.weight' is float16, and its float32 master holds"):
        bound.write(large)


def test_steps_below_half_a_unit_move_the_model() -> None:
    """A hundred rounds, of which none alone reaches the next bfloat16: PyTorch's own step moves nothing, masters what they should."""
    torch.manual_seed(0)
    lost = nn.Sequential(nn.Linear(8, 3)).bfloat16()
    half, whole = copy.deepcopy(lost), copy.deepcopy(lost).float()
    x, y = VECTOR[0].repeat(4, 0), np.ones((4, 3), np.float32)
    rate, rounds = 1e-4, 100
    before = lost.state_dict()["0.weight"].clone()
    stepper = torch.optim.SGD(lost.parameters(), rate)
    for _ in range(rounds):
        stepper.zero_grad()
        F.mse_loss(lost(torch.from_numpy(x).bfloat16()), torch.from_numpy(y).bfloat16()).backward()
        stepper.step()
    config = TrainConfig(OPTIMIZERS["sgd"](lr=rate), loss=LOSSES["mean_squared_error"]())
    trainers = [xbfl_torch.adapter.load_model(model, VECTOR) for model in (half, whole)]
    for _ in range(rounds):
        # A round: weights come as float32, are trained, and go.
        weights = [trainer.read() for trainer in trainers]
        for trainer, given in zip(trainers, weights, strict=True):
            trainer.write(given)
            trainer.train([Batch((x,), y)], config)
    one, two = (trainer.read() for trainer in trainers)
    for name, array in two.items():
        np.testing.assert_array_equal(one[name], array)
    large = before.abs() > 0.1
    assert torch.equal(lost.state_dict()["0.weight"][large], before[large])
    assert not torch.equal(half.state_dict()["0.weight"][large], before[large])
    assert torch.equal(half.state_dict()["0.weight"], whole.state_dict()["0.weight"].bfloat16())
