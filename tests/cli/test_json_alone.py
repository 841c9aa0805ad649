"""Whatever a user's code prints, and however, the stdout of ``--json`` is JSON alone."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from tests.command import xbfl
from tests.federation.deep import DATA

MODEL = """\
import atexit, ctypes, logging, os, sys

print("print at import")
os.write(1, b"bytes at import\\n")
logging.basicConfig(stream=sys.stdout)
logging.warning("log at import")
atexit.register(lambda: print("print at exit"))
import torch


class Net(torch.nn.Module):
    def __init__(self):
        super().__init__()
        self.dense = torch.nn.Linear(8, 3)

    def forward(self, x):
        print("print in forward")
        ctypes.CDLL(None).puts(b"puts in forward")
        return self.dense(x)


def build():
    os.system("echo echo from a shell")
    return Net()
"""

LOUD = DATA.replace("def load():\n", 'def load():\n    print("\\rloading 10%", end="")\n')

COURSE = """\
name: noisy
rounds: 1
models: {torch: "noisy.py:build"}
input: ["1,8"]
data: {source: "loud.py:load"}
participants: {torch: 2}
federate: {workers: 1}
training: {batch_size: 8, steps: 2}
"""


@pytest.fixture
def noisy(tmp_path: Path) -> Path:
    for name, text in (("noisy.py", MODEL), ("loud.py", LOUD), ("course.yaml", COURSE)):
        (tmp_path / name).write_text(text, encoding="utf-8")
    return tmp_path


@pytest.mark.parametrize(
    "command",
    [
        ["run", "course.yaml"],
        pytest.param(["run", "course.yaml", "--in-process"], marks=pytest.mark.slow),
        pytest.param(["check", "course.yaml"], marks=pytest.mark.slow),
        pytest.param(["inspect", "torch:noisy.py:build", "--input", "1,8"], marks=pytest.mark.slow),
        pytest.param(["map", *2 * ["torch:noisy.py:build"], "--input", "1,8"], marks=pytest.mark.slow),
        pytest.param(["up", "course.yaml", "--out", "run"], marks=pytest.mark.slow),
    ],
)
def test_what_users_code_prints_goes_to_stderr(command: list[str], noisy: Path) -> None:
    done = xbfl(*command, "--json", cwd=noisy)
    assert done.returncode == 0, done.stderr
    assert done.stdout
    assert all(isinstance(json.loads(line), dict) for line in done.stdout.splitlines())
    if command[0] == "up":
        # Its processes write into files of their own.
        return
    for said in (
        "print at import",
        "bytes at import",
        "print in forward",
        "puts in forward",
        "echo from a shell",
    ):
        assert said in done.stderr


def test_without_json_and_with_help_nothing_is_moved(noisy: Path) -> None:
    shown = xbfl("run", "--json", "--help", cwd=noisy)
    assert "Run a course" in shown.stdout


def test_a_file_that_cannot_be_written_is_one_line(noisy: Path) -> None:
    """It was a traceback of ours."""
    (noisy / "file").write_text("", encoding="utf-8")
    command = ["schema", "torch:noisy.py:build", "--input", "1,8", "-o", "file/schema.json", "--json"]
    done = xbfl(*command, cwd=noisy)
    assert done.returncode == 1
    error = json.loads(done.stdout)["error"]
    assert error["message"] == "file/schema.json: Not a directory"
    assert "another place" in error["hint"]
    assert "Traceback" not in done.stderr
