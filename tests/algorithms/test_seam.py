"""A new algorithm is one file: nothing else names the ones that there are."""

from __future__ import annotations

from dataclasses import fields
from pathlib import Path

import numpy as np
import pytest

from tests.beside import naming
from xbackend_fl import Weights
from xbackend_fl.aggregation import MODEL
from xbackend_fl.algorithms import ALGORITHMS, ClientState, Trained
from xbackend_fl.canonical import Kind

pytestmark = pytest.mark.quick


def test_an_algorithm_is_one_short_file(root: Path) -> None:
    folder = root / "xbackend_fl/algorithms/kinds"
    files = {path.stem: path for path in folder.glob("*.py") if path.stem != "__init__"}
    assert files.keys() == ALGORITHMS.keys()
    for name, path in files.items():
        assert len(path.read_text().splitlines()) <= 150
        assert next(f for f in fields(ALGORITHMS[name]) if f.name == "name").default == name
    names = "|".join(name for name in files if name != "fedavg")
    assert not naming(root, names, outside="algorithms/", ignore_case=True)


def test_a_control_is_the_gradient_after_one_full_step() -> None:
    """Neither the sum of all controls nor a step from zero would show a wrong sign."""
    kinds = {"w": Kind.TRAINABLE, "v": Kind.STATISTIC}
    draw = np.random.default_rng(1).standard_normal
    start, gradient, own, common = (draw(5).astype(np.float32) for _ in range(4))
    client = ALGORITHMS["scaffold"](name="scaffold").client()
    weights = Weights({"w": start, "v": start}, "s", kinds)
    state = ClientState({"control": Weights({"w": own}, "s")})
    sent = {"control": Weights({"w": common}, "s")}
    plan = client.begin(weights, sent, state)
    assert plan.rule is not None
    slots = [plan.slots[slot]["w"] for slot in plan.rule.slots]
    after = start - np.float32(0.25) * plan.rule.gradient(gradient, start, slots)
    update, new = client.finish(
        Trained(weights, weights.like({"w": after, "v": start}), 0.25, 8, sent, state)
    )
    np.testing.assert_allclose(new.vectors["control"]["w"], gradient, rtol=0, atol=1e-6)
    np.testing.assert_allclose(update.vectors["control"]["w"], gradient - own, rtol=0, atol=1e-6)
    assert update.vectors.keys() == {MODEL, "control"}
    assert "v" not in update.vectors["control"]
