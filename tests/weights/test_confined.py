"""The process that parses HDF5 really has lost what it should not have, and its end is a refusal."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import h5py
import numpy as np
import pytest

from xbackend_fl import weights
from xbackend_fl.errors import FormatRefused
from xbackend_fl.formats import confined, hdf5_child

pytestmark = pytest.mark.quick

ATTEMPTS = """
import json, os, socket, subprocess, sys, importlib.util
spec = importlib.util.spec_from_file_location("child", sys.argv[1])
child = importlib.util.module_from_spec(spec)
spec.loader.exec_module(child)
note = sys.argv[2]
def attempt(action):
    try:
        action()
    except MemoryError:
        return "no memory"
    except OSError as error:
        return error.errno
    return "done"
child._warm_up()
guards = child._confine(5.0)
answers = {
    "read": attempt(lambda: os.open("/etc/passwd", os.O_RDONLY)),
    "write": attempt(lambda: os.open(note, os.O_WRONLY | os.O_CREAT)),
    "remove": attempt(lambda: os.unlink(sys.argv[1])),
    "network": attempt(lambda: socket.create_connection(("127.0.0.1", 9))),
    "fork": attempt(os.fork),
    "exec": attempt(lambda: os.execv("/bin/true", ["true"])),
    "kill": attempt(lambda: os.kill(os.getppid(), 0)),
    "memory": attempt(lambda: bytearray(1 << 30)),
}
os.write(1, json.dumps([guards, answers]).encode())
os._exit(0)
"""


def test_nothing_but_computing_is_left(tmp_path: Path) -> None:
    note = tmp_path / "note"
    command = [sys.executable, "-c", ATTEMPTS, hdf5_child.__file__, str(note)]
    result = subprocess.run(command, capture_output=True, text=True, check=True)
    guards, answers = json.loads(result.stdout)
    if "system calls" not in guards or "files" not in guards:
        pytest.skip(f"this system guards with {guards} only; files say so in their notes")
    assert answers.pop("memory") == "no memory"
    assert answers == dict.fromkeys(answers, 1), "every attempt is EPERM"
    assert not note.exists()
    assert Path(hdf5_child.__file__).exists()


def test_a_parser_that_spins_is_ended(tmp_path: Path) -> None:
    program = (
        "import importlib.util, sys\n"
        "spec = importlib.util.spec_from_file_location('child', sys.argv[1])\n"
        "child = importlib.util.module_from_spec(spec)\n"
        "spec.loader.exec_module(child)\n"
        "child._warm_up()\n"
        "child._confine(0.5)\n"
        "while True: pass\n"
    )
    start = time.process_time() + sum(os.times()[2:4])
    result = subprocess.run([sys.executable, "-c", program, hdf5_child.__file__], check=False, timeout=60)
    assert result.returncode == -signal.SIGPROF
    assert time.process_time() + sum(os.times()[2:4]) - start < 5
    assert not list(tmp_path.iterdir())


def h5(path: Path, **datasets: np.ndarray) -> Path:
    with h5py.File(path, "w") as file:
        for name, array in datasets.items():
            file.create_dataset(name, data=array, chunks=array.shape, compression="gzip")
    return path


def test_a_parser_that_dies_is_a_refusal(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = h5(tmp_path / "x.h5", w=np.arange(100.0))
    fake = tmp_path / "dies.py"
    fake.write_text(
        Path(hdf5_child.__file__).read_text().replace("guards = _confine(", "os._exit(1); guards = _confine(")
    )
    monkeypatch.setattr(confined, "_PROGRAM", fake)
    monkeypatch.setattr(confined._Server, "control", None)
    with pytest.raises(FormatRefused, match="its parser ended") as caught:
        weights.open_weights(path)
    assert caught.value.code == "parser-stopped"
    monkeypatch.undo()
    confined._Server.control = None
    assert weights.open_weights(path)["w"].tolist() == list(range(100)), "the next file has a new parser"


@pytest.mark.parametrize(
    "answer",
    [
        "{}",
        '{"entries": 3, "about": {}, "guards": []}',
        '{"entries": [{}], "about": {}, "guards": []}',
        '{"entries": [{"name": "w", "shape": [9], "dtype": "<f8", "marked": "", "bytes": 72, "offset": 99999, "address": 1}], "about": {}, "guards": []}',
        '{"entries": [{"name": "w", "shape": [-9], "dtype": "<f8", "marked": "", "bytes": 72, "offset": 0, "address": 1}], "about": {}, "guards": []}',
        '{"entries": [{"name": "w", "shape": [9], "dtype": "|O", "marked": "", "bytes": 72, "offset": 0, "address": 1}], "about": {}, "guards": []}',
        "not JSON",
    ],
)
def test_a_parser_that_lies_is_not_believed(
    answer: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Whoever takes over the parser can only answer, and the answer is checked."""
    path = h5(tmp_path / "x.h5", w=np.arange(9.0))
    fake = tmp_path / "lies.py"
    source = Path(hdf5_child.__file__).read_text()
    fake.write_text(source.replace("text = json.dumps(answer).encode()", f"text = {answer.encode()!r}"))
    assert fake.read_text() != source
    monkeypatch.setattr(confined, "_PROGRAM", fake)
    monkeypatch.setattr(confined._Server, "control", None)
    with pytest.raises(FormatRefused):
        weights.open_weights(path)
    confined._Server.control = None


def test_files_are_read_after_a_fork(tmp_path: Path) -> None:
    path = h5(tmp_path / "x.h5", w=np.arange(9.0))
    program = (
        "import os, sys\n"
        "from xbackend_fl import weights\n"
        "weights.open_weights(sys.argv[1])\n"
        "child = os.fork()\n"
        "total = weights.open_weights(sys.argv[1])['w'].sum()\n"
        "if child == 0:\n    os._exit(int(total))\n"
        "assert os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) == total == 36\n"
    )
    subprocess.run([sys.executable, "-W", "ignore", "-c", program, str(path)], check=True, timeout=60)
