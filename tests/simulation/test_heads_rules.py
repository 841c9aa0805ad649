"""Several outputs under the rules of FedProx and SCAFFOLD, in built-in loops and in loops of the user's own, against a plain loop in float64."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch
from torch.nn import functional as F

from tests.simulation import two_heads
from tests.simulation.test_heads import ROOM, Array, apart, initial, own_data, run, weights
from xbackend_fl.data import batches

__all__ = ["initial"]
LR, ROUNDS = 0.05, 3
Values = dict[str, torch.Tensor]


def slope(model: torch.nn.Module, inputs: Array, organ: Array, age: Array) -> Values:
    """The gradient of the sum of both losses."""
    model.zero_grad()
    scores, years = model(torch.from_numpy(inputs).double())
    loss = F.cross_entropy(scores, torch.from_numpy(organ)) + 0.1 * F.huber_loss(
        years, torch.from_numpy(age).double()
    )
    loss.backward()
    return {name: value.grad.clone() for name, value in model.named_parameters() if value.grad is not None}


def plain(initial: Path, rule: str) -> dict[str, Array]:
    """Three rounds of two participants in float64; the sums are those of the papers."""
    model = two_heads.torch_tuple().double()
    whole = {name: value.double() for name, value in torch.load(initial).items()}
    common = {name: torch.zeros_like(value) for name, value in whole.items()}
    held = {"osaka": two_heads.of_osaka(), "lyon": two_heads.of_lyon()}
    own = {name: dict(common) for name in held}
    for number in range(1, ROUNDS + 1):
        ends: dict[str, Values] = {}
        moves: list[Values] = []
        for name, (x, y) in held.items():
            local, steps = dict(whole), 0
            for rows in batches(len(x), 8, 2, None, 0, "batches", number, name):
                model.load_state_dict(local)
                found = slope(model, x[rows], y["organ"][rows], y["age"][rows])
                for key, value in local.items():
                    more = 0.5 * (value - whole[key]) if rule == "fedprox" else common[key] - own[name][key]
                    local[key] = value - LR * (found[key] + more)
                steps += 1
            new = {k: own[name][k] - common[k] + (whole[k] - local[k]) / (steps * LR) for k in local}
            moves.append({k: new[k] - own[name][k] for k in new})
            ends[name], own[name] = local, new
        share = {n: len(held[n][0]) / 96 if rule == "fedprox" else 0.5 for n in held}
        whole = {k: sum((share[n] * ends[n][k] for n in held), torch.zeros(())) for k in whole}
        common = {k: common[k] + sum((move[k] for move in moves), torch.zeros(())) / 2 for k in common}
    return {name: value.numpy() for name, value in whole.items()}


LOOPS = {
    "built in": ("torch", "tensorflow"),
    "torch": ("torch", "torch"),
    "keras": ("tensorflow", "tensorflow"),
}


@pytest.mark.one_in(2)
@pytest.mark.parametrize("rule", ["fedprox", "scaffold"])
@pytest.mark.parametrize("loop", LOOPS)
def test_a_rule_over_several_outputs(rule: str, loop: str, initial: Path, tmp_path: Path) -> None:
    own = {
        "torch": f"models.torch={{build: '{ROOM}:torch_tuple', train: '{ROOM}:{'train' if rule == 'fedprox' else 'corrected_train'}'}}",
        "keras": f"models.tensorflow={{build: '{ROOM}:keras_dict', train: '{ROOM}:keras_train'}}",
    }
    settings = [f"rounds={ROUNDS}", f"initial={initial}", own_data(*LOOPS[loop])]
    settings += [f"federate.algorithm={{name: {rule}{', mu: 0.5' if rule == 'fedprox' else ''}}}"]
    found = run(tmp_path, *settings, *([own[loop]] if loop in own else []))
    begun = {name: value.numpy() for name, value in torch.load(initial).items()}
    expected = plain(initial, rule)
    assert apart(weights(found), expected) < 2e-6
    assert apart(begun, expected) > 0.01
    if rule == "scaffold":
        # The rule matters here.
        assert apart(plain(initial, "fedprox"), expected) > 1e-3
    assert np.isfinite(found.history[-1].metrics["organ/accuracy"])
