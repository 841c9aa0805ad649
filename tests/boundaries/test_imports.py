"""The arrows between rooms are enforced, and each rule was seen to fail on a planted violation."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

pytestmark = pytest.mark.quick

PLANTED = [
    ("xbackend_fl/canonical/ops.py", "import xbackend_fl.server", "Rooms import only lower floors"),
    ("xbackend_fl/data/draws.py", "import xbackend_fl.aggregation", "Rooms import only lower floors"),
    ("xbackend_fl/data/draws.py", "import torch", "The core imports no framework and no adapter"),
    ("xbackend_fl/mapping/match.py", "import xbfl_torch", "The core imports no framework and no adapter"),
    *(
        ("adapters/xbfl_torch/graph.py", f"import {room}", "Adapters know the contract")
        for room in (
            "xbackend_fl",
            "xbackend_fl.simulation",
            "xbackend_fl.deployment.silo",
            "xbackend_fl.training.worker",
            "xbackend_fl.convert",
            "xbackend_fl.testing.conformance",
            "xbackend_fl.weights",
        )
    ),
    ("adapters/xbfl_torch/graph.py", "import xbfl_tensorflow", "Adapters do not know each other"),
]


def lint(folder: Path) -> subprocess.CompletedProcess[str]:
    tool = Path(sys.executable).with_name("lint-imports")
    environment = os.environ | {"PYTHONPATH": f"{folder}{os.pathsep}{folder / 'adapters'}"}
    return subprocess.run(
        [tool, "--no-cache"], cwd=folder, env=environment, capture_output=True, text=True, check=False
    )


@pytest.fixture
def copy(root: Path, tmp_path: Path) -> Path:
    for name in ("xbackend_fl", "adapters"):
        shutil.copytree(root / name, tmp_path / name)
    shutil.copy(root / "pyproject.toml", tmp_path)
    return tmp_path


def test_the_rules_hold(root: Path) -> None:
    result = lint(root)
    assert result.returncode == 0, result.stdout


@pytest.mark.parametrize(
    ("file", "line", "contract"), PLANTED, ids=[f"{row[0]}: {row[1]}" for row in PLANTED]
)
def test_a_planted_violation_is_found(copy: Path, file: str, line: str, contract: str) -> None:
    path = copy / file
    text = path.read_text().replace(
        "from __future__ import annotations\n", f"from __future__ import annotations\n{line}\n"
    )
    path.write_text(text)
    result = lint(copy)
    assert result.returncode == 1
    broken = [row for row in result.stdout.splitlines() if "BROKEN" in row]
    assert any(contract in row for row in broken), result.stdout


def test_the_linter_bans_frameworks_in_the_core(copy: Path) -> None:
    path = copy / "xbackend_fl" / "weights" / "container.py"
    path.write_text(path.read_text().replace("import hashlib\n", "import hashlib\n\nimport tensorflow\n"))
    tool = Path(sys.executable).with_name("ruff")
    result = subprocess.run(
        [tool, "check", "--select", "TID251", path], cwd=copy, capture_output=True, text=True, check=False
    )
    assert "Frameworks live in adapters/" in result.stdout


ROOMS = [
    "adapter",
    "aggregation",
    "canonical",
    "course",
    "data",
    "errors",
    "events",
    "mapping",
    "server",
    "simulation",
    "testing",
    "weights",
]


def test_the_core_loads_no_framework() -> None:
    code = (
        "import importlib, sys\n"
        f"for room in {ROOMS!r}: importlib.import_module('xbackend_fl.' + room)\n"
        "import xbfl_onnx, xbfl_torch, xbfl_tensorflow\n"
        "from xbackend_fl.adapter import load, names\n"
        "assert names() == ['onnx', 'tensorflow', 'torch']\n"
        "[load(name).version for name in names()]\n"
        "found = {'torch', 'tensorflow', 'keras', 'jax'} & set(sys.modules)\n"
        "assert not found, found\n"
    )
    subprocess.run([sys.executable, "-c", code], check=True)
