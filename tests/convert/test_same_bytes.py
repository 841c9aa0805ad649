"""Equal weights are equal files, whoever writes them and when."""

from __future__ import annotations

import os
import subprocess
import sys
from hashlib import sha256
from pathlib import Path

import pytest

from tests.convert import every_format

ROOT = Path(__file__).resolve().parents[2]


def _digests(folder: Path) -> dict[str, str]:
    return {path.name: sha256(path.read_bytes()).hexdigest() for path in sorted(folder.iterdir())}


@pytest.mark.slow
def test_files_do_not_depend_on_the_process_or_the_day(tmp_path: Path) -> None:
    every_format.write(tmp_path / "here")
    command = [
        sys.executable,
        "-W",
        "ignore",
        "-m",
        "tests.convert.every_format",
        str(tmp_path / "there"),
        "90000",
    ]
    subprocess.run(command, cwd=ROOT, env={**os.environ, "PYTHONHASHSEED": "1"}, check=True, timeout=300)
    here, there = _digests(tmp_path / "here"), _digests(tmp_path / "there")
    assert len(here) == 1 + len(every_format.CANONICAL) + 2 + len(every_format.NATIVE) + 1
    assert {name for name in here if here[name] != there.get(name)} == set()
