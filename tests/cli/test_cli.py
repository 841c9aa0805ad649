"""The command as users run it, most of it in this process."""

from __future__ import annotations

import json
import os
import pty
import resource
import signal
import subprocess
import sys
from pathlib import Path

import pytest

from tests.command import XBFL, xbfl, xbfl_here
from tests.conftest import Figure
from xbackend_fl import Schema, load_weights
from xbackend_fl.canonical import Binding

MODELS = ["torch:torch_model.py:build", "tensorflow:keras_model.py:build"]
QUICK = ["--set", "rounds=2", "--set", "training.steps=3"]


def _processor_seconds(command: list[str]) -> tuple[float, subprocess.CompletedProcess[str]]:
    before = resource.getrusage(resource.RUSAGE_CHILDREN)
    result = subprocess.run(command, check=True, capture_output=True, text=True)
    after = resource.getrusage(resource.RUSAGE_CHILDREN)
    return after.ru_utime + after.ru_stime - before.ru_utime - before.ru_stime, result


def test_help_is_quick_and_light(figure: Figure) -> None:
    code = (
        "import sys\n"
        "sys.argv = ['xbfl', '--help']\n"
        "from xbackend_fl.cli.main import main\n"
        "try:\n    main()\nexcept SystemExit as end:\n    assert not end.code\n"
        "heavy = {'numpy', 'torch', 'tensorflow', 'keras', 'onnx', 'pydantic'} & set(sys.modules)\n"
        "assert not heavy, heavy\n"
    )
    subprocess.run([sys.executable, "-c", code], check=True, capture_output=True)
    least = "import typer; app = typer.Typer(); app.command()(lambda: None); app(['--help'])"
    pairs = []
    for _ in range(5):
        bare, _ = _processor_seconds([sys.executable, "-c", least])
        seconds, result = _processor_seconds([XBFL, "--help"])
        pairs.append((seconds, seconds / bare))
    seconds, ratio = (sorted(values)[2] for values in zip(*pairs, strict=True))
    figure(
        "xbfl --help, processor seconds, and in parts of Typer's for no command",
        f"{seconds:.2f}, {ratio:.2f}",
    )
    # A slow machine is slow with Typer alone.
    assert seconds < 0.3 or ratio < 1.8
    for command in ("run", "check", "map", "inspect", "doctor", "adapters"):
        assert command in result.stdout


def test_map_proves_and_writes_the_binding(digits: Path, tmp_path: Path) -> None:
    output = tmp_path / "binding.json"
    result = xbfl("map", *MODELS, "--input", "1,1,8,8", "-o", output, "--json", cwd=digits)
    assert result.returncode == 0, result.stderr
    assert result.stderr == ""
    data = json.loads(result.stdout)["data"]
    assert data["proof"]["proven"]
    binding = Binding.from_json(output.read_bytes())
    assert binding.fingerprint == data["fingerprint"]
    assert binding.owners["dense/kernel"] == "hidden.weight"
    again = xbfl_here("map", *MODELS, "--input", "1,1,8,8", "-o", output, cwd=digits)
    assert again.returncode == 2
    assert "exists" in again.stderr
    shown = xbfl_here("inspect", output, cwd=digits)
    assert "flatten order" in shown.stdout


def test_a_silo_proves_its_model_without_seeing_the_coordinators(digits: Path, tmp_path: Path) -> None:
    """The coordinator publishes two files; the silo has nothing else."""
    files = ["-o", tmp_path / "schema.json", "--evidence", tmp_path / "evidence.safetensors"]
    published = xbfl_here("schema", MODELS[0], "--input", "1,1,8,8", *files, cwd=digits)
    assert published.returncode == 0, published.stderr
    assert "fingerprint" in published.stdout
    again = xbfl_here("schema", MODELS[0], "--input", "1,1,8,8", *files, cwd=digits)
    assert again.returncode == 2
    assert "exists" in again.stderr
    for evidence in ([], ["--evidence", tmp_path / "evidence.safetensors"]):
        silo = xbfl_here(
            "map", tmp_path / "schema.json", MODELS[1], "--input", "1,1,8,8", *evidence, cwd=digits
        )
        assert silo.returncode == 0, silo.stderr
        assert "proven" in silo.stdout
        assert ("no evidence from the reference" in silo.stdout) == (not evidence)
    size = (tmp_path / "evidence.safetensors").stat().st_size
    assert size < 1e6
    shown = xbfl_here("inspect", MODELS[0], "--input", "1,1,8,8", cwd=digits)
    assert "num_batches_tracked (reaches no output)" in shown.stdout


def test_evidence_of_another_schema_is_refused(digits: Path, tmp_path: Path) -> None:
    files = ["-o", tmp_path / "schema.json", "--evidence", tmp_path / "evidence.safetensors"]
    assert xbfl_here("schema", MODELS[0], "--input", "1,1,8,8", *files, cwd=digits).returncode == 0
    other = tmp_path / "other.py"
    other.write_text("from torch import nn\ndef build():\n    return nn.Linear(4, 2)\n")
    made = xbfl_here(
        "schema", f"torch:{other}:build", "--input", "1,4", "-o", tmp_path / "other.json", cwd=digits
    )
    assert made.returncode == 0, made.stderr
    command = ["map", tmp_path / "other.json", f"torch:{other}:build", "--input", "1,4"]
    refused = xbfl_here(*command, "--evidence", tmp_path / "evidence.safetensors", cwd=digits)
    assert refused.returncode == 2
    assert "is no evidence for the schema" in refused.stderr


def test_map_refuses_with_a_diagnosis(digits: Path, tmp_path: Path) -> None:
    other = tmp_path / "other.py"
    other.write_text((digits / "keras_model.py").read_text().replace("epsilon=1e-5, ", ""))
    result = xbfl_here(
        "map", MODELS[0], f"tensorflow:{other}:build", "--input", "1,1,8,8", "--json", cwd=digits
    )
    assert result.returncode == 2
    assert "epsilon" in result.stderr
    assert "keras: block1_norm, block2_norm: epsilon=1e-05" in result.stderr
    assert json.loads(result.stdout)["error"]["code"] == "mismatch"


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (["run"], "give either a COURSE"),
        (["run", "nowhere.yaml"], "no such course file"),
        (["run", "--resume", "nowhere"], "not a run folder"),
        (["run", "course.yaml", "--set", "rouns=3"], "did you mean `rounds`?"),
        (["map", *MODELS], "--input"),
        (["map", "torch:nowhere.py:build", MODELS[1], "--input", "1,1,8,8"], "no such file"),
        (["map", "torch:torch_model.py:biuld", MODELS[1], "--input", "1,1,8,8"], "did you mean 'build'?"),
        (["map", "mxnet:a.py:b", MODELS[1], "--input", "1,1,8,8"], "known backends: onnx, tensorflow, torch"),
        (["map", "torch", MODELS[1], "--input", "1,1,8,8"], "FILE_OR_MODULE"),
        (["map", "torch:net.pt", MODELS[1], "--input", "1,1,8,8"], "is no PyTorch model"),
        (["map", "onnx:nowhere.onnx", MODELS[1], "--input", "1,1,8,8"], "no such file"),
        (["map", "tensorflow:nowhere", MODELS[1], "--input", "1,1,8,8"], "not a SavedModel directory"),
        (["map", "nowhere.json", MODELS[1], "--input", "1,1,8,8"], "no such file"),
        (["schema", MODELS[0]], "--input"),
        (["schema", MODELS[0], "--input", "1,3,9,9"], "cannot be called with float32 [2, 3, 9, 9]"),
        (["inspect", "data.py"], "cannot tell the format"),
        (["inspect", "nowhere.safetensors"], "no such file"),
    ],
)
def test_bad_usage_is_exit_2(arguments: list[str], words: str, digits: Path) -> None:
    result = xbfl_here(*arguments, cwd=digits)
    assert result.returncode == 2, result.stdout
    assert words in " ".join(result.stderr.split())
    assert "Traceback" not in result.stderr


def test_what_a_users_file_raises_is_one_line_with_its_place(digits: Path, tmp_path: Path) -> None:
    bad = tmp_path / "bad.py"
    bad.write_text("def build():\n    return 1 / 0\n")
    result = xbfl_here("map", f"torch:{bad}:build", MODELS[1], "--input", "1,1,8,8", cwd=digits)
    assert result.returncode == 2
    assert f"raised ZeroDivisionError ({bad}:2): division by zero" in result.stderr
    assert "Traceback" not in result.stderr
    lost = tmp_path / "lost.py"
    lost.write_text("import nonsense_nobody_has\n")
    result = xbfl_here("map", f"torch:{lost}:build", MODELS[1], "--input", "1,1,8,8", cwd=digits)
    assert "No module named 'nonsense_nobody_has'" in result.stderr
    assert result.returncode == 2


def test_adapters_and_doctor(digits: Path) -> None:
    found = json.loads(xbfl_here("adapters", "--json", cwd=digits).stdout)["data"]
    assert found["torch"].startswith("torch 2.")
    assert found["tensorflow"].startswith("tensorflow 2.")
    assert "LSTM: weight" in xbfl_here("adapters", "--operators", cwd=digits).stdout
    report = json.loads(xbfl_here("doctor", "--json", cwd=digits).stdout)["data"]
    assert report["packages"]["numpy"]
    assert report["backends"] == found
    assert xbfl_here("doctor", cwd=digits).returncode == 0


def test_a_missing_framework_names_the_extra(digits: Path, tmp_path: Path) -> None:
    # Hides the installed distribution the way an environment without it would: no metadata is found.
    (tmp_path / "sitecustomize.py").write_text(
        "import importlib.metadata as m\n"
        "real = m.version\n"
        "def version(name):\n"
        "    if name == 'torch': raise m.PackageNotFoundError(name)\n"
        "    return real(name)\n"
        "m.version = version\n"
    )
    environment = os.environ | {"PYTHONPATH": str(tmp_path)}
    result = xbfl("inspect", MODELS[0], "--input", "1,1,8,8", cwd=digits, env=environment)
    assert result.returncode == 2
    assert "pip install 'xbackend-fl[torch]'" in result.stderr
    assert "torch: not installed" in xbfl("adapters", cwd=digits, env=environment).stdout


@pytest.mark.slow
def test_check_does_everything_but_train(digits: Path) -> None:
    result = xbfl("check", "course.yaml", cwd=digits)
    assert result.returncode == 0, result.stderr
    assert "proven equal" in result.stdout
    assert "amsterdam (torch): " in result.stdout
    assert result.stderr == ""


@pytest.mark.slow
def test_interrupt_then_resume_equals_a_whole_run(digits: Path, tmp_path: Path) -> None:
    settings = ["--set", "rounds=12", "--set", "training.steps=3"]
    whole = xbfl("run", "course.yaml", *settings, "--out", tmp_path / "whole", cwd=digits)
    assert whole.returncode == 0, whole.stderr
    assert "Traceback" not in whole.stderr
    last = whole.stdout.splitlines()[-1]
    assert last.startswith("done: test accuracy")
    assert "round 1 amsterdam (torch):" in whole.stdout

    command = [XBFL, "run", "course.yaml", *settings, "--out", tmp_path / "half", "--json"]
    with subprocess.Popen(
        command, cwd=digits, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True
    ) as process:
        assert process.stdout is not None
        events = []
        for line in process.stdout:
            events.append(json.loads(line))
            if events[-1]["event"] == "round_started" and events[-1]["round"] == 3:
                process.send_signal(signal.SIGINT)
        assert process.wait() == 130
    assert events[-1]["event"] == "course_finished"
    assert events[-1]["interrupted"]
    stopped = events[-1]["rounds"]
    assert 3 <= stopped < 12

    resumed = xbfl("run", "--resume", tmp_path / "half", cwd=tmp_path)
    assert resumed.returncode == 0, resumed.stderr
    assert f"continuing after round {stopped}" in resumed.stdout
    one, two = (load_weights(tmp_path / name / "last.safetensors") for name in ("whole", "half"))
    assert one.digest == two.digest

    shown = xbfl("inspect", tmp_path / "half", cwd=digits)
    assert "12 rounds" in shown.stdout
    described = xbfl("inspect", tmp_path / "half" / "schema.json", "--json", cwd=digits)
    assert json.loads(described.stdout)["data"]["fingerprint"] == one.fingerprint
    assert Schema.from_json((tmp_path / "half" / "schema.json").read_bytes()).fingerprint == one.fingerprint


@pytest.mark.slow
def test_a_terminal_gets_a_live_table(digits: Path, tmp_path: Path) -> None:
    parent, child = pty.openpty()
    command = [XBFL, "run", "course.yaml", *QUICK, "--out", tmp_path / "run"]
    environment = os.environ | {"COLUMNS": "120", "LINES": "60", "TERM": "xterm-256color"}
    process = subprocess.Popen(command, cwd=digits, stdout=child, stderr=child, env=environment)
    os.close(child)
    shown = bytearray()
    try:
        while data := os.read(parent, 65536):
            shown += data
    except OSError:
        pass  # Linux reports the closed terminal this way
    assert process.wait() == 0
    text = shown.decode(errors="replace")
    for word in ("participant", "backend", "examples", "accuracy", "fukuoka", "done: test accuracy"):
        assert word in text
