"""A cohort in lockstep is what PyTorch's own optimizers make of each participant, one after the other."""

from __future__ import annotations

import copy
from collections.abc import Callable, Sequence
from dataclasses import replace
from functools import partial
from typing import Any

import numpy as np
import pytest
import torch
from torch import nn
from torch.nn import functional

from tests.adapters.lockstep_models import (
    Attention,
    Chained,
    Ids,
    Padded,
    Recurrent,
    grouped,
    normalised,
    pooled,
    wide,
)
from xbackend_fl.adapter import OPTIMIZERS, ClientWork, Scaling, TrainConfig
from xbackend_fl.algorithms.kinds.fedprox import ProximalRule
from xbackend_fl.canonical.layout import Native
from xbackend_fl.losses.kinds.cross_entropy import CrossEntropy
from xbackend_fl.losses.kinds.mean_squared_error import MeanSquaredError
from xbfl_torch.cohort import Data
from xbfl_torch.describe import tensors_of
from xbfl_torch.outer_product import called_once
from xbfl_torch.stacked import cohorts
from xbfl_torch.stacked.cohorts import Lockstep
from xbfl_torch.stacked.graphs import Graphs
from xbfl_torch.stacked.room import Room

GENERATOR = np.random.default_rng(0)
IMAGES = GENERATOR.normal(size=(90, 1, 8, 8))
LABELS = GENERATOR.integers(0, 4, 90)
# On a processor in float64, so that nothing but another formula can differ; on a GPU with its kernels, which are of float32.
PLACES = [("cpu", torch.float64), *([("cuda", torch.float32)] if torch.cuda.is_available() else [])]
SGD = TrainConfig(OPTIMIZERS["sgd"](lr=0.1, weight_decay=0.01))


@pytest.fixture(autouse=True)
def exact(monkeypatch: pytest.MonkeyPatch) -> None:
    """As the adapter prepares a process."""
    monkeypatch.setattr(torch.backends.cudnn, "allow_tf32", False)


def clients(count: int = 4) -> list[ClientWork]:
    """Participants of several sizes, each with a short last batch."""
    found = []
    for index in range(count):
        rows = np.random.default_rng(index).permutation(90)[: 11 + 3 * index]
        found.append(ClientWork(tuple(rows[i : i + 8] for i in range(0, len(rows), 8)), len(rows)))
    return found


def opened(
    build: Callable[[], nn.Module], place: tuple[str, torch.dtype], images: Any = IMAGES
) -> tuple[Lockstep, nn.Module]:
    torch.manual_seed(0)
    model, example = build(), torch.from_numpy(IMAGES[:2])
    model.float()(example.float())
    model.to(*place)
    data = Data.on(place[0], (images.astype(str(place[1])[6:]),), LABELS, Scaling(1, 0))
    dense = called_once(model, lambda inputs: model(*inputs), [example.to(*place)])
    tensors = {name: t for name, t in tensors_of(model).items() if t.is_floating_point()}
    return Lockstep(model, tensors, dense, data), model


def start_of(model: nn.Module) -> dict[str, Any]:
    return {n: t.detach().cpu().numpy().copy() for n, t in tensors_of(model).items() if t.is_floating_point()}


def apart(found: Any, expected: Any) -> float:
    """Relative error of all numbers together."""
    error = np.sqrt(sum(np.square(found[name] - expected[name]).sum() for name in expected))
    return float(error / np.sqrt(sum(np.square(array).sum() for array in expected.values())))


def one_by_one(
    model: nn.Module,
    work: Sequence[ClientWork],
    optimizer: Callable[[Any], torch.optim.Optimizer],
    loss: Callable[[torch.Tensor, torch.Tensor], torch.Tensor],
    clip: float | None = None,
    dtype: torch.dtype = torch.float64,
) -> dict[str, Any]:
    """The sum of what participants change in what they train, each weighed by its examples; PyTorch's own, on a processor."""
    sums: dict[str, Any] = {}
    for part in work:
        mine = copy.deepcopy(model).cpu().to(dtype).train()
        stepper = optimizer(mine.parameters())
        for rows in part.batches:
            stepper.zero_grad()
            images = torch.from_numpy(IMAGES[rows]).to(dtype)
            loss(mine(images), torch.from_numpy(LABELS[rows])).backward()
            if clip is not None:
                nn.utils.clip_grad_norm_(mine.parameters(), clip)
            stepper.step()
        for (name, after), before in zip(mine.named_parameters(), model.parameters(), strict=True):
            change = after.detach().double() - before.cpu().double()
            sums[name] = sums.get(name, 0.0) + change.detach().numpy() * part.num_examples
    return sums


def check(
    found: Any, place: tuple[str, torch.dtype], theirs: Callable[..., Any], exact: float = 1e-12
) -> None:
    """Compare with PyTorch's float64: as it is on a processor; on a GPU as near as PyTorch's own float32, times three for another order of sums.

    Weights hold a small change only to their own rounding: with gradients clipped to 0.05 PyTorch itself is 2e-5 away.
    """
    expected = theirs()
    allowed = exact
    if place[0] == "cuda":
        allowed = max(1e-5, 3 * apart(theirs(dtype=torch.float32), expected))
    assert apart(found, expected) < allowed


@pytest.mark.parametrize("place", PLACES)
@pytest.mark.parametrize("clip", [None, 0.05])
@pytest.mark.parametrize(
    "build",
    [
        normalised,
        pooled,
        Chained,
        grouped,
        wide,
        Attention,
        Ids,
        Padded,
        lambda: Recurrent(nn.LSTM, num_layers=2, bidirectional=True),
        lambda: Recurrent(nn.LSTM, bias=False),
        lambda: Recurrent(nn.GRU, bidirectional=True),
        lambda: Recurrent(nn.RNN, nonlinearity="relu"),
        lambda: Recurrent(nn.RNN),
    ],
)
def test_layers(build: Any, clip: float | None, place: Any) -> None:
    lockstep, model = opened(build, place)
    config = TrainConfig(OPTIMIZERS["sgd"](lr=0.1), clip_norm=clip)
    assert lockstep.takes(clients(), config) is None
    result = lockstep.train(start_of(model), clients(), config)
    plain = partial(torch.optim.SGD, lr=0.1)
    check(result.sums, place, partial(one_by_one, model, clients(), plain, functional.cross_entropy, clip))
    assert result.accepted == (True,) * 4
    assert [loss.positions for loss in result.losses] == [part.num_examples for part in clients()]


def test_weights_that_nobody_needs_for_itself(monkeypatch: pytest.MonkeyPatch) -> None:
    """By the numbers of examples alone; with more of them, everybody has a weight of its own, and the result is the same."""
    lockstep, model = opened(wide, PLACES[0])
    config = TrainConfig(OPTIMIZERS["sgd"](lr=0.1), clip_norm=0.05)
    assert lockstep._weights(clients(), config) == (("1.weight", "3.weight"), ("6.weight",))
    assert lockstep._weights(clients(12), config) == ((), ("1.weight", "3.weight", "6.weight"))
    assert lockstep._weights(clients(), SGD) == ((), ("1.weight", "3.weight", "6.weight"))
    assert lockstep._weights(clients(), replace(SGD, optimizer=OPTIMIZERS["adam"](lr=0.1))) == ((), ())
    shared = {
        name: array.copy() for name, array in lockstep.train(start_of(model), clients(), config).sums.items()
    }
    monkeypatch.setattr(cohorts, "few_enough", lambda *_: False)
    assert apart(lockstep.train(start_of(model), clients(), config).sums, shared) < 1e-12


@pytest.mark.parametrize("place", PLACES)
@pytest.mark.parametrize(
    ("name", "theirs"),
    [
        ("sgd", lambda p: torch.optim.SGD(p, lr=0.02, weight_decay=0.01)),
        ("momentum", lambda p: torch.optim.SGD(p, lr=0.02, weight_decay=0.01, momentum=0.9)),
        ("nesterov", lambda p: torch.optim.SGD(p, lr=0.02, weight_decay=0.01, momentum=0.9, nesterov=True)),
        ("adam", lambda p: torch.optim.Adam(p, lr=0.02, weight_decay=0.01)),
        ("adamw", lambda p: torch.optim.AdamW(p, lr=0.02, weight_decay=0.01)),
        ("adagrad", lambda p: torch.optim.Adagrad(p, lr=0.02, weight_decay=0.01, eps=1e-8)),
        ("rmsprop", lambda p: torch.optim.RMSprop(p, lr=0.02, weight_decay=0.01)),
    ],
)
def test_optimizers(name: Any, theirs: Any, place: Any) -> None:
    lockstep, model = opened(wide, place)
    config = TrainConfig(OPTIMIZERS[name](lr=0.02, weight_decay=0.01), clip_norm=0.3)
    assert lockstep.refusal(config) is None
    found = lockstep.train(start_of(model), clients(), config).sums
    check(found, place, partial(one_by_one, model, clients(), theirs, functional.cross_entropy, 0.3), 1e-6)


@pytest.mark.parametrize("place", PLACES)
@pytest.mark.parametrize(
    ("config", "theirs"),
    [
        (replace(SGD, ignore_index=2), lambda o, t: functional.cross_entropy(o, t, ignore_index=2)),
        (
            replace(SGD, loss=CrossEntropy(class_weights=(1, 2, 0.5, 3), label_smoothing=0.1)),
            lambda o, t: functional.cross_entropy(
                o, t, torch.tensor([1, 2, 0.5, 3], dtype=o.dtype), label_smoothing=0.1
            ),
        ),
        (
            replace(SGD, loss=MeanSquaredError()),
            lambda o, t: functional.mse_loss(o, t[:, None].to(o.dtype).expand_as(o)),
        ),
    ],
)
def test_losses(config: TrainConfig, theirs: Any, place: Any) -> None:
    lockstep, model = opened(wide, place)
    if config.loss.targets == "values":
        lockstep._data.targets = lockstep._data.targets[:, None].expand(-1, 4).to(place[1]).contiguous()
    assert lockstep.takes(clients(), config) is None
    found = lockstep.train(start_of(model), clients(), config).sums
    plain = partial(torch.optim.SGD, lr=0.1, weight_decay=0.01)
    check(found, place, partial(one_by_one, model, clients(), plain, theirs))


@pytest.mark.parametrize("place", PLACES)
def test_rates_that_change_from_step_to_step(place: Any) -> None:
    lockstep, model = opened(wide, place)
    work = [ClientWork((np.arange(8), np.arange(8, 16)), 16)]
    config = TrainConfig(OPTIMIZERS["sgd"](lr=9.0))
    start = start_of(model)
    sums = lockstep.train(start, work, replace(config, rates=(0.1, 0.2))).sums
    found = {name: array.copy() for name, array in sums.items()}
    first = ClientWork(work[0].batches[:1], 16)
    half = lockstep.train(start, [first], replace(config, rates=(0.1,))).sums
    middle = {name: start[name] + half[name] / 16 for name in start}
    second = ClientWork(work[0].batches[1:], 16)
    rest = lockstep.train(middle, [second], replace(config, rates=(0.2,))).sums
    whole = {name: 16 * (middle[name] - start[name]) + rest[name] for name in start}
    assert apart(found, whole) < (1e-12 if place[0] == "cpu" else 1e-5)


@pytest.mark.parametrize("place", PLACES)
def test_waves_and_repetition(place: Any) -> None:
    """As many participants at a time as memory allows; the same participants twice give the same bits."""
    lockstep, model = opened(normalised, place)
    config = TrainConfig(OPTIMIZERS["momentum"](lr=0.1))
    start = start_of(model)
    whole = {name: array.copy() for name, array in lockstep.train(start, clients(), config).sums.items()}
    for name, array in lockstep.train(start, clients(), config).sums.items():
        np.testing.assert_array_equal(array, whole[name])
    lockstep._upper = 3
    assert apart(lockstep.train(start, clients(), config).sums, whole) < 1e-6
    uneven = [*clients(3), ClientWork((np.arange(3),), 3), ClientWork((), 0)]
    found = lockstep.train(start, uneven, config)
    assert [loss.positions for loss in found.losses] == [11, 14, 17, 3, 0]


def test_memory_that_ends(monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture) -> None:
    lockstep, model = opened(wide, PLACES[0])
    started = cohorts.Wave

    def limited(*arguments: Any) -> Any:
        if not isinstance(arguments[-1], Room) or arguments[-1].slots > 1:
            raise torch.OutOfMemoryError("CUDA out of memory")
        return started(*arguments)

    monkeypatch.setattr(cohorts, "Wave", limited)
    lockstep.train(start_of(model), clients(), SGD)
    assert "4 participants do not fit on the device together; going on with 2" in caplog.text
    assert "2 participants do not fit on the device together; going on with 1" in caplog.text
    monkeypatch.setattr(cohorts, "prove", limited)
    lockstep, _ = opened(wide, PLACES[0])
    assert lockstep.refusal(SGD) == "two participants in lockstep do not fit on the device"


@pytest.mark.parametrize("place", PLACES)
@pytest.mark.parametrize("build", [normalised, wide])
def test_who_is_refused_spoils_nobody(build: Any, place: Any) -> None:
    images = IMAGES.copy()
    images[89] = np.nan
    lockstep, model = opened(build, place, images)
    config = TrainConfig(OPTIMIZERS["sgd"](lr=0.1))
    clean = [
        ClientWork((np.arange(8), np.arange(8, 11)), 11),
        ClientWork((np.arange(11, 19), np.arange(5)), 13),
    ]
    bad = ClientWork((np.array([3, 89]), np.arange(8)), 10)
    start = start_of(model)
    found = lockstep.train(start, [clean[0], bad, clean[1]], config)
    assert found.accepted == (True, False, True)
    sums = {name: array.copy() for name, array in found.sums.items()}
    assert apart(sums, lockstep.train(start, clean, config).sums) < 1e-6


def test_what_is_frozen_stays() -> None:
    lockstep, model = opened(wide, PLACES[0])
    config = TrainConfig(OPTIMIZERS["sgd"](lr=0.1), frozen=frozenset({"1.weight", "6.bias"}))
    assert lockstep._weights(clients(), config) == (("3.weight",), ("6.weight",))
    found = lockstep.train(start_of(model), clients(), config).sums
    assert not found["1.weight"].any()
    assert not found["6.bias"].any()
    assert found["3.weight"].any()
    assert found["1.bias"].any()


class Steep(nn.Module):
    """Its loss is finite and its gradient is not, where an image begins with a seven."""

    def __init__(self) -> None:
        super().__init__()
        self.first, self.head = nn.Linear(64, 96, bias=False), nn.Linear(96, 4)

    def forward(self, images: torch.Tensor) -> torch.Tensor:
        hidden = torch.tanh(self.first(images.flatten(1)))
        smooth = (images[:, 0, 0, :1] != 7).to(hidden.dtype)
        return self.head(hidden + torch.sqrt(0 * hidden + smooth))


@pytest.mark.parametrize("place", PLACES)
def test_a_last_gradient_that_is_not_finite(place: Any) -> None:
    images = IMAGES.copy()
    images[89, 0, 0, 0] = 7
    lockstep, model = opened(Steep, place, images)
    config = TrainConfig(OPTIMIZERS["sgd"](lr=0.1))
    clean, bad = ClientWork((np.arange(8),), 8), ClientWork((np.array([3, 89]),), 2)
    start = start_of(model)
    assert lockstep._weights([clean, bad], config)[0] == ("first.weight",)
    found = lockstep.train(start, [clean, bad], config)
    assert found.accepted == (True, False)
    assert np.isfinite([loss.total for loss in found.losses]).all()
    sums = {name: array.copy() for name, array in found.sums.items()}
    assert apart(sums, lockstep.train(start, [clean], config).sums) < 1e-6


@pytest.mark.parametrize("build", [normalised, wide])
@pytest.mark.parametrize("optimizer", ["sgd", "momentum"])
def test_who_is_done_changes_no_more(monkeypatch: pytest.MonkeyPatch, build: Any, optimizer: Any) -> None:
    """A recorded step is of more participants than are left."""
    lockstep, model = opened(build, PLACES[0])
    config, start = TrainConfig(OPTIMIZERS[optimizer](lr=0.1)), start_of(model)
    found = {name: array.copy() for name, array in lockstep.train(start, clients(), config).sums.items()}
    monkeypatch.setattr(Graphs, "step", lambda self, _: self._wave.step(self._wave.room.slots))
    assert apart(lockstep.train(start, clients(), config).sums, found) < 1e-12


class Pulled(torch.optim.SGD):
    """Adds the gradient of ``0.7 / 2 * |x - w|**2`` for the values ``w`` that it saw first, of all tensors but the fourth."""

    def __init__(self, parameters: Any, **settings: float) -> None:
        super().__init__(parameters, lr=0.05, **settings)
        self._first = [p.detach().clone() for p in self.param_groups[0]["params"]]

    def step(self, closure: Any = None) -> None:  # type: ignore[override]
        for place, (p, first) in enumerate(zip(self.param_groups[0]["params"], self._first, strict=True)):
            p.grad += 0.7 * (p.detach() - first) * (place != 3)
        super().step(closure)


@pytest.mark.parametrize("place", PLACES)
@pytest.mark.parametrize("clip", [None, 0.3])
@pytest.mark.parametrize(
    ("name", "options"), [("sgd", {}), ("momentum", {"momentum": 0.9, "weight_decay": 0.01})]
)
def test_a_rule_of_an_algorithm(name: Any, options: Any, clip: float | None, place: Any) -> None:
    lockstep, model = opened(wide, place)
    start = start_of(model)
    anchor = {name: array for name, array in start.items() if name != "3.bias"}
    config = TrainConfig(
        OPTIMIZERS[name](lr=0.05, **options),
        clip_norm=clip,
        rule=ProximalRule(0.7),
        slots={"anchor": anchor},
    )
    assert lockstep.takes(clients(), config) is None
    found = lockstep.train(start, clients(), config).sums
    theirs = partial(Pulled, **options)
    check(found, place, partial(one_by_one, model, clients(), theirs, functional.cross_entropy, clip))


def test_parts_that_stay_silent() -> None:
    lockstep, model = opened(wide, PLACES[0])
    silent = Native("3.weight", (80, 96), ((0, 0, 80), (1, 4, 8)))
    found = lockstep.train(start_of(model), clients(), replace(SGD, masked=(silent,), clip_norm=0.3)).sums
    decay = model.get_parameter("3.weight")[:, 4:8].detach().numpy() * (0.999**2 - 1) * 42
    assert found["3.weight"][:, :4].any()
    assert np.abs(found["3.weight"][:, 4:8]).max() <= np.abs(decay).max() * 2


class Mixing(nn.Module):
    """Its examples depend on each other."""

    def __init__(self) -> None:
        super().__init__()
        self.head = nn.Linear(64, 4)

    def forward(self, images: torch.Tensor) -> torch.Tensor:
        flat = images.flatten(1)
        return self.head(flat - flat.mean(0))


class Counting(nn.Module):
    """Asks how many numbers are positive."""

    def forward(self, images: torch.Tensor) -> torch.Tensor:
        return images.flatten(1)[:, : int((images > 0).any()) + 7]


def test_what_does_not_run_in_lockstep() -> None:
    lockstep, _ = opened(Mixing, PLACES[0])
    assert "depend on each other" in str(lockstep.refusal(SGD))
    lockstep, _ = opened(lambda: nn.Sequential(Counting(), nn.Linear(8, 4)), PLACES[0])
    assert str(lockstep.refusal(SGD)).startswith("layer '0' (Counting): ")
    assert "float16" in str(lockstep.refusal(replace(SGD, precision="float16")))
