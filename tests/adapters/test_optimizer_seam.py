"""A new local optimizer is one file: nothing else names the ones that there are."""

from __future__ import annotations

from dataclasses import fields
from pathlib import Path

import numpy as np
import pytest

from tests.algorithms.smooth import Model, course_of, steps_of
from tests.beside import beside, naming
from tests.command import xbfl
from xbackend_fl.adapter import OPTIMIZERS
from xbackend_fl.participant import CourseData
from xbackend_fl.participant.worker import Worker
from xbackend_fl.rounds.folder import RunFolder

PACKAGE = "xbackend_fl.adapter.optimizers.kinds"
SOFT_SIGN = """
    from dataclasses import dataclass
    from typing import Any, Literal

    from xbackend_fl.adapter.optimizers.optimizer import Optimizer
    from xbackend_fl.registry import Positive


    @dataclass(frozen=True)
    class SoftSign(Optimizer):
        name: Literal["soft_sign"] = "soft_sign"
        width: Positive = 1.0

        def step(self, value: Any, gradient: Any, slots: Any, numbers: Any, sqrt: Any) -> Any:
            return value - numbers.lr * gradient / sqrt(gradient * gradient + self.width), ()


    OPTIMIZER = SoftSign
"""
SETTING = "training.optimizer={name: soft_sign, lr: 0.05, width: 0.01, weight_decay: 0.1}"


@pytest.mark.quick
def test_an_optimizer_is_one_short_file(root: Path) -> None:
    folder = root / "xbackend_fl/adapter/optimizers/kinds"
    files = {path.stem: path for path in folder.glob("*.py") if path.stem != "__init__"}
    assert files.keys() == OPTIMIZERS.keys()
    for name, path in files.items():
        assert len(path.read_text().splitlines()) <= 100
        assert next(f for f in fields(OPTIMIZERS[name]) if f.name == "name").default == name
        assert hash(OPTIMIZERS[name](name)) == hash(OPTIMIZERS[name](name))
    # Momentum is a key of BatchNormalization, too, and Nesterov's a server optimizer.
    names = '"' + '"|"'.join(files.keys() - {"momentum", "nesterov"}) + '"'
    assert naming(root, names, outside="optimizers/kinds/") == []


@pytest.mark.slow
def test_a_file_that_is_there_trains_a_course(tmp_path: Path) -> None:
    """Both backends take the steps that the file says, of which float64 NumPy has the same."""
    course = course_of(tmp_path / "course", ["torch", "tensorflow"], rounds=1)
    start = {k: v.astype(np.float64) for k, v in Worker(course, course.reference, 1).initial().items()}
    arguments = [
        "run",
        "course.yaml",
        "--in-process",
        "--out",
        tmp_path / "run",
        "--set",
        SETTING,
        "--set",
        "federate.cohort=5",
    ]
    alone = xbfl(*arguments, cwd=tmp_path / "course")
    assert alone.returncode == 2
    assert "`training.optimizer` is 'soft_sign'; there are adadelta, adagrad," in alone.stderr
    done = xbfl(
        *arguments, cwd=tmp_path / "course", env=beside(tmp_path / "own", PACKAGE, "soft_sign", SOFT_SIGN)
    )
    assert done.returncode == 0, done.stderr
    state = RunFolder(tmp_path / "run").readable(1)
    assert state is not None
    splits = CourseData(course, "torch").splits()
    parts = {n: d for b in ("torch", "tensorflow") for n, d in CourseData(course, b).parts(splits).items()}
    ends = {}
    for name, part in parts.items():
        own = part.gather(np.arange(len(part)))
        x, y = own.inputs[0].astype(np.float64), own.targets.astype(np.float64)
        local = start
        for rows in steps_of(course, 1, name, len(x)):
            slope = Model.gradient(local, x[rows], y[rows])
            decayed = {k: slope[k] + 0.1 * local[k] for k in local}
            local = {k: local[k] - 0.05 * g / np.sqrt(g * g + 0.01) for k, g in decayed.items()}
        ends[name] = local
    assert len(ends) == 5
    sizes = {name: len(part) for name, part in parts.items()}
    for key, value in state.weights.items():
        expected = sum(sizes[n] * ends[n][key] for n in ends) / sum(sizes.values())
        np.testing.assert_allclose(value, expected, rtol=0, atol=1e-6)
        assert np.abs(value - start[key]).max() > 0.01
