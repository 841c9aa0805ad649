"""The arrows between rooms are enforced, and each rule was seen to fail on a planted violation."""

from __future__ import annotations

import ast
import functools
import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

pytestmark = pytest.mark.quick

PLANTED = [
    ("xbackend_fl/canonical/ops.py", "import xbackend_fl.rounds", "Rooms import only lower floors"),
    ("xbackend_fl/data/draws.py", "import xbackend_fl.aggregation", "Rooms import only lower floors"),
    ("xbackend_fl/data/draws.py", "import torch", "The core imports no framework and no adapter"),
    ("xbackend_fl/cli/check.py", "import flwr", "Flower is imported in its room alone"),
    ("xbackend_fl/federation/server/engine.py", "import flwr", "Flower is imported in its room alone"),
    ("xbackend_fl/data/draws.py", "import torchvision", "The core imports no framework and no adapter"),
    (
        "xbackend_fl/mapping/match/match.py",
        "import xbfl_torch",
        "The core imports no framework and no adapter",
    ),
    ("xbackend_fl/mapping/match/match.py", "import xbackend_fl.mapping.probe.draw", "Inside mapping"),
    ("xbackend_fl/mapping/proof/verify.py", "import xbackend_fl.mapping.align.forms", "Inside mapping"),
    (
        "xbackend_fl/canonical/passes/sums.py",
        "import xbackend_fl.canonical.graph.builder",
        "Inside canonical",
    ),
    ("xbackend_fl/canonical/ops.py", "import xbackend_fl.canonical.passes", "Inside canonical"),
    (
        "xbackend_fl/federation/silo/outbox.py",
        "import xbackend_fl.federation.server.engine",
        "Inside federation",
    ),
    *(
        ("adapters/xbfl_torch/graph.py", f"import {room}", "Adapters know the contract")
        for room in (
            "xbackend_fl",
            "xbackend_fl.simulation",
            "xbackend_fl.federation.silo.silo",
            "xbackend_fl.participant.worker",
            "xbackend_fl.convert",
            "xbackend_fl.testing.conformance",
            "xbackend_fl.weights",
        )
    ),
    ("adapters/xbfl_torch/graph.py", "import xbfl_tensorflow", "Adapters do not know each other"),
]


def lint(folder: Path) -> subprocess.CompletedProcess[str]:
    tool = Path(sys.executable).with_name("lint-imports")
    # Rows are not to be broken.
    environment = os.environ | {"PYTHONPATH": f"{folder}{os.pathsep}{folder / 'adapters'}", "COLUMNS": "240"}
    return subprocess.run(
        [tool, "--no-cache"], cwd=folder, env=environment, capture_output=True, text=True, check=False
    )


@pytest.fixture(scope="module")
def copy(root: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("copy")
    for name in ("xbackend_fl", "adapters"):
        shutil.copytree(root / name, folder / name)
    shutil.copy(root / "pyproject.toml", folder)
    return folder


@pytest.fixture(scope="module")
def broken(copy: Path) -> str:
    """What the linter says of a copy in which every violation is planted."""
    for file, line, _ in PLANTED:
        path = copy / file
        text = path.read_text()
        path.write_text(
            text.replace(
                "from __future__ import annotations\n", f"from __future__ import annotations\n{line}\n", 1
            )
        )
        assert path.read_text() != text
    result = lint(copy)
    assert result.returncode != 0
    return result.stdout


def test_a_room_without_a_floor_is_found(root: Path, tmp_path: Path) -> None:
    shutil.copytree(root / "xbackend_fl", tmp_path / "xbackend_fl")
    shutil.copytree(root / "adapters", tmp_path / "adapters")
    shutil.copy(root / "pyproject.toml", tmp_path)
    for place in ("annex", "canonical/annex", "mapping/annex", "federation/annex"):
        (tmp_path / "xbackend_fl" / place).mkdir()
        (tmp_path / "xbackend_fl" / place / "__init__.py").touch()
    said = lint(tmp_path).stdout
    for package in ("xbackend_fl", "xbackend_fl.canonical", "xbackend_fl.mapping", "xbackend_fl.federation"):
        assert f"{package}.annex" in said


def test_the_rules_hold(root: Path) -> None:
    result = lint(root)
    assert result.returncode == 0, result.stdout


@pytest.mark.parametrize(
    ("file", "line", "contract"), PLANTED, ids=[f"{row[0]}: {row[1]}" for row in PLANTED]
)
def test_a_planted_violation_is_found(broken: str, file: str, line: str, contract: str) -> None:
    _, _, section = broken.partition(f"\n{contract}")[2].partition(f"\n{contract}")
    section = section.split("\n----", 2)[1]
    module = file.removeprefix("adapters/").removesuffix(".py").replace("/", ".")
    rows = [" ".join(row.strip("- ").split()) for row in section.splitlines()]
    wanted = f"{module} -> {line.removeprefix('import ')} (l."
    assert any(row.startswith(wanted) for row in rows), section


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
    "rounds",
    "simulation",
    "testing",
    "weights",
]


# Who imports a package: rooms and files of the core. What is not here, the core does not import.
EVERYBODY = {"numpy", "pydantic", "pydantic_core", "annotated_types"}
PACKAGES = {
    "PIL": ["data"],
    "blake3": ["data", "federation", "formats", "rounds"],
    "cloudpickle": ["objects.py"],
    "cryptography": ["certificate", "federation", "signing.py"],
    "cupy": ["aggregation"],
    "filelock": ["aggregation/compiled.py", "data", "rounds"],
    "flwr": ["federation/flower"],
    "google_crc32c": ["formats"],
    "h5py": ["formats"],
    "httpx": ["federation/flower"],
    "ijson": ["data"],
    "ml_dtypes": ["canonical", "federation/protocol", "formats"],
    "msgpack": ["formats"],
    "numba": ["aggregation/compiled.py"],
    "onnx": ["canonical", "certificate", "mapping", "tensorrt", "weights"],
    "onnxruntime": ["canonical/onnx_session.py"],
    "psutil": ["mapping", "participant"],
    "pyarrow": ["data"],
    "pyseccomp": ["formats"],
    "rich": ["cli", "report"],
    "scipy": ["aggregation/kernels.py"],
    "typer": ["cli"],
    "yaml": ["course"],
}


@functools.cache
def imported(text: str) -> frozenset[str]:
    """Packages that a file imports, wherever it does."""
    found: set[str] = set()
    for node in ast.walk(ast.parse(text)):
        if isinstance(node, ast.Import):
            found.update(alias.name.partition(".")[0] for alias in node.names)
        elif isinstance(node, ast.ImportFrom) and node.module is not None and not node.level:
            found.add(node.module.partition(".")[0])
    return frozenset(found)


def strangers(text: str, file: str) -> set[str]:
    """What a file of the core imports and is not listed for it."""
    rooms = {package for package, places in PACKAGES.items() if any(is_in(file, place) for place in places)}
    return set(imported(text) - sys.stdlib_module_names - EVERYBODY - rooms - {"xbackend_fl"})


def is_in(file: str, place: str) -> bool:
    return file == place or file.startswith(f"{place}/")


def test_the_core_imports_only_packages_that_are_listed(root: Path) -> None:
    core = root / "xbackend_fl"
    files = {str(file.relative_to(core)): file.read_text(encoding="utf-8") for file in core.rglob("*.py")}
    found = {name: strangers(text, name) for name, text in files.items()}
    assert {name: packages for name, packages in found.items() if packages} == {}
    used = {package for text in files.values() for package in imported(text)}
    assert PACKAGES.keys() - used == set()


@pytest.mark.parametrize(
    ("file", "line"),
    [
        ("metrics/pairs.py", "import torchvision, transformers"),
        ("metrics/pairs.py", "def f():\n    from flwr.common import Context"),
        ("federation/server/engine.py", "import flwr"),
        ("canonical/graph/builder.py", "import onnxruntime"),
    ],
)
def test_another_package_is_found(file: str, line: str) -> None:
    assert strangers(line, file) == imported(line)


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
