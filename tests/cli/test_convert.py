"""``xbfl convert``, ``inspect``, ``diff`` and ``explain`` as users run them."""

from __future__ import annotations

import functools
import json
import os
import resource
import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from tests.cli.test_cli import MODELS
from tests.command import XBFL, xbfl_here
from tests.conftest import Figure
from tests.machine import within
from tests.weights.corpus.case import Case
from tests.weights.corpus.hostile import hostile
from xbackend_fl import load_weights, weights
from xbackend_fl.weights.refusals import CODES, REFUSALS
from xbackend_fl.weights.store import same_bits

PAIR = ["--source-model", MODELS[0], "--dest-model", MODELS[1], "--input", "1,1,8,8"]
BACK = ["--source-model", MODELS[1], "--dest-model", MODELS[0], "--input", "1,1,8,8"]


@pytest.fixture(scope="module")
def net(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The digits model of PyTorch, with weights of its own."""
    path = tmp_path_factory.mktemp("net") / "net.pt"
    code = (
        "import sys, torch, torch_model\n"
        "torch.manual_seed(3)\n"
        "net = torch_model.build()\n"
        "[torch.nn.init.uniform_(p, 0.1, 0.9) for p in net.parameters()]\n"
        "torch.save({'state_dict': net.state_dict(), 'epoch': 7}, sys.argv[1])\n"
    )
    digits = Path(__file__).resolve().parents[2] / "examples/digits"
    subprocess.run([sys.executable, "-c", code, str(path)], check=True, cwd=digits)
    return path


def ok(*arguments: Any, cwd: Path) -> str:
    result = xbfl_here(*arguments, cwd=cwd)
    assert result.returncode == 0, result.stderr
    assert result.stderr == ""
    return result.stdout


def test_from_one_framework_to_the_other_and_back(net: Path, digits: Path, tmp_path: Path) -> None:
    keras = tmp_path / "net.weights.h5"
    said = ok("convert", net, keras, *PAIR, cwd=digits)
    assert "both models are one function" in said
    assert "largest difference" in said
    assert "every canonical bit" in said
    report = json.loads(ok("convert", keras, tmp_path / "back.pt", *BACK, "--json", cwd=digits))["data"]
    assert report["outputs"][0]["relative"] < 1e-4
    first, again = weights.open_weights(net), weights.open_weights(tmp_path / "back.pt")
    compared = [name for name in again if not name.endswith("num_batches_tracked")]
    assert len(compared) == 14
    assert all(same_bits(again[name], first[f"state_dict.{name}"]) for name in compared)
    assert not [item for item in tmp_path.iterdir() if "partial" in item.name or "xbfl-" in item.name]


def test_canonical_files_and_bindings(net: Path, digits: Path, tmp_path: Path) -> None:
    source = ["--source-model", MODELS[0], "--input", "1,1,8,8"]
    ok("convert", net, tmp_path / "canonical.safetensors", *source, cwd=digits)
    canonical = load_weights(tmp_path / "canonical.safetensors")
    ok("map", *MODELS, "--input", "1,1,8,8", "-o", tmp_path / "binding.json", cwd=digits)
    binding = ["--binding", tmp_path / "binding.json"]
    ok("convert", tmp_path / "canonical.safetensors", tmp_path / "keras.npz", *binding, cwd=digits)
    ok("convert", tmp_path / "keras.npz", tmp_path / "again.xbf", *binding, cwd=digits)
    again = weights.open_weights(tmp_path / "again.xbf")
    assert again.metadata["fingerprint"] == canonical.fingerprint
    assert all(same_bits(again[name], array) for name, array in canonical.items())
    said = ok(
        "diff",
        tmp_path / "canonical.safetensors",
        tmp_path / "keras.npz",
        "--right-binding",
        binding[1],
        cwd=digits,
    )
    assert "14 of 14 tensors are identical" in said


def test_containers_without_models(net: Path, tmp_path: Path) -> None:
    ok("convert", net, tmp_path / "all.safetensors", cwd=tmp_path)
    assert weights.open_weights(tmp_path / "all.safetensors").keys() == weights.open_weights(net).keys()
    chosen = ["--only", "state_dict.hidden.*", "--rename", "state_dict.=", "--dtype", "bfloat16"]
    ok("convert", net, tmp_path / "part.safetensors", *chosen, cwd=tmp_path)
    part = weights.open_weights(tmp_path / "part.safetensors")
    assert {name: str(entry.dtype) for name, entry in part.entries.items()} == {
        "hidden.weight": "bfloat16",
        "hidden.bias": "bfloat16",
    }
    for suffix in ("npz", "pt", "h5", "xbf"):
        ok("convert", net, tmp_path / f"x.{suffix}", cwd=tmp_path)
        assert "16 of 16 tensors are identical" in ok("diff", net, tmp_path / f"x.{suffix}", cwd=tmp_path)


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (["net.pt", "there.npz"], "exists"),
        (["absent.pt", "x.npz"], "no such file"),
        (["net.pt", "x.unknown"], "cannot tell the format"),
        (["net.pt", "x.npz", "--from", "nonsense"], "there is no format"),
        (["net.pt", "x.keras"], "--dest-model"),
        (["net.pt", "x.weights.h5"], "--dest-model"),
        (["net.pt", "x.onnx"], "--dest-model"),
        (["net.pt", "x.npz", "--only", "nothing*"], "matches no tensor"),
        (["net.pt", "x.npz", "--rename", "a"], "OLD=NEW"),
        (["net.pt", "x.npz", "--rename", "a=b"], "matches no tensor"),
        (["net.pt", "x.npz", "--rename", "w=v"], "taken"),
        (["net.pt", "x.npz", "--dtype", "int8"], "no floating-point dtype"),
        (["net.pt", "x.npz", "--dtype", "bfloat16"], "npz cannot hold"),
        (["net.pt", "x.npz", "--dtype", "float16"], "up to 1e+06"),
        (["net.pt", "x.npz", "--binding", "absent.json"], "no such file"),
        (["net.pt", "x.npz", "--binding", "net.pt"], "not a binding"),
        (["net.pt", "missing/x.npz"], "cannot write"),
        (["net.npz", "x.pt"], "not a ZIP archive"),
    ],
)
def test_bad_input(arguments: list[str], words: str, tmp_path: Path) -> None:
    torch.save({"w": torch.tensor([1.0, 1e6]), "v": torch.zeros(2)}, tmp_path / "net.pt")
    (tmp_path / "there.npz").write_bytes(b"mine")
    (tmp_path / "net.npz").write_bytes(b"x")
    before = {item.name: item.read_bytes() for item in tmp_path.iterdir()}
    result = xbfl_here("convert", *arguments, cwd=tmp_path)
    assert result.returncode == 2, result.stderr
    assert words in result.stderr
    assert "Traceback" not in result.stderr
    assert {item.name: item.read_bytes() for item in tmp_path.iterdir()} == before


def test_the_wrong_model_is_refused_before_anything_is_written(
    net: Path, digits: Path, tmp_path: Path
) -> None:
    weights.save(tmp_path / "short.npz", dict(list(weights.open_weights(net).items())[2:]))
    source = ["--source-model", MODELS[0], "--input", "1,1,8,8"]
    result = xbfl_here("convert", tmp_path / "short.npz", tmp_path / "x.npz", *source, cwd=digits)
    assert result.returncode == 2
    assert "it has no 'features.0.weight'" in result.stderr
    assert [item.name for item in tmp_path.iterdir()] == ["short.npz"]


def test_inspect_shows_what_a_file_holds(net: Path, tmp_path: Path) -> None:
    said = ok("inspect", net, cwd=tmp_path)
    assert "state_dict.hidden.weight" in said
    assert "1 values that are no tensors were left out" in said
    data = json.loads(ok("inspect", net, "--json", "--only", "*.hidden.*", cwd=tmp_path))["data"]
    assert [row["shape"] for row in data["tensors"]] == [[128, 256], [128]]
    assert 0.1 <= data["tensors"][0]["mean"] <= 0.9
    weights.save(tmp_path / "odd.safetensors", {"[red]nan[/red]": np.array([np.nan, 1.0])}, {"who": "lyon"})
    said = ok("inspect", tmp_path / "odd.safetensors", cwd=tmp_path)
    assert "[red]nan[/red]" in said
    assert "who: lyon" in said
    json.loads(ok("inspect", tmp_path / "odd.safetensors", "--json", cwd=tmp_path))


def test_diff_refuses_a_pattern_that_compares_nothing(tmp_path: Path) -> None:
    weights.save(tmp_path / "one.npz", {"w": np.ones(3)})
    weights.save(tmp_path / "two.npz", {"w": np.zeros(3)})
    result = xbfl_here("diff", "one.npz", "two.npz", "--only", "v*", cwd=tmp_path)
    assert result.returncode == 2
    assert "--only 'v*' matches no tensor" in result.stderr
    data = json.loads(xbfl_here("diff", "one.npz", "two.npz", "--json", cwd=tmp_path).stdout)["data"]
    assert data["tensors"][0]["relative"] is None, "of nothing, any difference is infinitely large"


def test_diff_tells_what_differs(tmp_path: Path) -> None:
    one = {
        "same": np.ones(3),
        "value": np.array([1.0, 2.0]),
        "shape": np.zeros(2),
        "left": np.zeros(1),
        "nan": np.array([np.nan]),
    }
    two = {
        "same": np.ones(3),
        "value": np.array([1.0, 2.5]),
        "shape": np.zeros(3),
        "right": np.zeros(1),
        "nan": np.array([np.nan]),
    }
    weights.save(tmp_path / "one.npz", one)
    weights.save(tmp_path / "two.xbf", two)
    result = xbfl_here("diff", "one.npz", "two.xbf", "--json", cwd=tmp_path)
    assert result.returncode == 1
    found = {item["name"]: item for item in json.loads(result.stdout)["data"]["tensors"]}
    assert found["same"]["identical"]
    assert found["nan"]["identical"]
    assert found["value"]["max_abs"] == 0.5
    assert found["value"]["relative"] == 0.2
    assert found["shape"]["max_abs"] is None
    assert found["left"]["right"] == "" == found["right"]["left"]
    result = xbfl_here("diff", "one.npz", "two.xbf", cwd=tmp_path)
    assert "2 of 6 tensors are identical" in result.stdout
    assert "missing" in result.stdout


def test_every_code_is_explained(tmp_path: Path) -> None:
    said = ok("explain", cwd=tmp_path)
    assert all(code in said for code in CODES)
    assert "Loading it the usual way would run it" in ok("explain", "pickle-global", cwd=tmp_path)
    result = xbfl_here("explain", "pickle-globl", cwd=tmp_path)
    assert result.returncode == 2
    assert "did you mean 'pickle-global'" in result.stderr


@functools.cache
def _one_per_code() -> dict[str, Case]:
    found: dict[str, Case] = {}
    for case in hostile():
        for code in case.codes & REFUSALS.keys():
            if len(case.codes) == 1 and not case.options:
                found.setdefault(code, case)
    return found


@pytest.mark.one_in(16)
@pytest.mark.parametrize("code", sorted(_one_per_code()))
def test_a_hostile_file_is_refused_in_one_line(code: str, tmp_path: Path, figure: Figure) -> None:
    path = _one_per_code()[code].build(tmp_path / "file")
    room = tmp_path / "room"
    room.mkdir()
    before = os.times()
    program = (
        "import sys, atexit\n"
        "from xbackend_fl.cli.main import main\n"
        "def peak():\n"
        "    line = next(l for l in open('/proc/self/status') if l.startswith('VmHWM'))\n"
        "    open(sys.argv.pop(), 'w').write(line.split()[1])\n"
        "heavy = {'torch', 'tensorflow', 'keras', 'jax'}\n"
        "target = sys.argv[-1]\n"
        "sys.argv = ['xbfl', 'convert', sys.argv[1], sys.argv[2]]\n"
        "try:\n    main()\n"
        "finally:\n"
        "    sys.argv.append(target)\n"
        "    peak()\n"
        "    assert not heavy & set(sys.modules)\n"
    )
    note = tmp_path / "peak"
    result = subprocess.run(
        [sys.executable, "-c", program, str(path), str(room / "out.npz"), str(note)],
        cwd=room,
        capture_output=True,
        text=True,
        check=False,
    )
    after = os.times()
    seconds = after.children_user + after.children_system - before.children_user - before.children_system
    assert result.returncode == 2, result.stderr
    assert result.stdout == ""
    assert result.stderr.count("\n") == 1
    assert result.stderr.startswith(f"error[{code}]: {path}")
    assert not list(room.iterdir())
    assert within(seconds, 2.0)
    assert int(note.read_text()) < 256 * 1024
    figure(f"refusal {code}", f"{seconds:.2f} s of processor, {int(note.read_text()) // 1024} MiB")


def test_json_of_a_refusal_is_for_programs(tmp_path: Path) -> None:
    (tmp_path / "x.safetensors").write_bytes(b"\xff" * 8 + b"{}")
    result = xbfl_here("inspect", "x.safetensors", "--json", cwd=tmp_path)
    error = json.loads(result.stdout)["error"]
    assert error["code"] == "header-too-large"
    assert error["path"] == "x.safetensors"
    assert error["value"] == (1 << 64) - 1 > error["limit"]


def test_a_progress_bar_on_a_terminal_only(tmp_path: Path) -> None:
    import pty

    weights.save(tmp_path / "large.safetensors", {f"w{i}": np.zeros(1 << 24, np.float32) for i in range(5)})
    parent, child = pty.openpty()
    with subprocess.Popen(
        [XBFL, "convert", "large.safetensors", "out.npz"],
        cwd=tmp_path,
        stderr=child,
        stdout=subprocess.PIPE,
        text=True,
    ) as process:
        os.close(child)
        shown = b""
        try:
            while part := os.read(parent, 65536):
                shown += part
        except OSError:
            pass  # the terminal is gone when the process ends
        process.wait()
    os.close(parent)
    assert process.returncode == 0
    assert b"MB" in shown
    assert ok("convert", "large.safetensors", "again.npz", cwd=tmp_path)


@pytest.mark.parametrize(
    ("name", "model", "place"),
    [("x.npz", [], "x.npz"), ("x.pt", PAIR[:2] + BACK[2:], "/xbfl-")],
)
def test_what_there_is_no_room_for_is_named(
    name: str, model: list[str], place: str, net: Path, digits: Path, tmp_path: Path
) -> None:
    """A limit that the kernel keeps to, for a disk; PyTorch's own writer says something else of it, and writes to a passing place first."""
    limits = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (4096, limits[1]))
    try:
        result = xbfl_here("convert", net, tmp_path / name, *model, cwd=digits)
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, limits)
    assert result.returncode == 1
    first = result.stderr.splitlines()[0]
    assert first.startswith("error[run-failed]: /")
    assert place in first
    assert first.endswith(": File too large")
    assert list(tmp_path.iterdir()) == []
