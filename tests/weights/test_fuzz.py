"""A short run of :mod:`tests.weights.fuzz` for every reader; the long one is a command."""

from __future__ import annotations

import re
import subprocess
import sys
from pathlib import Path

import pytest

pytest.importorskip("atheris", reason="there is no atheris for this system")

TARGETS = [
    "wire",
    *(
        pytest.param(target, marks=pytest.mark.slow)
        for target in ("hdf5", "pytorch", "pickle", "safetensors", "npz", "onnx", "checkpoint", "keras")
    ),
]


@pytest.mark.parametrize("target", TARGETS)
def test_nothing_but_refusals(target: str, root: Path, tmp_path: Path) -> None:
    runs = 200 if target in {"hdf5", "keras"} else 2000
    command = [
        sys.executable,
        "-m",
        "tests.weights.fuzz",
        target,
        f"-runs={runs}",
        "-seed=1",
        f"-artifact_prefix={tmp_path}/",
        # It counts the peak of the process that started it, and a test run has had larger ones.
        "-rss_limit_mb=0",
    ]
    result = subprocess.run(command, cwd=root, capture_output=True, text=True, check=False, timeout=120)
    assert result.returncode == 0, result.stderr[-2000:]
    done = re.search(r"Done (\d+) runs", result.stderr)
    assert done is not None
    assert int(done[1]) >= runs
    assert not list(tmp_path.iterdir())


def test_a_fault_is_found(root: Path, tmp_path: Path) -> None:
    """The fuzzer itself can fail: a reader with a bug is reported."""
    program = (
        "import sys\n"
        "from tests.weights import fuzz\n"
        "from xbackend_fl.formats.kinds import safetensors\n"
        "def broken(source, spans):\n    raise IndexError('planted')\n"
        "safetensors._check_spans = broken\n"
        f"sys.argv = ['fuzz', 'safetensors', '-runs=1000', '-artifact_prefix={tmp_path}/']\n"
        "fuzz.main()\n"
    )
    result = subprocess.run(
        [sys.executable, "-c", program], cwd=root, capture_output=True, text=True, check=False
    )
    assert result.returncode != 0
    assert "planted" in result.stderr + result.stdout
