"""What a cohort in lockstep will allocate is known before it does, and what does not fit is cut into waves."""

from __future__ import annotations

from dataclasses import replace
from functools import partial
from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch import nn

from tests.adapters.lockstep_models import Recurrent, normalised, wide
from tests.adapters.test_lockstep import PLACES, clients, opened, start_of
from xbackend_fl.adapter import OPTIMIZERS, TrainConfig
from xbackend_fl.adapter.cohort import Own
from xbackend_fl.algorithms.kinds.fedprox import ProximalRule
from xbackend_fl.canonical.layout import Native
from xbackend_fl.errors import RunFailed
from xbfl_torch.devices import enough_memory
from xbfl_torch.stacked import devices
from xbfl_torch.stacked.memory import StepBytes, fitting, wave_bytes
from xbfl_torch.stacked.room import Expected, needed_room, with_margin
from xbfl_torch.stacked.schedule import rounded

SGD, ADAM = TrainConfig(OPTIMIZERS["sgd"](lr=0.1)), TrainConfig(OPTIMIZERS["adam"](lr=0.1))
BESIDE = {"_progress", "_seeds", "_base"}


def images() -> nn.Module:
    """About two megabytes a participant."""
    return nn.Sequential(
        nn.Conv2d(1, 64, 3, padding=1),
        nn.Tanh(),
        nn.Conv2d(64, 64, 3, padding=1),
        nn.Tanh(),
        nn.Flatten(),
        nn.Linear(4096, 4),
    )


def held(wave: Any) -> int:
    """Bytes of everything that a wave holds, but for its schedule, the data, the model and what everybody starts from."""
    found: dict[int, int] = {}

    def add(value: Any) -> None:
        if isinstance(value, torch.Tensor):
            storage = value.untyped_storage()
            found[storage.data_ptr()] = storage.nbytes()
        elif isinstance(value, dict | list):
            for item in value.values() if isinstance(value, dict) else value:
                add(item)

    for name, value in vars(wave).items():
        if name not in BESIDE:
            add(value)
    for item in wave._dense.additions.values():
        add([item.rows, item.columns])
    if wave._constants is not None:
        add([wave._constants.has, *wave._constants.rows])
    return sum(found.values())


@pytest.mark.parametrize("own", [False, True])
@pytest.mark.parametrize("config", [SGD, ADAM, "pulled", "masked"])
@pytest.mark.parametrize("build", [normalised, wide])
def test_what_a_wave_holds(build: Any, config: Any, own: bool) -> None:  # noqa: FBT001
    lockstep, model = opened(build, PLACES[0])
    start = start_of(model)
    if config == "pulled":
        config = replace(SGD, rule=ProximalRule(0.7), slots={"anchor": start})
    if config == "masked":
        name = "4.weight" if build is normalised else "3.weight"
        shape = tuple(start[name].shape)
        config = replace(SGD, masked=(Native(name, shape, tuple((0, 1, n) for n in shape)),))
    work = clients()
    if own:
        mine = Own({}, {"anchor": start})
        work = [replace(part, own=lambda: mine) for part in work]
        list(lockstep.train_apart(start, work, config))
    else:
        lockstep.train(start, work, config)
    wave = lockstep._wave
    assert wave is not None
    room = wave.room
    computed = wave_bytes(wave.packing, config, room.slots, room.rows, apart=own, itemsize=8)
    assert held(wave) == computed


@pytest.mark.parametrize("build", [normalised, wide, partial(Recurrent, nn.LSTM)])
def test_what_everybody_starts_from_is_there_once(build: Any) -> None:
    """The model's tensors lie in it, but for images' weights and those of recurrent layers."""
    lockstep, model = opened(build, PLACES[-1])
    start = start_of(model)
    lockstep.train(start, clients(), SGD)
    assert lockstep._wave is not None
    row = lockstep._wave._base.untyped_storage().data_ptr()
    places = {name: tensor.untyped_storage().data_ptr() == row for name, tensor in model.state_dict().items()}
    expected = {
        f"{name}.{part}" if name else part: not isinstance(module, nn.RNNBase) and tensor.ndim != 4
        for name, module in model.named_modules()
        for part, tensor in [*module.named_parameters(recurse=False), *module.named_buffers(recurse=False)]
        if tensor.is_floating_point()
    }
    assert {name: places[name] for name in expected} == expected
    assert any(expected.values())
    for name, array in start_of(model).items():
        np.testing.assert_array_equal(array, start[name])


@given(st.integers(1, 300), st.integers(0, 50), st.integers(0, 9), st.integers(0, 4000))
def test_as_few_waves_as_fit(count: int, common: int, each: int, free: int) -> None:
    step = StepBytes(common, each)
    slots = fitting(count, step.total, free)
    assert 1 <= slots <= rounded(count)
    assert slots == 1 or step.total(slots) <= free
    fewer = -(-count // slots) - 1
    if fewer:
        assert step.total(rounded(-(-count // fewer))) > free


def test_room_for_cohorts_that_were_not_drawn_yet() -> None:
    """The longest participant fits always, and a random cohort together nearly always."""
    draw = np.random.default_rng(0)
    steps = np.ceil(draw.lognormal(2.5, 0.6, 200)).astype(int)
    expected = Expected(steps, 8)
    together = [draw.choice(steps, 40, replace=False).sum() for _ in range(2000)]
    assert (np.array(together) > expected.together(40)).mean() < 0.005
    assert expected.together(40) < 1.5 * np.mean(together)
    room = with_margin(needed_room(clients(), 4, expected, shared=True, apart=False), expected)
    assert room.steps == steps.max()
    assert room.batch == 8
    assert room.rows >= 8 * expected.together(4)


def test_a_later_cohort_records_nothing_anew() -> None:
    lockstep, model = opened(wide, PLACES[0])
    lockstep.expect([2, 3, 3, 9, 2, 3], 8)
    lockstep.train(start_of(model), clients(), SGD)
    first = lockstep._wave
    longer = [
        replace(part, batches=part.batches * (1 + 2 * (index == 3))) for index, part in enumerate(clients())
    ]
    lockstep.train(start_of(model), longer, SGD)
    assert lockstep._wave is first


def test_shares_of_any_size_are_trained_by_what_was_recorded_once() -> None:
    """On several cards a share is larger in one round and smaller in the next; its bits do not depend on what came before."""
    work, found = clients(12), []
    for sizes in ((12, 5, 9), (5,)):
        lockstep, model = opened(wide, PLACES[0])
        start = start_of(model)
        lockstep.expect([len(part.batches) for part in work], 8, 12)
        waves = set()
        for size in sizes:
            sums = lockstep.train(start, work[:size], SGD).sums
            waves.add(id(lockstep._wave))
            if size == 5:
                found.append({name: array.copy() for name, array in sums.items()})
        assert len(waves) == 1
    for name, array in found[0].items():
        np.testing.assert_array_equal(found[1][name], array)


@pytest.mark.parametrize(
    ("error", "said"),
    [
        (torch.OutOfMemoryError("CUDA out of memory. Tried to allocate 26.00 MiB.\nmore"), "CUDA out of memory. Tried to allocate 26.00 MiB."),
        (torch.AcceleratorError("CUDA error: out of memory\nCompile with …"), "CUDA error: out of memory"),
    ],
)  # fmt: skip
def test_a_card_without_memory_is_named(monkeypatch: pytest.MonkeyPatch, error: Exception, said: str) -> None:
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", "3")
    with pytest.raises(RunFailed) as caught, enough_memory("the model does not fit"):
        raise error
    assert caught.value.message == f"the model does not fit on GPU 3: {said}"
    with pytest.raises(torch.AcceleratorError), enough_memory("the model does not fit"):
        raise torch.AcceleratorError("CUDA error: an illegal memory access was encountered")


@pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a GPU")
@pytest.mark.parametrize("apart", [False, True])
def test_a_limit_is_kept_without_trying(
    request: pytest.FixtureRequest, caplog: pytest.LogCaptureFixture, *, apart: bool
) -> None:
    lockstep, model = opened(images, PLACES[-1])
    work, config = clients(64), TrainConfig(OPTIMIZERS["adam"](lr=0.01))
    if apart:
        work = [replace(part, own=lambda: Own({}, {})) for part in work]

    def train() -> int:
        if apart:
            list(lockstep.train_apart(start_of(model), work, config))
        else:
            lockstep.train(start_of(model), work, config)
        assert lockstep._wave is not None
        return lockstep._wave.room.slots

    assert train() == 64
    lockstep._wave = lockstep._graphs = None
    lockstep._planned.clear()
    torch.cuda.empty_cache()
    lockstep._limit = torch.cuda.memory_reserved() + (110 << 20)
    request.addfinalizer(lambda: torch.cuda.set_per_process_memory_fraction(1.0))
    torch.cuda.set_per_process_memory_fraction(lockstep._limit / torch.cuda.mem_get_info()[1])
    assert train() < 64
    assert "do not fit" not in caplog.text


@pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a GPU")
def test_a_driver_without_triton(monkeypatch: pytest.MonkeyPatch) -> None:
    lockstep, _ = opened(wide, PLACES[-1])
    monkeypatch.setattr(devices, "_module", lambda _: None)
    assert "Triton" in str(lockstep.refusal(SGD))
