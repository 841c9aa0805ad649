"""Participants in lockstep that begin with something of their own give what PyTorch makes of each one alone."""

from __future__ import annotations

import copy
from dataclasses import replace
from functools import partial
from typing import Any

import numpy as np
import pytest
import torch
from torch import nn
from torch.nn import functional

from tests.adapters.lockstep_models import normalised, wide
from tests.adapters.test_lockstep import IMAGES, LABELS, PLACES, apart, clients, opened, start_of
from xbackend_fl.adapter import OPTIMIZERS, ClientWork, TrainConfig
from xbackend_fl.adapter.cohort import Own
from xbackend_fl.algorithms.kinds.scaffold import ControlRule
from xbackend_fl.errors import RunFailed
from xbfl_torch.stacked import cohorts

RATES = (0.1, 0.05, 0.2)


def drawn(start: dict[str, Any], names: list[str], seed: int) -> dict[str, Any]:
    """Arrays of a participant's own."""
    draw = np.random.default_rng(seed).normal
    return {name: start[name] + draw(scale=0.1, size=start[name].shape) for name in names}


def alone(
    model: nn.Module, part: ClientWork, tensors: Any, controls: Any, dtype: torch.dtype
) -> dict[str, np.ndarray]:
    """One participant on a processor: SGD of these rates against ``g - own + common``."""
    mine = copy.deepcopy(model).cpu().to(dtype).train()
    state = mine.state_dict()
    for name, array in tensors.items():
        state[name].copy_(torch.from_numpy(array))
    # As the schema has it, averages of variances are of the biased one.
    for module in mine.modules():
        if isinstance(module, nn.BatchNorm2d):
            module.register_forward_hook(biased)
    for rows, rate in zip(part.batches, RATES, strict=False):
        loss = functional.cross_entropy(
            mine(torch.from_numpy(IMAGES[rows]).to(dtype)), torch.from_numpy(LABELS[rows])
        )
        grads = torch.autograd.grad(loss, list(mine.parameters()))
        with torch.no_grad():
            for (name, value), grad in zip(mine.named_parameters(), grads, strict=True):
                own, common = (torch.from_numpy(control[name]) for control in controls)
                value.sub_(rate * (grad - own + common))
    return {name: tensor.detach().numpy() for name, tensor in mine.state_dict().items()}


def biased(module: Any, inputs: Any, _: Any) -> None:
    value = inputs[0]
    count = value.numel() / value.shape[1]
    variance = value.detach().var((0, 2, 3), unbiased=True)
    module.running_var.data -= module.momentum * variance / count


@pytest.mark.parametrize("place", PLACES)
@pytest.mark.parametrize("slots", [None, 2])
@pytest.mark.parametrize(
    ("build", "mine", "ruled"),
    [
        (normalised, ["1.weight", "1.bias", "1.running_mean", "1.running_var"], False),
        (normalised, [], True),
        (wide, ["6.weight"], False),
        (wide, ["3.weight", "3.bias"], True),
    ],
)
def test_what_each_one_has(build: Any, mine: list[str], ruled: bool, slots: int | None, place: Any) -> None:  # noqa: FBT001
    """Local parameters, controls and rates of steps; all at once, or two at a time."""
    lockstep, model = opened(build, place)
    start = start_of(model)
    if slots:
        lockstep._upper = slots
    trained = [name for name, _ in model.named_parameters()]
    nothing = {name: np.zeros_like(start[name]) for name in trained}
    common = drawn(nothing, trained, 99) if ruled else nothing
    owned = [drawn(start, mine, index) for index in range(4)]
    for tensors in owned:
        tensors |= {n: np.abs(a) for n, a in tensors.items() if n.endswith("var")}
    controls = [drawn(nothing, trained, 10 + index) if ruled else nothing for index in range(4)]
    config = TrainConfig(OPTIMIZERS["sgd"](lr=9.0), rates=RATES)
    if ruled:
        config = replace(config, rule=ControlRule(), slots={"own": nothing, "common": common})

    def own(index: int) -> Own:
        return Own(owned[index], {"own": controls[index], "common": common} if ruled else {})

    work = [replace(part, own=partial(own, index)) for index, part in enumerate(clients())]
    assert lockstep.takes(work, config) is None
    seen = []
    for found in lockstep.train_apart(start, work, config):
        seen.append(found.index)
        arguments = (model, work[found.index], {**start, **owned[found.index]})
        both = (controls[found.index], common)
        expected = alone(*arguments, both, torch.float64)
        expected = {name: array for name, array in expected.items() if name in found.after}
        change = {name: array - start[name] for name, array in found.after.items()}
        wanted = {name: array - start[name] for name, array in expected.items()}
        allowed = 1e-12
        if place[0] == "cuda":
            rounded = alone(*arguments, both, torch.float32)
            theirs = {name: rounded[name].astype(np.float64) - start[name] for name in wanted}
            allowed = max(1e-5, 3 * apart(theirs, wanted))
        assert change.keys() == wanted.keys()
        assert apart(change, wanted) < allowed
        assert found.loss.positions == work[found.index].num_examples
    assert sorted(seen) == [0, 1, 2, 3]
    assert slots or seen == [0, 1, 2, 3]


def test_a_weight_of_ones_own_is_not_shared() -> None:
    lockstep, model = opened(wide, PLACES[0])
    start, config = start_of(model), TrainConfig(OPTIMIZERS["sgd"](lr=0.1))
    work = [replace(part, own=lambda: Own({"1.weight": start["1.weight"]}, {})) for part in clients()]
    assert lockstep._weights(work, config) == (("3.weight",), ("1.weight", "6.weight"))


def test_memory_that_ends_in_the_middle(monkeypatch: pytest.MonkeyPatch, caplog: Any) -> None:
    """Who is done stays done."""
    lockstep, model = opened(wide, PLACES[0])
    start, config = start_of(model), TrainConfig(OPTIMIZERS["momentum"](lr=0.1))
    work = [replace(part, own=lambda: Own({}, {})) for part in clients()]
    expected = {
        found.index: {name: array.copy() for name, array in found.after.items()}
        for found in lockstep.train_apart(start, work, config)
    }
    wave, room = cohorts.Wave, [2]

    def limited(*arguments: Any) -> Any:
        if arguments[-1].slots > room[0]:
            raise torch.OutOfMemoryError("CUDA out of memory")
        return wave(*arguments)

    monkeypatch.setattr(cohorts, "Wave", limited)
    lockstep, model = opened(wide, PLACES[0])
    seen = []
    for found in lockstep.train_apart(start, work, config):
        seen.append(found.index)
        assert apart(found.after, expected[found.index]) < 1e-12
        if len(seen) == 2:
            room[0], lockstep._wave = 1, None
    assert sorted(seen) == [0, 1, 2, 3]
    assert "2 participants do not fit on the device together; going on with 1" in caplog.text
    room[0], lockstep._wave = 0, None
    with pytest.raises(RunFailed, match="one participant"):
        next(lockstep.train_apart(start, work, config))
