"""A new server optimizer is one file: nothing else names the ones that there are."""

from __future__ import annotations

from dataclasses import fields
from pathlib import Path

import numpy as np
import pytest

from tests.algorithms.smooth import course_of
from tests.beside import beside, naming
from tests.command import xbfl
from xbackend_fl.algorithms import SERVERS
from xbackend_fl.rounds.folder import RunFolder

PACKAGE = "xbackend_fl.algorithms.servers"
SIGNS = """
    from dataclasses import dataclass
    from typing import Any, Literal

    import numpy as np

    from xbackend_fl.algorithms.server_optimizer import ServerOptimizer
    from xbackend_fl.registry import Decay


    @dataclass(frozen=True)
    class Signs(ServerOptimizer):
        name: Literal["signs"] = "signs"
        kept: Decay = 0.5

        @property
        def slots(self) -> Any:
            return {"steps": 1.0}

        def step(self, delta: Any, slots: Any) -> Any:
            return slots["steps"] * np.sign(delta), {"steps": self.kept * slots["steps"]}


    SERVER = Signs
"""
SETTING = "federate.server={name: signs, lr: 0.125, kept: 0.25}"


@pytest.mark.quick
def test_a_server_optimizer_is_one_short_file(root: Path) -> None:
    folder = root / "xbackend_fl/algorithms/servers"
    files = {path.stem: path for path in folder.glob("*.py") if path.stem != "__init__"}
    assert files.keys() == SERVERS.keys()
    for name, path in files.items():
        assert len(path.read_text().splitlines()) <= 100
        assert next(f for f in fields(SERVERS[name]) if f.name == "name").default == name
    # FedAvg is the algorithm, too, and Nesterov a local optimizer.
    names = '"' + '"|"'.join(files.keys() - {"fedavg", "nesterov"}) + '"'
    assert naming(root, names, outside="algorithms/servers/") == []


@pytest.mark.slow
def test_a_file_that_is_there_leads_a_course(tmp_path: Path) -> None:
    """Every number moves by the rate in the first round and by a quarter of it in the second; the state is in the checkpoint."""
    course_of(tmp_path / "course", ["torch"], rounds=2)
    arguments = ["run", "course.yaml", "--in-process", "--out", tmp_path / "run", "--set", SETTING]
    alone = xbfl(*arguments, cwd=tmp_path / "course")
    assert alone.returncode == 2
    assert "`federate.server` is 'signs'; there are fedadagrad," in alone.stderr
    own = beside(tmp_path / "own", PACKAGE, "signs", SIGNS)
    done = xbfl(*arguments, cwd=tmp_path / "course", env=own)
    assert done.returncode == 0, done.stderr
    first, second = (RunFolder(tmp_path / "run").readable(number) for number in (1, 2))
    assert first is not None
    assert second is not None
    for key, value in second.weights.items():
        moved = np.abs(value.astype(np.float64) - first.weights[key])
        np.testing.assert_allclose(moved, 0.125 * 0.25, rtol=0, atol=1e-6)
        np.testing.assert_array_equal(second.server[f"steps/{key}"], np.full_like(value, 0.0625))
