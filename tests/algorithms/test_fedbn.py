"""FedBN against PyTorch alone: a network for every participant, its normalisation its own, ``torch.optim`` for the steps."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch
from torch import nn

from tests.algorithms.smooth import NAMES, course_of, steps_of
from xbackend_fl import run_course
from xbackend_fl.data import cohort
from xbackend_fl.participant import ClientStates, CourseData, Worker

ROUNDS = 8


def network(initial: dict[str, torch.Tensor]) -> nn.Module:
    net = nn.Sequential(nn.Linear(4, 6), nn.BatchNorm1d(6), nn.Tanh(), nn.Linear(6, 2))
    names = {"hidden": "0", "out": "3"}
    for name, value in initial.items():
        layer, _, role = name.partition(".")
        if layer in names:
            net.get_parameter(f"{names[layer]}.{role}").data.copy_(value)
    return net


@pytest.mark.parametrize(
    "backends",
    [pytest.param(["torch"], marks=pytest.mark.slow), ["torch", "tensorflow"]],
    ids=["torch", "mixed"],
)
def test_eight_rounds(backends: list[str], tmp_path: Path) -> None:
    course = course_of(tmp_path / "course", backends, "federate.algorithm=fedbn", norm=True, rounds=ROUNDS)
    initial = {k: torch.from_numpy(v.copy()) for k, v in Worker(course, "torch", 1).initial().items()}
    run = run_course(course, tmp_path / "run", in_process=True)
    splits = CourseData(course, course.reference).splits()
    shards = {
        n: s for backend in course.backends for n, s in CourseData(course, backend).parts(splits).items()
    }
    nets = {name: network(initial) for name in NAMES}
    shared = {key: value.clone() for key, value in nets[NAMES[0]].state_dict().items() if key[0] in "03"}
    order = [p.name for p in course.participants]
    for number in range(1, ROUNDS + 1):
        chosen = cohort(order, 3, course.seed, "cohort", number)
        for name in chosen:
            net, own = nets[name], shards[name].gather(np.arange(len(shards[name])))
            net.load_state_dict(shared, strict=False)
            net.train()
            step = torch.optim.SGD(net.parameters(), lr=0.1)
            x, y = torch.from_numpy(own.inputs[0]), torch.from_numpy(own.targets)
            for rows in steps_of(course, number, name, len(x)):
                step.zero_grad()
                nn.functional.mse_loss(net(x[rows]), y[rows]).backward()
                step.step()
        total = sum(len(shards[name]) for name in chosen)
        found = {name: nets[name].state_dict() for name in chosen}
        shared = {k: sum(found[n][k] * (len(shards[n]) / total) for n in chosen) for k in shared}  # type: ignore[misc]
    for key, value in shared.items():
        name = ("hidden" if key[0] == "0" else "out") + key[1:]
        np.testing.assert_allclose(run.weights[name], value.numpy(), rtol=0, atol=2e-6)
    states = ClientStates(run.path / "clients", 0, 3)
    rounds = {
        name: sum(name in cohort(order, 3, course.seed, "cohort", n) for n in range(1, ROUNDS + 1))
        for name in NAMES
    }
    assert max(rounds.values()) > 2
    for name in NAMES:
        kept = states.read(name, ROUNDS + 1)
        norm = nets[name].get_submodule("1").state_dict()
        for role, native in (("weight", "weight"), ("bias", "bias"), ("mean", "running_mean")):
            np.testing.assert_allclose(kept[f"local/norm.{role}"], norm[native], rtol=0, atol=2e-6)
